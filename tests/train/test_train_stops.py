"""A run stops itself over a loss that is not finite and over too many bad records, and says where."""

import dataclasses
import json
from pathlib import Path

import pytest
from synthetic import RECORDS, record_of, write_set
from tiny_run import config_of

from ove.errors import TrainingStopped
from ove.shards.schema import VideoRecord
from ove.sources.folders import InputFile
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.loop import train


def test_a_loss_that_is_not_finite_stops_with_bank_and_step(shard_folder: Path, tmp_path: Path) -> None:
    config = config_of(shard_folder, save_every=1)
    config = dataclasses.replace(config, centers=dataclasses.replace(config.centers, init_scale=float("inf")))
    with pytest.raises(TrainingStopped, match=r"the loss of bank (vid|obj) is (nan|inf) at step 1; the records of its batch"):
        train(config, tmp_path, lambda line: None)
    noted = json.loads((tmp_path / "not_finite_step_1.json").read_text())
    assert noted["step"] == 1
    assert {bank: len(samples) for bank, samples in noted["banks"].items()} == {"vid": 8, "obj": 8}
    for samples in noted["banks"].values():
        assert all(sample["key"] == f"{sample['record']:04d}" and 0 <= sample["record"] < RECORDS for sample in samples)
    assert {sample["mode"] for sample in noted["banks"]["vid"]} == {"codec", "frames", "tiling"}
    assert (tmp_path / "metrics.jsonl").exists() is False
    checkpoints = Checkpoints(tmp_path)
    assert checkpoints.latest() is None
    checkpoints.close()


def _a_third_damaged(video: InputFile) -> VideoRecord:
    record = record_of(video)
    return dataclasses.replace(record, frames=[b"no picture"] * 8) if int(video.key) % 3 == 0 else record


def test_too_many_bad_records_stop_the_run_and_are_listed(tmp_path: Path) -> None:
    config = config_of(write_set(tmp_path / "shards", make=_a_third_damaged))
    said: list[str] = []
    with pytest.raises(TrainingStopped, match=r"of 208 records were bad, more than batches\.max_bad_share = 0\.05"):
        train(config, tmp_path / "run", said.append)
    listed = [json.loads(line) for line in (tmp_path / "run" / "quarantine.jsonl").read_text().splitlines()]
    assert sorted(entry["record"] for entry in listed) == list(range(0, RECORDS, 3))
    assert all(entry["reason"] for entry in listed)
    assert sum("is set aside" in line for line in said) == len(listed)
    logged = json.loads((tmp_path / "run" / "metrics.jsonl").read_text().splitlines()[-1])
    assert logged["bad_records"] > 0
