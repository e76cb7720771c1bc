"""The stream of batches: every record once an epoch, exact shares, for any hosts and threads, resumable, bad records."""

import dataclasses
import itertools
from pathlib import Path

import numpy as np
import pytest
from synthetic import BUDGET, GOP, RECORDS, record_of, write_set

from ove.config import BatchesConfig, HeadConfig, SelectionConfig
from ove.errors import BadShard, ConfigError, TrainingStopped
from ove.records import CODEC, FRAMES, IMAGE, TILING, Batch
from ove.shards.labels import read_centers, read_labels, write_labels
from ove.shards.schema import VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.batch_pipeline import Pipeline, StreamProgress
from ove.stream.head_stream import BadRecord

Batches = list[dict[str, Batch]]


def config_of(folder: Path, **changes: object) -> BatchesConfig:
    heads = (HeadConfig("vid", 8, labels_per_step=2), HeadConfig("obj", 4, labels_per_step=2))
    return BatchesConfig(
        **(
            {"shards": str(folder), "budget_tokens": BUDGET, "selection": SelectionConfig(gop_frames=GOP), "heads": heads}
            | changes
        )
    )


def take(config: BatchesConfig, n: int, progress: StreamProgress | None = None, **place: int) -> tuple[Batches, StreamProgress]:
    """n batches, from `progress` on, and the progress after them."""
    pipeline = Pipeline(config, **place)
    if progress:
        pipeline.restore(progress)
    batches = list(itertools.islice(pipeline, n))
    pipeline.close()
    return batches, pipeline.progress


def assert_same(left: Batches, right: Batches) -> None:
    assert len(left) == len(right)
    for a, b in zip(left, right, strict=True):
        for bank in a:
            for field in dataclasses.fields(Batch):
                np.testing.assert_array_equal(getattr(a[bank], field.name), getattr(b[bank], field.name))


