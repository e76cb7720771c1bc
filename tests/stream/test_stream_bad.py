"""Records that were damaged on purpose, and records that take for ever: replaced, counted, named, and the same again."""

import dataclasses
import itertools
import threading
import time
from pathlib import Path

import numpy as np
import pytest
from synthetic import CENTERS, image_record_of, write_image_set

from ove.config import BatchesConfig, HeadConfig
from ove.errors import TrainingStopped
from ove.records import Batch
from ove.shards.schema import ImageRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream import modes
from ove.stream.batch_pipeline import Pipeline
from ove.stream.head_stream import BadRecord

COUNT, SIZE = 120, 28
CUT = (3, 50, 77)
"""Records with half a picture: they can be read and not decoded."""
FLIPPED = (20, 21, 104)
"""Records with a flipped bit in the shard: they cannot even be read."""


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """120 pictures, 5 % of them damaged in two ways."""

    def make(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        whole = record.image
        image = whole[: len(whole) // 2] if int(file.key) in CUT else whole
        return ImageRecord(record.key, image, record.height_px, record.width_px, record.label, record.labels)

    folder = write_image_set(tmp_path_factory.mktemp("damaged") / "shards", COUNT, make)
    shards = ShardSet.open(folder)
    for number in FLIPPED:
        path = folder / shards.manifest.shards[number // 8].file
        data = bytearray(path.read_bytes())
        image = shards.image(number).image
        data[data.index(image) + len(image) // 2] ^= 1
        path.write_bytes(data)
    return folder


def config_of(folder: Path, **changes: object) -> BatchesConfig:
    heads = (HeadConfig("obj", 12, size_px=SIZE),)
    return BatchesConfig(**({"shards": str(folder), "heads": heads, "threads": 1, "max_bad_share": 0.2} | changes))


def run(config: BatchesConfig, n: int) -> tuple[list[Batch], list[BadRecord], int]:
    told: list[BadRecord] = []
    pipeline = Pipeline(config, on_bad=told.append)
    batches = [batch["obj"] for batch in itertools.islice(pipeline, n)]
    pipeline.close()
    return batches, told, pipeline.progress.replaced


def test_five_percent_of_damaged_records_are_replaced_counted_and_named_the_same_each_time(damaged: Path) -> None:
    epochs = 3
    batches, told, replaced = run(config_of(damaged), epochs * COUNT // 12)
    records = np.concatenate([batch.record for batch in batches])
    is_replaced = np.concatenate([batch.replaced for batch in batches])
    bad = {*CUT, *FLIPPED}
    assert replaced == is_replaced.sum() == epochs * len(bad)
    assert not bad & set(records.tolist())
    for epoch in np.split(np.where(is_replaced, -1, records), epochs):
        assert sorted(epoch[epoch >= 0].tolist()) == sorted(set(range(COUNT)) - bad)
    assert {(entry.record, entry.key) for entry in told} == {(n, f"{n:04d}") for n in CUT} | {(n, "") for n in FLIPPED}
    assert len(told) == len(bad) and {entry.shards for entry in told} == {str(damaged)}
    for entry in told:
        assert (f"{entry.record:04d}: is no whole" if entry.key else f"record {entry.record % 8} is damaged") in entry.reason
    # 18 draws with replacement out of 114 records: those of a place, not of the first bad one again and again.
    assert len(set(records[is_replaced].tolist())) >= 12
    again, told_again, _ = run(config_of(damaged, threads=3), epochs * COUNT // 12)
    assert told_again == told
    for one, other in zip(batches, again, strict=True):
        np.testing.assert_array_equal(one.patches, other.patches)
        np.testing.assert_array_equal(one.record, other.record)


def test_a_run_is_judged_from_its_200th_sample_on(damaged: Path) -> None:
    strict = config_of(damaged, max_bad_share=0.01, threads=0)
    _, _, replaced = run(dataclasses.replace(strict, heads=(HeadConfig("obj", 199, size_px=SIZE),)), 1)
    assert replaced > 0.01 * 199
    with pytest.raises(TrainingStopped, match=r"of 200 records were bad"):
        run(dataclasses.replace(strict, heads=(HeadConfig("obj", 200, size_px=SIZE),)), 1)


def test_a_record_that_takes_for_ever_is_left_behind_and_not_waited_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = write_image_set(tmp_path / "shards", 24)
    clean, _, _ = run(config_of(folder), 4)
    released, decode, waiting = threading.Event(), modes.decode_image, list[threading.Thread]()
    decoded: list[str] = []

    def slow(record: ImageRecord) -> np.ndarray:
        if record.key == "0005":
            waiting.append(threading.current_thread())
            released.wait(600)
        elif not decoded:
            time.sleep(0.7)  # so that the limit of a record does not end with that of the first
        decoded.append(record.key)
        return decode(record)

    monkeypatch.setattr(modes, "decode_image", slow)
    began = time.monotonic()
    batches, told, replaced = run(config_of(folder, decode_limit_s=2.0, threads=0), 4)
    taken_s, alive = time.monotonic() - began, [thread.is_alive() for thread in waiting]
    released.set()
    assert 2.6 <= taken_s < 300 and alive == [True]
    assert waiting[0].daemon, "it would keep the program from ending"
    assert [(entry.record, replaced) for entry in told] == [(5, 2)]  # two epochs
    assert "record 5 took longer than batches.decode_limit_s allows" in told[0].reason
    for batch, wanted in zip(batches, clean, strict=True):
        kept = wanted.record != 5
        np.testing.assert_array_equal(batch.replaced, ~kept)
        np.testing.assert_array_equal(batch.patches[kept], wanted.patches[kept])
        np.testing.assert_array_equal(batch.labels[:, 0], batch.record % CENTERS)
