"""What the formulas of docs/scaling.md say is what the compiled program does."""

import dataclasses
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from tiny_run import config_of, replace_encoder

from ove.config import MeshConfig
from ove.plan import costs
from ove.plan.costs import RunShape
from ove.plan.programs import collective_bytes, compile_step, shapes_in
from ove.train.sharding import make_mesh

ROOT = Path(__file__).resolve().parents[2]
CENTERS, TOKENS, LABELS = {"vid": 640, "obj": 410}, {"vid": 16, "obj": 4}, {"vid": 3, "obj": 3}


def at(n: int, fsdp: int, accumulate: int, bank: int = 0, loss: str = "sigmoid", remat: str = "none") -> RunShape:
    config = replace_encoder(config_of(Path(), grad_accum_steps=accumulate), remat=remat, embedding=32)
    centers = dataclasses.replace(config.centers, loss=loss)
    return RunShape(
        dataclasses.replace(config, mesh=MeshConfig(fsdp=fsdp, bank=bank), centers=centers), n, CENTERS, TOKENS, LABELS
    )


def compiled(place: RunShape) -> jax.stages.Compiled:
    mesh = make_mesh(place.config.mesh, jax.devices()[: place.n_devices])
    return compile_step(place.config, mesh, place.n_centers, place.tokens_of, place.labels_of)[0]


def assert_as_formula(place: RunShape) -> str:
    program = compiled(place).as_text()
    found, expected = (
        {kind: size for kind, size in sizes.items() if size} for sizes in (collective_bytes(program), costs.collectives(place))
    )
    assert found == expected
    return program


def test_collectives_are_those_of_the_formula_and_no_bank_is_gathered() -> None:
    program = assert_as_formula(at(4, 2, 2))
    whole = {(rows, 32) for rows in (640, 412, 410)}
    assert not whole & shapes_in(program)
    assert (160, 32) in shapes_in(program)  # a quarter of a bank, which would be seen
    # Of the stacked kernels each device has half: whole ones are there only layer by layer.
    assert (2, 64, 128) not in shapes_in(program) and {(2, 64, 64), (64, 128)} <= shapes_in(program)


@pytest.mark.slow
@pytest.mark.parametrize(
    "place",
    [
        at(1, 1, 1),
        at(8, 1, 1),
        at(8, 2, 1, bank=2),
        at(2, 2, 1, loss="margin_softmax", remat="full"),
        at(8, 8, 1, remat="dots"),
    ],
    ids=["1", "8", "8, groups", "2, softmax", "8, cut"],
)
def test_collectives_elsewhere(place: RunShape) -> None:
    assert_as_formula(place)


def test_loops_and_groups_are_counted() -> None:
    program = """HloModule m
%body (p: f32[4]) -> f32[4] {
  %g = f32[8,2]{1,0} all-gather(%x), replica_groups={{0,1},{2,3}}, dimensions={0}
  %alone = f32[64]{0} all-reduce(%x), replica_groups={{0},{1}}, to_apply=%add
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %w = f32[4]{0} while(%p), condition=%c, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %s = bf16[2]{0} reduce-scatter(%w), replica_groups=[2,4]<=[8], dimensions={0}, to_apply=%add
}
"""
    assert {kind: size for kind, size in collective_bytes(program).items() if size} == {
        "all-gather": 3 * 64,
        "reduce-scatter": 16,
    }


@pytest.mark.parametrize(
    ("groups", "devices"),
    [
        ("{{0,1,2,3},{4,5,6,7}}", 4),
        ("[2,4]<=[8]", 4),
        ("[4,2]<=[4,2]T(1,0)", 2),
        ("mesh['data'=8,'fsdp'=1] {'data'}", 8),
        ("mesh['data'=4,'fsdp'=2] {'data','fsdp'}", 8),
        ("mesh['data'=4,'fsdp'=2] {'fsdp'}", 2),
        ("mesh['a'=8, device_ids=([2,4]T(1,0))] {'a':(2)4}", 4),
        ("{}", 8),
        ("mesh['data'=8,'fsdp'=1] {'fsdp'}", 1),
    ],
)
def test_devices_of_a_group_are_known_however_they_are_written(groups: str, devices: int) -> None:
    program = f"""HloModule m, is_scheduled=true, num_partitions=8
ENTRY %main (p: f32[6]) -> f32[3] {{
  %s = f32[3]{{0}} reduce-scatter(%p), channel_id=1, replica_groups={groups}, use_global_device_ids=true, dimensions={{0}}
}}
"""
    assert collective_bytes(program) == {"reduce-scatter": devices * 12 if devices > 1 else 0}


