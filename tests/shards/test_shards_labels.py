"""Labels lie beside the shards they belong to, and nobody takes them for those of others."""

from pathlib import Path

import numpy as np
import pytest
from shards_material import SIZE_PX, T, record_of

from ove.config import ShardsConfig
from ove.errors import BadShard
from ove.shards.labels import read_centers, read_labels, write_labels
from ove.shards.schema import VideoRecord
from ove.shards.sources import VideoFile
from ove.shards.write import write_shards


def write_set(out: Path, count: int, level: int = 0) -> None:
    def make(video: VideoFile) -> VideoRecord:
        return record_of(np.full((T, SIZE_PX, SIZE_PX, 3), level, np.uint8), video.key, None)

    videos = [VideoFile(out / str(n), f"{n:04d}", None) for n in range(count)]
    write_shards(videos, out, make, ShardsConfig(workers=0), {"level": level}, lambda progress: None)


def test_labels_come_back_with_their_centers(tmp_path: Path) -> None:
    write_set(tmp_path, 6)
    labels = np.arange(12, dtype=np.int32).reshape(6, 2) % 5
    centers = np.eye(5, 7, dtype=np.float32)
    write_labels(tmp_path, "vid", labels, centers, {"teacher": "thumbnails"})
    found = read_labels(tmp_path, "vid")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.n_centers == 5
    assert found.info["teacher"] == "thumbnails"
    np.testing.assert_array_equal(read_centers(tmp_path, "vid"), centers)
    with pytest.raises(BadShard, match="6 records, and 5 labels"):
        write_labels(tmp_path, "vid", labels[:5], centers, {})


def test_missing_stale_and_damaged_labels_say_what_to_run(tmp_path: Path) -> None:
    write_set(tmp_path, 6)
    with pytest.raises(BadShard, match=r"no labels of the bank obj; run `python -m launch\.labels --shards"):
        read_labels(tmp_path, "obj")
    write_labels(tmp_path, "obj", np.zeros((6, 1), np.int32), np.ones((1, 3), np.float32), {})
    stored = (tmp_path / "labels" / "obj.npz").read_bytes()
    for damage in (stored[:-30], b"", b"text"):
        (tmp_path / "labels" / "obj.npz").write_bytes(damage)
        with pytest.raises(BadShard, match="is damaged"):
            read_labels(tmp_path, "obj")
    (tmp_path / "labels" / "obj.npz").write_bytes(stored)
    read_labels(tmp_path, "obj")
    for count, level in ((7, 0), (6, 9)):
        write_set(tmp_path, count, level)
        with pytest.raises(BadShard, match=r"made for other shards.*run `python -m launch\.labels"):
            read_labels(tmp_path, "obj")
