"""Programs compiled for GPUs and TPUs that are not here; their compilers come with requirements-compile.txt."""

import dataclasses
import importlib.util
import json
import math
from pathlib import Path

import jax
import pytest
from tiny_run import config_of, replace_encoder

from launch.compile import main
from ove.config import MeshConfig
from ove.encoder import encoder
from ove.errors import ConfigError, Unavailable
from ove.plan import absent, costs
from ove.plan.absent import CAPABILITIES, TORUS, absent_devices, slice_shape
from ove.plan.costs import DEVICE_KINDS, RunShape
from ove.plan.report import Report, compile_for, report_on, to_text
from ove.train.monitor.speed import encoder_flops

ROOT = Path(__file__).resolve().parents[2]


def needs(kind: str) -> pytest.MarkDecorator:
    package = "jax_cuda13_plugin" if kind in CAPABILITIES else "libtpu"
    missing = importlib.util.find_spec(package) is None
    return pytest.mark.skipif(missing, reason=f"{package} is not installed (pip install -r requirements-compile.txt)")


def kinds(*names: str) -> list:
    return [pytest.param(name, marks=needs(name)) for name in names]


def at(n: int, fsdp: int = 1, **encoder: object) -> RunShape:
    config = replace_encoder(config_of(Path()), width=128, heads=2, mlp=384, compute="bfloat16", **encoder)
    heads = tuple(dataclasses.replace(head, batch_size=4 * n) for head in config.batches.heads)
    config = dataclasses.replace(config, mesh=MeshConfig(fsdp=fsdp), batches=dataclasses.replace(config.batches, heads=heads))
    return RunShape(config, n, {"vid": 6400, "obj": 4100}, {"vid": 256, "obj": 128}, {"vid": 3, "obj": 3})


def compiled(place: RunShape, kind: str, program: str) -> Report:
    made, expected = compile_for(place, kind, program)
    return report_on(made, DEVICE_KINDS[kind], expected)


@pytest.mark.parametrize("kind", kinds("v5p", "h200"))
def test_an_encoder_is_compiled_with_the_kernel_of_its_machine(kind: str) -> None:
    place = at(1, attention="cudnn" if kind == "h200" else "splash")
    report = compiled(place, kind, "encoder")
    # Splash computes a product of its backward pass twice; the patches' gradient is none of the formula.
    assert sum(report.flops.values()) == pytest.approx(4 * encoder_flops(place.config.encoder, 256), rel=0.25)
    held = sum(leaf.size * 4 for leaf in jax.tree.leaves(encoder.skeleton(place.config.encoder)[1])) + 4 * 256 * (588 + 12)
    # For rows of one input the pooling head needs no bias of keys. TPUs store small arrays in whole tiles.
    held -= 4 * place.config.encoder.width
    assert held <= report.memory_gib["arguments"] * 2**30 < (1.1 if kind == "h200" else 1.5) * held
    assert not report.red_flags and not report.uncounted and not report.collectives
    assert (report.libtpu_ms is None) == (kind == "h200")
    assert any(one.source.startswith("encoder/") for one in report.dearest)
    assert "at least, ms" in to_text(report)


@pytest.mark.parametrize("kind", kinds("v5p"))
def test_scores_in_memory_are_seen(kind: str) -> None:
    report = compiled(at(1, attention="reference"), kind, "forward")
    assert {flag.kind for flag in report.red_flags} == {"scores of all tokens in memory"}


@pytest.mark.slow
@pytest.mark.parametrize("kind", kinds(*TORUS, *CAPABILITIES))
def test_a_step_is_compiled_for_each_kind_and_moves_what_the_formula_says(kind: str) -> None:
    place = at(8, fsdp=2)
    report = compiled(place, kind, "step")
    expected, found = costs.collectives(place), {name: one["bytes"] for name, one in report.collectives.items()}
    assert found.keys() == expected.keys()
    if kind in CAPABILITIES:
        assert found == {name: pytest.approx(size, rel=0.05) for name, size in expected.items()}
    else:  # libtpu makes all-reduces of small reduce-scatters, and gathers once what is gathered twice
        sums = [sum(moved[name] for name in ("reduce-scatter", "all-reduce")) for moved in (found, expected)]
        assert sums[0] == pytest.approx(sums[1], rel=0.05)
        assert 0.4 * expected["all-gather"] < found["all-gather"] < 1.05 * expected["all-gather"]
    assert report.memory_gib["aliased"] == pytest.approx(report.memory_gib["outputs"], rel=0.01)
    assert not [flag for flag in report.red_flags if flag.kind in ("copies of banks", "float64", "calls of the host")]


@pytest.mark.parametrize("kind", kinds("v5p", "h200"))
def test_the_command_prints_one_json_object(kind: str, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--config=pretrain_stage2:smoke", "--devices", "1", "--kind", kind, "--program", "forward", "--json"]
    main([*words, "--config.encoder.layers=1", "--config.encoder.compute=bfloat16", "--top", "2"])
    said = json.loads(capsys.readouterr().out)
    assert (said["kind"], len(said["dearest"]), said["collectives"]) == (kind, 2, {})
    assert said["bound_ms"]["sum"] > 0


@pytest.mark.parametrize(
    ("kind", "chips", "shape"),
    [
        ("v5e", 1, (1, (1, 1))),
        ("v6e", 8, (1, (2, 4))),
        ("v5e", 512, (2, (16, 16))),
        ("v4", 4, (1, (2, 2, 1))),
        ("v5p", 128, (1, (4, 4, 8))),
    ],
)
def test_slices_have_the_shapes_that_google_lists(kind: str, chips: int, shape: tuple) -> None:
    assert slice_shape(kind, chips) == shape
    assert math.prod(shape[1]) * shape[0] == chips


def test_counts_that_there_are_not_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(absent, "_check_installed", lambda kind: None)
    with pytest.raises(ConfigError, match="12 chips are no TPU slice of v5p"):
        absent_devices("v5p", 12)
    with pytest.raises(ConfigError, match="12 GPUs are no whole number of hosts"):
        absent_devices("h200", 12)


@pytest.mark.parametrize("kind", ["v6e", "a100"])
def test_a_compiler_that_is_missing_is_named(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(Unavailable, match=rf"compiling for {kind} needs jax\[.*requirements-compile\.txt"):
        absent_devices(kind, 1)


def test_every_kind_has_a_description() -> None:
    assert set(CAPABILITIES) | set(TORUS) == set(DEVICE_KINDS)
    for kind in CAPABILITIES:
        text = (ROOT / "ove" / "plan" / "gpus" / f"{kind}.txtpb").read_text()
        assert f"memory_bandwidth: {DEVICE_KINDS[kind].hbm:.0f}" in text  # 10⁹ bytes a second, and what is below
        assert f"major: {int(CAPABILITIES[kind])}" in text