def test_groups_written_in_an_unknown_way_are_an_error_not_zero_bytes() -> None:
    program = "HloModule m\nENTRY %main (p: f32[6]) -> f32[3] {\n  %s = f32[3] all-reduce(%p), replica_groups=somehow\n}\n"
    with pytest.raises(ValueError, match="form that is not known: somehow"):
        collective_bytes(program)


def test_collectives_that_are_started_and_awaited_apart_count_once() -> None:
    # As XLA writes them for GPUs and TPUs: results alone, or behind the operands, or in a computation of their own.
    program = """HloModule m, is_scheduled=true, num_partitions=4
%wrapped (a: f32[8]) -> f32[2] {
  %a = f32[8]{0} parameter(0)
  ROOT %s = f32[2]{0} reduce-scatter(%a), channel_id=3, replica_groups=[1,4]<=[4], dimensions={0}, to_apply=%add
}
ENTRY %main (p: f32[4]) -> f32[4] {
  %r = f32[4]{0} all-reduce-start(%p), channel_id=1, replica_groups=[1,4]<=[4], to_apply=%add
  %r.done = f32[4]{0} all-reduce-done(%r)
  %two = (f32[4]{0}, bf16[8]{0}) all-reduce-start(%p, %q), replica_groups=[1,4]<=[4], to_apply=%add
  %two.done = (f32[4]{0}, bf16[8]{0}) all-reduce-done(%two)
  %both = (f32[4]{0:T(128)}, f32[4]{0:T(128)}) all-reduce-start(f32[4]{0:T(128)} %p), replica_groups=[1,4]<=[4], to_apply=%add
  %both.done = f32[4]{0:T(128)} all-reduce-done(%both)
  %g = (f32[4]{0}, f32[16]{0}) all-gather-start(%p), channel_id=2, replica_groups=[1,4]<=[4], dimensions={0}
  %g.done = f32[16]{0} all-gather-done(%g)
  %s.start = ((f32[8]{0}), f32[2]{0}) async-start(%b), calls=%wrapped
  %s.done = f32[2]{0} async-done(%s.start), calls=%wrapped
  %c = (f32[4]{0}, f32[4]{0}, u32[], u32[]) collective-permute-start(%p), channel_id=4, source_target_pairs={{0,1},{1,0}}
}
"""
    assert collective_bytes(program) == {
        "all-reduce": 16 + 16 + 16 + 16,
        "all-gather": 64,
        "reduce-scatter": 32,
        "collective-permute": 16,
    }


@pytest.mark.slow
@pytest.mark.parametrize("devices", [8, 64])
def test_stage_2_at_full_size(devices: int) -> None:
    """Compiled for so many pretended devices; nothing of it is run."""
    command = [
        sys.executable,
        "-m",
        "launch.plan",
        "--config=configs/pretrain_stage2.py",
        "--devices",
        str(devices),
        "--compile",
    ]
    environment = os.environ | {"XLA_FLAGS": "", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run(
        [*command, "--config.mesh.fsdp=8"], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=1200
    )
    assert done.returncode == 0, done.stderr
    lines = re.findall(r"^(\S+): formula ([\d,]+) bytes, program ([\d,]+)$", done.stdout, re.MULTILINE)
    assert [kind for kind, _, _ in lines] == ["all-gather", "reduce-scatter", "all-reduce"]
    assert all(formula == program for _, formula, program in lines), done.stdout
    assert "whole in the program: nothing that the rules cut" in done.stdout
