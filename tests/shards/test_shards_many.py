"""A set of more shards than a process may open files is read, and a lack of open files is not taken for damage."""

import itertools
import os
import resource
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

import numpy as np
import pytest
from synthetic import image_record_of

from ove.config import ShardsConfig
from ove.errors import Unavailable
from ove.shards.shard_set import ShardSet
from ove.shards.write import write_shards
from ove.sources.folders import InputFile

R = TypeVar("R")
COUNT = 400


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    out = tmp_path_factory.mktemp("many")
    files = [InputFile(out / str(n), f"{n:04d}", None) for n in range(COUNT)]
    write_shards(files, out, image_record_of, ShardsConfig(records_per_shard=1, workers=0), {}, lambda progress: None)
    return out


def open_files() -> int:
    return len(os.listdir("/proc/self/fd"))


def with_open_files(more: int, call: Callable[[], R]) -> R:
    """Calls with so many more open files allowed than there are."""
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    taken = {int(name) for name in os.listdir("/proc/self/fd")}
    free = (number for number in itertools.count() if number not in taken)
    resource.setrlimit(resource.RLIMIT_NOFILE, (next(itertools.islice(free, more, None)), before[1]))
    try:
        return call()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_all_shards_are_read_in_any_order_by_threads(folder: Path) -> None:
    shards, at_first = ShardSet.open(folder), open_files()
    order = np.random.default_rng(0).integers(0, COUNT, 3 * COUNT).tolist()

    def read() -> list[str]:
        with ThreadPoolExecutor(4) as threads:
            return [record.key for record in threads.map(shards.record, order)]

    assert with_open_files(200, read) == [f"{n:04d}" for n in order]
    assert open_files() - at_first <= 140


def test_too_many_open_files_are_not_a_damaged_record(folder: Path) -> None:
    shards = ShardSet.open(folder)
    with pytest.raises(Unavailable, match=r"too many open files to read record .*; raise `ulimit -n`"):
        with_open_files(20, lambda: [shards.record(n) for n in range(COUNT)])
    assert shards.record(COUNT - 1).key == f"{COUNT - 1:04d}"
