"""Batches on the devices: the same rows, in the same order, ahead of whoever takes them, and no further than is said."""

import threading
import time
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import NamedSharding, PartitionSpec
from synthetic import BUDGET, CENTERS, GOP, write_set

from ove.config import BatchesConfig, HeadConfig, SelectionConfig
from ove.errors import BadInput, BadShard
from ove.stream.batch_pipeline import Pipeline
from ove.train.feed import DevicePrefetcher
from ove.train.sharding import batch_sharding, make_mesh

N_CENTERS = {"vid": CENTERS, "obj": CENTERS}


def pipeline_of(folder: Path) -> Pipeline:
    heads = (HeadConfig("vid", 8), HeadConfig("obj", 8))
    return Pipeline(
        BatchesConfig(
            shards=str(folder), budget_tokens=BUDGET, selection=SelectionConfig(gop_frames=GOP), heads=heads, threads=1
        )
    )


def test_what_is_fed_is_what_the_pipeline_gives_and_progress_is_that_of_the_batch(shard_folder: Path) -> None:
    plain, fed_from = pipeline_of(shard_folder), pipeline_of(shard_folder)
    sharding = batch_sharding(make_mesh())
    feed = DevicePrefetcher(fed_from, sharding, N_CENTERS, depth=3)
    for step in range(1, 6):
        expected, fed = next(plain), next(feed)
        assert fed.progress == plain.progress and fed.progress.step == step
        for bank, batch in expected.items():
            moved = fed.arrays[bank]
            assert moved.keys() == {"patches", "positions", "labels"}
            for name, array in moved.items():
                assert array.sharding == sharding and array.dtype == getattr(batch, name).dtype
                np.testing.assert_array_equal(array, getattr(batch, name))
            np.testing.assert_array_equal(fed.batches[bank].record, batch.record)
    feed.close()
    restored = pipeline_of(shard_folder)
    restored.restore(fed.progress)
    np.testing.assert_array_equal(next(restored)["vid"].record, next(plain)["vid"].record)
    for pipeline in (plain, fed_from, restored):
        pipeline.close()


def test_only_so_many_batches_are_made_ahead(shard_folder: Path) -> None:
    pipeline = pipeline_of(shard_folder)
    feed = DevicePrefetcher(pipeline, NamedSharding(make_mesh(), PartitionSpec()), N_CENTERS, depth=2)
    next(feed)
    ends = time.monotonic() + 300
    while pipeline.progress.step < 4 and time.monotonic() < ends:
        time.sleep(0.02)
    time.sleep(0.5)
    assert pipeline.progress.step == 4  # one taken, two ready, one that waits for room
    feed.close()
    assert "feed" not in {thread.name for thread in threading.enumerate()}
    with pytest.raises(RuntimeError, match="closed"):
        [next(feed) for _ in range(4)]
    pipeline.close()


def test_errors_come_in_the_place_of_the_batch_that_they_befell(shard_folder: Path, tmp_path: Path) -> None:
    sharding = batch_sharding(make_mesh())
    pipeline = pipeline_of(shard_folder)
    feed = DevicePrefetcher(pipeline, sharding, {"vid": CENTERS, "obj": 2})
    with pytest.raises(BadInput, match="labels of bank obj"):
        next(feed)
    feed.close()
    pipeline.close()
    copy = write_set(tmp_path / "copy")
    pipeline = pipeline_of(copy)
    for _ in range(2):
        next(pipeline)
    pipeline.close()

    def fails(*_: object) -> None:
        raise BadShard("gone")

    pipeline.streams["obj"].fill = fails  # type: ignore[method-assign]
    feed = DevicePrefetcher(pipeline, sharding, N_CENTERS)
    with pytest.raises(BadShard, match="gone"):
        [next(feed) for _ in range(2)]
    feed.close()
    pipeline.close()
    assert jax.device_count() == 8
