"""A run whose newest checkpoint is damaged says so aloud and goes on from the one before, to the same end."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import pytest
from tiny_run import STEPS, config_of, state_on

from ove.config import RunConfig
from ove.errors import BadCheckpoint, DamagedCheckpoint
from ove.stream.batch_pipeline import Pipeline
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.checkpoints.resume import resume
from ove.train.init import TrainState
from ove.train.loop import train

BEFORE = STEPS // 2


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged; its checkpoints are of steps 7 and 14."""
    return shutil.copytree(trained_run, tmp_path / "run")


@pytest.fixture
def config(shard_folder: Path) -> RunConfig:
    return config_of(shard_folder)


def largest(folder: Path) -> Path:
    return max((path for path in folder.rglob("*") if path.is_file()), key=lambda path: path.stat().st_size)


def flip(folder: Path) -> None:
    data = bytearray(largest(folder).read_bytes())
    data[len(data) // 2] ^= 4
    largest(folder).write_bytes(data)


def cut(folder: Path) -> None:
    path = largest(folder)
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def remove_arrays(folder: Path) -> None:
    shutil.rmtree(folder / "state")


def remove_configuration(folder: Path) -> None:
    shutil.rmtree(folder / "meta")


def empty(folder: Path) -> None:
    shutil.rmtree(folder)
    folder.mkdir()


def resumed(run: Path, config: RunConfig, said: list[str]) -> TrainState | None:
    _, abstract, shardings = state_on(config, 8)
    pipeline = Pipeline(config.batches)
    with Checkpoints(run, keep=2) as checkpoints:
        try:
            return resume(checkpoints, config, pipeline, abstract, shardings, said.append)
        finally:
            pipeline.close()


@pytest.mark.parametrize("damage", [flip, cut, remove_arrays, remove_configuration, empty])
def test_the_one_before_is_taken(run: Path, config: RunConfig, damage: Callable[[Path], None]) -> None:
    damage(run / "checkpoints" / str(STEPS))
    said: list[str] = []
    state = resumed(run, config, said)
    assert state is not None and int(state.step) == BEFORE
    assert said[0].startswith(f"DAMAGED CHECKPOINT: {run}/checkpoints/{STEPS}: cannot be read (")
    assert f"going back to step {BEFORE}" in said[1] and len(said) == 2
    assert [path.name for path in (run / "checkpoints_damaged").iterdir()] == [str(STEPS)]
    assert not (run / "checkpoints" / str(STEPS)).exists()


def test_the_run_comes_to_the_same_end(run: Path, config: RunConfig) -> None:
    undisturbed = (run / "metrics.jsonl").read_text().splitlines()
    with Checkpoints(run) as checkpoints:
        leaves = checkpoints.meta(STEPS).leaves
    flip(run / "checkpoints" / str(STEPS))
    said: list[str] = []
    state = train(config, run, said.append)
    assert int(state.step) == STEPS
    assert sum("DAMAGED CHECKPOINT" in line for line in said) == 2
    with Checkpoints(run) as checkpoints:
        assert checkpoints.meta(STEPS).leaves == leaves
    lines = (run / "metrics.jsonl").read_text().splitlines()
    assert [json.loads(line)["loss"] for line in lines] == [json.loads(line)["loss"] for line in undisturbed]


def test_none_is_left(run: Path, config: RunConfig) -> None:
    for step in (BEFORE, STEPS):
        cut(run / "checkpoints" / str(step))
    said: list[str] = []
    with pytest.raises(DamagedCheckpoint, match=r"checkpoints/7: cannot be read \(.*No other checkpoint is left to go on from"):
        resumed(run, config, said)
    assert len(said) == 2
    assert sorted(path.name for path in (run / "checkpoints").iterdir()) == ["14", "7"]


def test_another_run_is_no_reason_to_go_back(run: Path, shard_folder: Path) -> None:
    config = config_of(shard_folder)
    _, abstract, shardings = state_on(config, 8)
    fewer = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, "float16"), abstract.params)
    pipeline = Pipeline(config.batches)
    with Checkpoints(run, keep=2) as checkpoints, pytest.raises(BadCheckpoint, match=r"is float32\[.*\], not float16"):
        resume(checkpoints, config, pipeline, abstract._replace(params=fewer), shardings, pytest.fail)
    pipeline.close()
