"""A run starts again whatever a kill has left of its files, and says which settings differ from those it began with."""

import dataclasses
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
from test_train_damaged import resumed
from tiny_run import STEPS, config_of

from ove.config import RunConfig
from ove.train.loop import train

ENTRIES = [{"shards": "s", "record": n, "key": f"k{n}", "reason": "damaged"} for n in range(3)]


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy that may be damaged, with three bad records noted."""
    copy = shutil.copytree(trained_run, tmp_path / "run")
    (copy / "quarantine.jsonl").write_text("".join(json.dumps(entry) + "\n" for entry in ENTRIES))
    return copy


@pytest.fixture
def config(shard_folder: Path) -> RunConfig:
    return config_of(shard_folder)


def cut(path: Path) -> None:
    path.write_bytes(path.read_bytes()[: path.stat().st_size - 9])


def fill(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-9] + bytes(9))  # the end of a file that was enlarged, but not written


def empty(path: Path) -> None:
    path.write_bytes(b"")


@pytest.mark.parametrize("damage", [cut, fill, empty])
def test_a_run_starts_twice_over_torn_files(run: Path, config: RunConfig, damage: Callable[[Path], None]) -> None:
    names = ["config.json", "preprocessing.json", "parameters.txt", "metrics.jsonl", "quarantine.jsonl", ".lock"]
    whole = {name: (run / name).read_bytes() for name in names}
    events = {path: path.read_bytes() for path in (run / "tensorboard").iterdir()}
    for path in [*(run / name for name in names), *events]:
        damage(path)
    (run / ".config.json.killed.tmp").write_text("{")
    for _ in range(2):
        assert int(train(config, run, lambda line: None).step) == STEPS
    for name in ("config.json", "preprocessing.json", "parameters.txt"):
        assert (run / name).read_bytes() == whole[name], name
    for name in ("metrics.jsonl", "quarantine.jsonl"):
        before = whole[name].splitlines()
        assert (run / name).read_bytes().splitlines() == (before[:-1] if damage is not empty else [])
    assert all(path.exists() for path in events)  # of former launches; TensorBoard reads them up to where they are whole


def test_a_bad_record_noted_after_a_torn_line_is_read_by_the_next_restart(run: Path, config: RunConfig) -> None:
    from ove.stream.head_stream import BadRecord
    from ove.train.hosts.workdir import quarantine

    path = run / "quarantine.jsonl"
    cut(path)
    note = quarantine(path, lambda line: None)
    fields = {field.name for field in dataclasses.fields(BadRecord)}
    note(BadRecord(**{key: value for key, value in (ENTRIES[2] | {"record": 7}).items() if key in fields}))
    quarantine(path, lambda line: None)
    assert [json.loads(line)["record"] for line in path.read_text().splitlines()] == [0, 1, 7]


def test_a_resumed_run_says_which_settings_differ_and_which_have_no_effect(run: Path, config: RunConfig) -> None:
    said: list[str] = []
    resumed(run, config, said)
    assert said == []
    changed = dataclasses.replace(config.train, seed=3, init_from="elsewhere", log_every=5)
    resumed(run, dataclasses.replace(config, train=changed), said)
    where = f"{run}/checkpoints/{STEPS}: "
    assert said == [
        f"{where}the run goes on with other settings: train.log_every 1 → 5.",
        f"{where}WITHOUT EFFECT on a resumed run: train.init_from '' → 'elsewhere', train.seed 0 → 3; start a run with them in "
        "another --workdir.",
    ]
