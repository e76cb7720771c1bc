"""A run stops itself over a loss that is not finite and over too many bad records, and says where."""

import dataclasses
import json
from pathlib import Path

import pytest
from synthetic import RECORDS, record_of, write_set
from tiny_run import config_of

from ove.errors import TrainingStopped
from ove.shards.schema import VideoRecord
from ove.shards.sources import VideoFile
from ove.train.checkpoint import Checkpoints
from ove.train.loop import train


def test_a_loss_that_is_not_finite_stops_with_bank_and_step(shard_folder: Path, tmp_path: Path) -> None:
    config = config_of(shard_folder, lr=1e30, warmup_steps=4, save_every=2, steps=9)
    with pytest.raises(
        TrainingStopped, match=r"the (loss of bank|gradient of) (vid|obj|encoder) is (nan|inf) at step \d"
    ) as stopped:
        train(config, tmp_path, lambda line: None)
    step = int(str(stopped.value).split("at step ")[1].split(";")[0])
    records = json.loads((tmp_path / f"not_finite_step_{step}.json").read_text())
    assert {bank: len(numbers) for bank, numbers in records.items()} == {"vid": 8, "obj": 8}
    assert all(0 <= number < RECORDS for numbers in records.values() for number in numbers)
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == list(range(1, step))
    checkpoints = Checkpoints(tmp_path)
    assert (checkpoints.latest() or 0) < step
    checkpoints.close()


def _a_third_damaged(video: VideoFile) -> VideoRecord:
    record = record_of(video)
    return dataclasses.replace(record, frames=[b"no picture"] * 8) if int(video.key) % 3 == 0 else record


def test_too_many_bad_records_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path / "shards", make=_a_third_damaged), steps=100, save_every=50)
    said: list[str] = []
    with pytest.raises(TrainingStopped, match=r"of 208 records were bad, more than batches\.max_bad_share = 0\.05"):
        train(config, tmp_path / "run", said.append)
    listed = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(entry["record"] for entry in listed) == list(range(0, RECORDS, 3))
    assert all(entry["reason"] for entry in listed)
    assert sum("is set aside" in line for line in said) == len(listed)
    logged = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["bad_records"] > 0
