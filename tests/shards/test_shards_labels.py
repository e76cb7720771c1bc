"""Labels lie beside the shards they belong to, and nobody takes them for those of others."""

import dataclasses
import shutil
from pathlib import Path

import numpy as np
import pytest
from shards_material import SIZE_PX, T, record_of

from ove.config import ShardsConfig
from ove.errors import BadShard
from ove.shards.labels import read_centers, read_labels, verify_labels, write_labels
from ove.shards.manifest import read_manifest
from ove.shards.schema import VideoRecord
from ove.shards.write import write_shards
from ove.sources.folders import InputFile


def write_set(out: Path, count: int, level: int = 0) -> None:
    def make(video: InputFile) -> VideoRecord:
        return record_of(np.full((T, SIZE_PX, SIZE_PX, 3), level, np.uint8), video.key, None)

    videos = [InputFile(out / str(n), f"{n:04d}", None) for n in range(count)]
    write_shards(videos, out, make, ShardsConfig(workers=0), {"level": level}, lambda progress: None, replace=True)


_WITHIN = [
    {"obj": [4, 0, 2], "ocr": [1]},
    {"obj": [3], "ocr": [0, 1]},
    {"obj": [9, 1], "ocr": [1]},
    {"obj": [0, 7, 5, 3]},
    {"obj": [2, 6], "ocr": [0, 1, 1]},
    {"obj": [1, 2], "vid": [11, 3]},
    {"obj": [8, 5, 1]},
]


@pytest.mark.parametrize("records_per_shard", [1, 3, 64])
def test_the_manifest_says_which_labels_lie_within_the_records(records_per_shard: int, tmp_path: Path) -> None:
    def make(video: InputFile) -> VideoRecord:
        frames = np.zeros((T, SIZE_PX, SIZE_PX, 3), np.uint8)
        labels = {bank: np.array(found, np.int32) for bank, found in _WITHIN[int(video.key)].items()}
        return dataclasses.replace(record_of(frames, video.key, None), labels=labels)

    videos = [InputFile(tmp_path / str(n), f"{n:04d}", None) for n in range(len(_WITHIN))]
    config = ShardsConfig(records_per_shard=records_per_shard, workers=0)
    write_shards(videos, tmp_path, make, config, {"mosaics": {"budget_tokens": 8}}, lambda progress: None)
    manifest = read_manifest(tmp_path)
    # By bank the largest label and one, and the fewest and the most labels of a record; a record without any has none.
    assert manifest.banks == {"obj": 10, "ocr": 2, "vid": 12}
    assert manifest.labels_per_record == {"obj": (1, 4), "ocr": (0, 3), "vid": (0, 2)}
    assert manifest.mosaics is None  # for no record holds any


def test_labels_come_back_with_their_centers(tmp_path: Path) -> None:
    write_set(tmp_path, 6)
    labels = np.arange(12, dtype=np.int32).reshape(6, 2) % 5
    labels[4] = -1
    centers = np.eye(5, 7, dtype=np.float32)
    write_labels(tmp_path, "vid", labels, centers, {"teacher": "thumbnails"})
    found = read_labels(tmp_path, "vid")
    np.testing.assert_array_equal(found.labels, labels)
    assert isinstance(found.labels, np.memmap)
    assert found.n_centers == 5
    assert found.info["teacher"] == "thumbnails"
    np.testing.assert_array_equal(read_centers(tmp_path, "vid"), centers)
    verify_labels(tmp_path, "vid")


def test_labels_without_centers_need_their_number(tmp_path: Path) -> None:
    write_set(tmp_path, 3)
    labels = np.array([[0], [-1], [6]], np.int32)
    write_labels(tmp_path, "ocr", labels, None, {}, n_centers=7)
    assert read_labels(tmp_path, "ocr").n_centers == 7
    verify_labels(tmp_path, "ocr")
    with pytest.raises(BadShard, match="come from no centers"):
        read_centers(tmp_path, "ocr")
    with pytest.raises(BadShard, match="give n_centers"):
        write_labels(tmp_path, "ocr", labels, None, {})


