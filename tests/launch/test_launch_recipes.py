"""Every recipe is a configuration that can be used, and its `:smoke` a run that anyone can make."""

import json
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch import plan, train
from launch.cli.settings import load_config
from ove.config import RunConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError

CONFIGS = sorted((Path(__file__).resolve().parents[2] / "configs").glob("pretrain_*.py"))
SMALL = ("--config.encoder.width=64", "--config.encoder.heads=2", "--config.encoder.mlp=64", "--config.encoder.layers=1")
SMOKE = (*SMALL, "--config.train.steps=2", "--config.batches.budget_tokens=16", "--config.batches.gop_frames=4")
ids = [path.stem for path in CONFIGS]
SCRIPT = CONFIGS[0].parents[1] / "launch" / "cluster" / "accelerators.sh"
LAUNCHED = float(re.findall(r"export XLA_CLIENT_MEM_FRACTION=(\S+)", SCRIPT.read_text())[0])
"""Of a GPU's memory, where a run is started by a script."""


def of(path: Path, argument: str) -> RunConfig:
    return from_mapping(RunConfig, load_config(f"{path}:{argument}"))


@pytest.mark.parametrize("path", CONFIGS, ids=ids)
def test_every_size_can_be_asked_for(path: Path) -> None:
    for argument, layers in (("", 24), ("large", 24), ("base", 12), ("huge", 32)):
        config = of(path, argument)
        assert config.encoder.layers == layers
        samples = config.train.steps * sum(head.batch_size for head in config.batches.heads)
        assert samples == pytest.approx(13e9 if "stage1" in path.stem else 4e9, rel=1e-5)
        assert bool(config.train.init_from) == ("stage2" in path.stem)
        assert {head.bank for head in config.batches.heads} == ({"obj"} if "stage1" in path.stem else {"vid", "obj", "ocr"})
    for wrong in ("tiny", "base,large", "smoke,devices=x", "devices=0", "devices=2,devices=4"):
        with pytest.raises(ConfigError, match="is not known here; give base, large or huge"):
            of(path, wrong)


