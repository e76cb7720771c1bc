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
from ove.plan.costs import Workplace
from ove.plan.programs import compile_step, shapes_in, traffic
from ove.train.sharding import make_mesh

ROOT = Path(__file__).resolve().parents[2]
CENTERS, TOKENS, LABELS = {"vid": 640, "obj": 410}, {"vid": 16, "obj": 4}, {"vid": 3, "obj": 3}


def at(n: int, fsdp: int, accumulate: int, bank: int = 0, loss: str = "sigmoid", remat: str = "none") -> Workplace:
    config = replace_encoder(config_of(Path(), accumulate=accumulate), remat=remat, embedding=32)
    centers = dataclasses.replace(config.centers, loss=loss)
    return Workplace(
        dataclasses.replace(config, mesh=MeshConfig(fsdp=fsdp, bank=bank), centers=centers), n, CENTERS, TOKENS, LABELS
    )


def compiled(place: Workplace) -> jax.stages.Compiled:
    mesh = make_mesh(place.config.mesh, jax.devices()[: place.n_devices])
    return compile_step(place.config, mesh, place.n_centers, place.tokens_of, place.labels_of)[0]


def assert_as_formula(place: Workplace) -> str:
    program = compiled(place).as_text()
    found, expected = (
        {kind: size for kind, size in sizes.items() if size} for sizes in (traffic(program), costs.collectives(place))
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
def test_collectives_elsewhere(place: Workplace) -> None:
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
    assert {kind: size for kind, size in traffic(program).items() if size} == {"all-gather": 3 * 64, "reduce-scatter": 16}


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