def test_labels_are_not_written_to_remote_folders() -> None:
    with pytest.raises(BadShard, match="is remote, and labels are written into local folders"):
        write_labels(Path("s3://bucket/shards"), "ocr", np.zeros((3, 1), np.int32), None, {}, n_centers=1)


@pytest.mark.parametrize("wrong", [[[0], [1], [5]], [[0], [-2], [1]], [[0], [1]]], ids=["high", "low", "few"])
def test_labels_that_cannot_be_are_refused_and_the_old_ones_stay(tmp_path: Path, wrong: list[list[int]]) -> None:
    write_set(tmp_path, 3)
    write_labels(tmp_path, "vid", np.zeros((3, 1), np.int32), np.eye(5, dtype=np.float32), {})
    with pytest.raises(BadShard, match=r"labels are −1 \(none\) or 0…4|3 records, and 2 labels"):
        write_labels(tmp_path, "vid", np.array(wrong, np.int32), np.eye(5, dtype=np.float32), {})
    verify_labels(tmp_path, "vid")
    assert not read_labels(tmp_path, "vid").labels.any()


def test_new_labels_replace_the_old_ones_which_stay_readable_where_they_are_open(tmp_path: Path) -> None:
    write_set(tmp_path, 3)
    centers = np.eye(5, dtype=np.float32)
    write_labels(tmp_path, "vid", np.zeros((3, 1), np.int32), centers, {})
    old = read_labels(tmp_path, "vid")
    write_labels(tmp_path, "vid", np.ones((3, 2), np.int32), centers, {})  # the same centers, other labels
    write_labels(tmp_path, "obj", np.ones((3, 1), np.int32), centers[:2], {})
    np.testing.assert_array_equal(read_labels(tmp_path, "vid").labels, np.ones((3, 2)))
    np.testing.assert_array_equal(old.labels, np.zeros((3, 1)))
    assert len(list((tmp_path / "labels").iterdir())) == 6  # of each bank the JSON, the labels and the centers
    versions = {read_labels(tmp_path, bank).info["centers"]["sha256"] for bank in ("vid", "obj")}
    assert len(versions) == 2 and all(any(v[:12] in f.name for f in (tmp_path / "labels").iterdir()) for v in versions)


def test_missing_stale_and_damaged_labels_say_what_to_run(tmp_path: Path) -> None:
    write_set(tmp_path, 6)
    with pytest.raises(BadShard, match=r"no labels of the bank obj; run `ove labels --shards"):
        read_labels(tmp_path, "obj")
    write_labels(tmp_path, "obj", np.zeros((6, 1), np.int32), np.ones((1, 3), np.float32), {})
    about = tmp_path / "labels" / "obj.json"
    for path in (about, about.with_name(read_labels(tmp_path, "obj").info["labels"]["file"])):
        stored = path.read_bytes()
        for damage in (stored[:-30], b"", b"text"):
            path.write_bytes(damage)
            with pytest.raises(BadShard, match="is damaged"):
                read_labels(tmp_path, "obj")
        path.write_bytes(stored[:-1] + bytes([stored[-1] ^ 1]) if path != about else stored)
    with pytest.raises(BadShard, match=r"bytes .* are not those that were written"):
        verify_labels(tmp_path, "obj")
    path.unlink()
    with pytest.raises(BadShard, match="is missing"):
        read_labels(tmp_path, "obj")
    path.write_bytes(stored)
    read_labels(tmp_path, "obj")
    shutil.copytree(tmp_path / "labels", tmp_path / "aside")
    for count, level in ((7, 0), (6, 9)):
        write_set(tmp_path, count, level)
        shutil.copytree(tmp_path / "aside", tmp_path / "labels", dirs_exist_ok=True)
        with pytest.raises(BadShard, match=r"made for other shards.*run `ove labels"):
            read_labels(tmp_path, "obj")
