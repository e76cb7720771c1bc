"""What probes say of each validation sample: in the file once, and the scores follow from it."""

import csv
import dataclasses
import json
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, image_record_of, record_of, write_image_set, write_set

from ove.config import ProbeConfig, SelectionConfig
from ove.errors import BadInput, ConfigError
from ove.probing.compare import Comparison, compare
from ove.probing.predictions import prediction_rows, write_predictions
from ove.shards.schema import ImageRecord, VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile

VAL = 23
STRANGE = "grey"
"""A class that the training set lacks."""


def some_strange(file: InputFile) -> VideoRecord:
    return dataclasses.replace(record_of(file), label=STRANGE if file.key == "0005" else file.label)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("val") / "shards", VAL, some_strange)


@pytest.fixture(scope="module")
def comparison(trained_run: Path, shard_folder: Path, val: Path) -> Comparison:
    config = ProbeConfig(
        str(trained_run), str(shard_folder), str(val), modes=("codec",), budgets=(BUDGET,),
        selection=SelectionConfig(gop_frames=GOP),
        epochs=2, batch_size=8, lr=3e-3, seeds=(3, 4),
    )  # fmt: skip
    return compare(config, lambda line: None)


def test_every_sample_once_for_every_probe_and_the_scores_follow(comparison: Comparison, val: Path) -> None:
    names = ShardSet.open(val).names
    lines = list(prediction_rows(comparison, names))
    probes = {(row.untrained, n): s.last for row in comparison.rows for n, s in enumerate(row.scores)}
    assert len(probes) == 4 and len(lines) == 4 * VAL
    for (untrained, seed), accuracy in probes.items():
        mine = [x for x in lines if (x["untrained"], x["seed_number"]) == (untrained, seed)]
        assert [(x["key"], x["label"]) for x in mine] == list(names)
        assert Counter(x["label"] for x in mine)[STRANGE] == 1
        assert sum(x["classes"][0] == x["label"] for x in mine) / VAL == pytest.approx(accuracy.top1)
        for x in mine:
            assert set(x["classes"]) == set(CLASSES) and x["probabilities"] == sorted(x["probabilities"], reverse=True)
            assert sum(x["probabilities"]) == pytest.approx(1, abs=1e-5)
    assert len({json.dumps(x["probabilities"]) for x in lines}) > VAL  # the probes differ


def test_both_kinds_of_file_say_the_same(comparison: Comparison, val: Path, tmp_path: Path) -> None:
    names = ShardSet.open(val).names
    for suffix in ("jsonl", "csv"):
        write_predictions(tmp_path / "deep" / f"said.{suffix}", comparison, names)
    lines = [json.loads(line) for line in (tmp_path / "deep" / "said.jsonl").read_text().splitlines()]
    assert lines == list(prediction_rows(comparison, names))
    with (tmp_path / "deep" / "said.csv").open(newline="") as file:
        table = list(csv.DictReader(file))
    assert len(table) == len(lines)
    for row, line in zip(table, lines, strict=True):
        assert (row["key"], row["label"], row["class_1"], row["class_2"]) == (line["key"], line["label"], *line["classes"])
        assert [float(row["probability_1"]), float(row["probability_2"])] == line["probabilities"]
        assert (row["mode"], row["budget"], row["untrained"]) == (line["mode"], str(line["budget"]), str(line["untrained"]))
    assert {path.name for path in (tmp_path / "deep").iterdir()} == {"said.jsonl", "said.csv"}


def test_what_cannot_be_written_is_said(comparison: Comparison, val: Path, tmp_path: Path) -> None:
    names = ShardSet.open(val).names
    with pytest.raises(ConfigError, match=r"said\.txt: predictions are written as \.jsonl or \.csv"):
        write_predictions(tmp_path / "said.txt", comparison, names)
    with pytest.raises(BadInput, match="22 names for 23 validation samples"):
        list(prediction_rows(comparison, names[1:]))
    cache = dataclasses.replace(comparison, rows=[dataclasses.replace(comparison.rows[0], predictions=())])
    with pytest.raises(BadInput, match="come from the cache, without predictions"):
        list(prediction_rows(cache, names))


def grey_picture(file: InputFile) -> ImageRecord:
    record = image_record_of(file)
    return dataclasses.replace(record, label=CLASSES[int(file.key) % 2])


def test_pictures_are_probed_as_squares_of_one_size(trained_run: Path, shard_folder: Path, tmp_path: Path) -> None:
    pictures = write_image_set(tmp_path / "pictures", make=grey_picture)
    config = ProbeConfig(
        str(trained_run), str(pictures), str(pictures), modes=("image",), image_px=28, features="encode", flip=0.5,
        epochs=6, batch_size=8, lr=3e-3, untrained=False,
    )  # fmt: skip
    found = compare(config, lambda line: None)
    (row,) = found.rows
    assert row.scores[0].last.samples == RECORDS and row.scores[0].last.top1 > 0.9  # one class is lighter
    assert np.isfinite(row.predictions[0].probabilities).all()
    with pytest.raises(ConfigError, match=r"contains pictures, but modes = \['codec', 'image'\] need videos"):
        compare(dataclasses.replace(config, modes=("codec", "image")), print)
    with pytest.raises(ConfigError, match=r"pictures holds images and .*shards videos; give two of a kind"):
        compare(dataclasses.replace(config, val_shards=str(shard_folder)), print)
    with pytest.raises(ConfigError, match="image_px = 30 is not a multiple of the encoder's patch size, 14 px"):
        compare(dataclasses.replace(config, image_px=30), print)