def test_every_epoch_sees_every_record_once_in_another_order(shard_folder: Path) -> None:
    batches, _ = take(config_of(shard_folder), 2 * RECORDS // 4)
    for bank, per_batch in (("vid", 8), ("obj", 4)):
        records = np.concatenate([batch[bank].record for batch in batches])
        epochs = records[: len(records) // RECORDS * RECORDS].reshape(-1, RECORDS)
        assert len(epochs) == 2 * per_batch // 4
        for epoch in epochs:
            assert sorted(epoch.tolist()) == list(range(RECORDS))
        assert (epochs[0] != epochs[1]).any()


def test_modes_have_their_exact_shares_and_labels_belong_to_their_records(shard_folder: Path) -> None:
    batches, _ = take(config_of(shard_folder), 6)
    stored = read_labels(shard_folder, "vid").labels
    for batch in batches:
        counts = np.bincount(batch["vid"].mode, minlength=4)
        assert counts[[CODEC, FRAMES, TILING]].tolist() == [4, 3, 1]
        assert (batch["obj"].mode == IMAGE).all()
        assert batch["vid"].patches.shape == (8, BUDGET, 588) and batch["obj"].patches.shape == (4, 4, 588)
        np.testing.assert_array_equal(batch["vid"].labels, stored[batch["vid"].record])
        assert not batch["vid"].replaced.any()


def test_threads_change_nothing(shard_folder: Path) -> None:
    one, at_one = take(config_of(shard_folder, threads=1), 5)
    for threads in (0, 4):
        other, at_other = take(config_of(shard_folder, threads=threads), 5)
        assert_same(one, other)
        assert at_one == at_other


def test_two_processes_share_the_stream_of_one(shard_folder: Path) -> None:
    config = config_of(shard_folder)
    whole, _ = take(config, 3)
    parts = [take(config, 3, process_index=i, process_count=2)[0] for i in range(2)]
    for step, batch in enumerate(whole):
        for bank in batch:
            for field in dataclasses.fields(Batch):
                halves = [getattr(part[step][bank], field.name) for part in parts]
                np.testing.assert_array_equal(np.concatenate(halves), getattr(batch[bank], field.name))
    with pytest.raises(ConfigError, match="batch_size 8 of head vid cannot be split over 3"):
        Pipeline(config, 0, 3)


@pytest.mark.parametrize("at", [1, 4])
def test_a_restored_stream_continues_exactly(shard_folder: Path, at: int) -> None:
    config = config_of(shard_folder)
    whole, end = take(config, 9)
    _, progress = take(config, at)
    rest, rest_end = take(config, 9 - at, progress)
    assert_same(rest, whole[at:])
    assert rest_end == end
    assert progress.step == at and progress.order != end.order


def test_seeds_change_the_order(shard_folder: Path) -> None:
    orders = {take(config_of(shard_folder, seed=seed), 3)[1].order for seed in (0, 0, 1)}
    assert len(orders) == 2


BAD = 5


def _with_a_damaged_picture(video: InputFile) -> VideoRecord:
    record = record_of(video)
    if int(video.key) != BAD:
        return record
    return dataclasses.replace(record, frames=[frame[: len(frame) // 2] for frame in record.frames])


@pytest.fixture(scope="module")
def damaged_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 records, one of them with cut off pictures."""
    return write_set(tmp_path_factory.mktemp("damaged") / "shards", make=_with_a_damaged_picture)


def test_a_bad_record_is_replaced_flagged_counted_and_reported_once(damaged_folder: Path, shard_folder: Path) -> None:
    config = config_of(damaged_folder, max_bad_share=1.0, threads=1)
    told: list[BadRecord] = []
    pipeline = Pipeline(config, on_bad=told.append)
    batches = list(itertools.islice(pipeline, 6))
    pipeline.close()
    clean, _ = take(config_of(shard_folder), 6)
    replaced = 0
    for batch, clean_batch in zip(batches, clean, strict=True):
        for bank, seen in batch.items():
            np.testing.assert_array_equal(seen.replaced, clean_batch[bank].record == BAD)
            assert (seen.record[~seen.replaced] == clean_batch[bank].record[~seen.replaced]).all()
            assert BAD not in seen.record
            assert (seen.patches != 0).any(axis=(1, 2)).all()
            replaced += int(seen.replaced.sum())
    assert pipeline.progress.replaced == replaced == 3  # two epochs of vid, one of obj
    assert [(bad.shards, bad.record, bad.key) for bad in told] == [(str(damaged_folder), BAD, "0005")]
    assert "0005: frame" in told[0].reason
    again, progress = take(config, 2)
    assert_same(again, batches[:2])
    assert_same(take(config, 4, progress)[0], batches[2:])


def test_too_many_bad_records_stop_the_run(damaged_folder: Path) -> None:
    with pytest.raises(TrainingStopped, match=r"of 204 records were bad, more than batches.max_bad_share = 0.01"):
        take(config_of(damaged_folder, max_bad_share=0.01), 40)
    take(config_of(damaged_folder, max_bad_share=0.05), 40)


def _nothing_to_see(video: InputFile) -> VideoRecord:
    return dataclasses.replace(record_of(video), frames=[b"no picture"] * 8)


def test_a_set_of_bad_records_is_an_error_and_no_endless_search(tmp_path: Path) -> None:
    folder = write_set(tmp_path / "shards", 8, _nothing_to_see)
    with pytest.raises(BadShard, match=r"100 records in a row cannot be used for the head vid \(the last: 0"):
        take(config_of(folder), 1)


def test_what_is_missing_is_named(shard_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadShard, match=r"no such shard folder.*`ove shards"):
        Pipeline(config_of(tmp_path / "nowhere"))
    with pytest.raises(ConfigError, match="budget_tokens = 18"):
        Pipeline(config_of(shard_folder, budget_tokens=18))


def test_the_fingerprint_is_that_of_records_and_labels(shard_folder: Path, damaged_folder: Path, tmp_path: Path) -> None:
    def fingerprint(folder: Path) -> str:
        return Pipeline(config_of(folder)).fingerprint

    copy = write_set(tmp_path / "copy")
    assert fingerprint(copy) == fingerprint(shard_folder) != fingerprint(damaged_folder)
    labels = read_labels(copy, "vid").labels.copy()
    labels[0] = 7
    write_labels(copy, "vid", labels, read_centers(copy, "vid"), {})
    assert fingerprint(copy) != fingerprint(shard_folder)
    assert len(ShardSet.open(copy)) == RECORDS