@pytest.mark.parametrize("stage", ["1", "2"])
def test_the_references_batches_go_by_the_devices(stage: str) -> None:
    path = next(path for path in CONFIGS if path.stem == f"pretrain_stage{stage}_reference")
    config = of(path, "base,devices=8")
    on_device = {head.bank: head.batch_size // 8 // config.train.grad_accum_steps for head in config.batches.heads}
    assert on_device == ({"obj": 16} if stage == "1" else {"vid": 16, "obj": 16, "ocr": 8})


def run(ask: Callable, path: Path, shards: Path, workdir: Path, *options: str) -> dict[str, float]:
    """The last logged line of a smoke run that is as small as it can be."""
    answer = ask(train.main, f"--config={path}:smoke", f"--workdir={workdir}", f"--config.batches.shards={shards}", *options)
    assert answer.code == 0, answer.err
    return json.loads((workdir / "metrics.jsonl").read_text().splitlines()[-1])


@pytest.mark.slow
def test_stage_2_goes_on_from_stage_1(ask: Callable, shard_folder: Path, tmp_path: Path) -> None:
    stage1, stage2 = CONFIGS[0], CONFIGS[2]
    assert run(ask, stage1, shard_folder, tmp_path / "1", *SMOKE)["step"] == 2
    common = f"--config={stage2}:smoke", f"--config.batches.shards={shard_folder}", f"--config.train.init_from={tmp_path}/1"
    wrong = ask(train.main, *common, *SMOKE, f"--workdir={tmp_path}/wrong", "--config.encoder.layers=3")
    assert wrong.code == 2 and "its encoder has encoder.layers = 1, not 3. Set these keys as it has them" in wrong.err
    heads = "[{'bank': 'vid', 'batch_size': 16, 'labels_per_step': 2}, {'bank': 'obj', 'batch_size': 16, 'labels_per_step': 2}]"
    logged = run(
        ask,
        stage2,
        shard_folder,
        tmp_path / "2",
        *SMOKE,
        f"--config.train.init_from={tmp_path}/1",
        f"--config.batches.heads={heads}",
        "--config.train.lr_by_bank.obj=5e-4",
    )
    assert np.isfinite(logged["loss"]) and logged["lr_bank/obj"] != logged["lr_bank/vid"]


@pytest.mark.slow
@pytest.mark.parametrize("path", CONFIGS, ids=ids)
def test_smoke(ask: Callable, shard_folder: Path, tmp_path: Path, path: Path) -> None:
    budget = ("--config.batches.budget_tokens=16", "--config.batches.gop_frames=4")
    logged = run(ask, path, shard_folder, tmp_path / "run", *budget)
    assert logged["step"] == 20 and np.isfinite(logged["loss"])


def test_a_plan_is_printed(ask: Callable) -> None:
    answer = ask(plan.main, f"--config={CONFIGS[2]}", "--devices", 128, "--kind", "v5p")
    assert answer.code == 0, answer.err
    for words in ("128 devices (data 128, fsdp 1)", "at its fullest", "all-reduce", "samples/s"):
        assert words in answer.out
    assert answer.out.splitlines()[-1].startswith("Fits: ")
    wrong = ask(plan.main, f"--config={CONFIGS[2]}", "--devices", 12)
    assert wrong.code == 2 and "batch_size 8192 of head vid cannot be split over 12 devices" in wrong.err
    assert (
        "do not make up the 4 devices" in ask(plan.main, f"--config={CONFIGS[2]}", "--devices", 4, "--config.mesh.fsdp=8").err
    )
    assert "expected BANK=N" in ask(plan.main, f"--config={CONFIGS[0]}", "--devices", 8, "--centers", "vid=many").err


@pytest.mark.parametrize(
    ("kind", "given", "expected"),
    [
        ("h100", {}, LAUNCHED * 80e9 / 2**30),
        ("h100", {"XLA_CLIENT_MEM_FRACTION": ".75"}, 0.75 * 80e9 / 2**30),
        ("h200", {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, 0.5 * 141e9 / 2**30),
        ("v5p", {"XLA_CLIENT_MEM_FRACTION": ".75"}, 95.0),
    ],
)
def test_a_run_has_the_memory_that_jax_takes(
    monkeypatch: pytest.MonkeyPatch, kind: str, given: dict[str, str], expected: float
) -> None:
    for name in ("XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"):
        monkeypatch.delenv(name, raising=False)
    for name, value in given.items():
        monkeypatch.setenv(name, value)
    assert plan.usable(plan.DEVICE_KINDS[kind]).memory_gib == pytest.approx(expected)


@pytest.mark.parametrize("share", ["1.5", "0", "much"])
def test_a_share_of_memory_that_is_none_is_refused(monkeypatch: pytest.MonkeyPatch, share: str) -> None:
    monkeypatch.setenv("XLA_CLIENT_MEM_FRACTION", share)
    with pytest.raises(ConfigError, match=f"XLA_CLIENT_MEM_FRACTION={share} in the environment: must be above 0 and at most 1"):
        plan.usable(plan.DEVICE_KINDS["h100"])


@pytest.mark.parametrize(
    ("words", "begins", "settings"),
    [
        (["--devices", 8], "DOES NOT FIT: 102.4 of the 67 GiB that JAX takes of each h100; ", ["train.grad_accum_steps = 4"]),
        (["--devices", 1, "--kind", "a100"], "DOES NOT FIT: ", ["train.grad_accum_steps = 64"]),
        (["--devices", 16, "--config.encoder.layers=400"], "DOES NOT FIT: ", ["train.grad_accum_steps = ", "mesh.fsdp = "]),
    ],
)
def test_a_plan_that_does_not_fit_says_which_setting_makes_it(
    ask: Callable, words: list[object], begins: str, settings: list[str]
) -> None:
    """The settings named are tried: with them the run fits, with the next smaller numbers it does not."""
    answer = ask(plan.main, f"--config={CONFIGS[0]}", *words)
    assert answer.code == 0, answer.err
    last = answer.out.splitlines()[-1]
    assert last.startswith(begins) and all(setting in last for setting in settings), last
    found = re.findall(r"(train\.grad_accum_steps|mesh\.fsdp) = (\d+)", last)
    enough = [f"--config.{key}={number}" for key, number in found]
    assert ask(plan.main, f"--config={CONFIGS[0]}", *words, *enough).out.splitlines()[-1].startswith("Fits: ")
    for n, (key, number) in enumerate(found):
        less = [word for place, word in enumerate(enough) if place != n]
        less += [f"--config.{key}={int(number) // 2}"] * (int(number) > 1)
        assert "NOT FIT: " in ask(plan.main, f"--config={CONFIGS[0]}", *words, *less).out.splitlines()[-1]


def test_what_cannot_fit_is_said(ask: Callable) -> None:
    words = ["--devices", 1, "--config.encoder.layers=4000", "--config.encoder.remat=none"]
    last = ask(plan.main, f"--config={CONFIGS[0]}", *words).out.splitlines()[-1]
    assert "no train.grad_accum_steps or mesh.fsdp is enough on 1 devices: use encoder.remat = full, a smaller" in last
