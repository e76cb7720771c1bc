"""Several folders of shards as one set, compared with the folders themselves."""

import dataclasses
import pickle
from pathlib import Path

import pytest
from synthetic import GRID, record_of, write_image_set, write_set

from ove.errors import BadShard
from ove.shards.joined import JoinedShards, open_shards
from ove.shards.schema import VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile

FIRST, SECOND = 10, 3


def _renamed(file: InputFile) -> VideoRecord:
    """Other records under the same keys, half of them of a class of their own."""
    record = record_of(dataclasses.replace(file, key=str(int(file.key) + 100)))
    return dataclasses.replace(record, key=file.key, label="bright" if file.label == "light" else file.label)


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("sets")
    return [str(write_set(folder / "first", FIRST)), str(write_set(folder / "second", SECOND, _renamed))]


def test_records_follow_one_another_under_the_names_of_their_folders(folders: list[str]) -> None:
    joined, parts = open_shards(folders), [ShardSet.open(folder) for folder in folders]
    assert isinstance(joined, JoinedShards) and len(joined) == FIRST + SECOND
    expected = [(folder, part.video(n)) for folder, part in zip(folders, parts, strict=True) for n in range(len(part))]
    for index, (folder, record) in enumerate(expected):
        for found in (joined.record(index), joined.video(index)):
            assert isinstance(found, VideoRecord)
            assert (found.key, found.label, found.frames) == (f"{folder}/{record.key}", record.label, record.frames)
        assert joined.names[index] == (f"{folder}/{record.key}", record.label)
    assert len({key for key, _ in joined.names}) == FIRST + SECOND
    assert pickle.loads(pickle.dumps(joined)).record(FIRST).key == f"{folders[1]}/0000"
    for outside in (-1, FIRST + SECOND):
        with pytest.raises(IndexError):
            joined.record(outside)


def test_class_names_are_joined_and_sorted(folders: list[str]) -> None:
    joined = open_shards(folders)
    assert joined.classes == ["bright", "dark", "light"]
    assert (joined.kind, joined.grid_tyx, joined.folder) == ("video", GRID, f"{folders[0]}, {folders[1]}")


def test_the_fingerprint_tells_which_sets_in_which_order(folders: list[str]) -> None:
    kinds = [folders, folders[::-1], folders[0], folders[1]]
    assert len({open_shards(kind).fingerprint for kind in kinds}) == 4
    assert open_shards(folders).fingerprint == open_shards(tuple(folders)).fingerprint


def test_one_folder_is_the_set_itself(folders: list[str]) -> None:
    for given in (folders[0], folders[:1]):
        found = open_shards(given)
        assert isinstance(found, ShardSet) and found.record(0).key == "0000"


def _of_two_frames(file: InputFile) -> VideoRecord:
    record = record_of(file)
    return dataclasses.replace(
        record, frames=record.frames[:2], frame_index=record.frame_index[:2], pts_s=record.pts_s[:2],
        is_i_frame=record.is_i_frame[:2], saliency=record.saliency[:2],
    )  # fmt: skip


def test_sets_of_two_kinds_or_sizes_are_refused_and_named(folders: list[str], tmp_path: Path) -> None:
    pictures, short = write_image_set(tmp_path / "pictures", 2), write_set(tmp_path / "short", 2, _of_two_frames)
    with pytest.raises(BadShard, match=rf"{folders[0]} holds videos of 8×2×2 patches of 14 px and {pictures} images;"):
        open_shards([*folders, str(pictures)])
    with pytest.raises(BadShard, match=rf"{folders[0]} holds .* and {short} videos of 2×2×2 patches"):
        open_shards([folders[0], str(short)])
    with pytest.raises(BadShard, match=rf"{folders[1]} and {folders[1]} hold the same records"):
        open_shards([*folders, folders[1]])


def test_pictures_join(tmp_path: Path) -> None:
    given = [str(write_image_set(tmp_path / name, count)) for name, count in (("a", 2), ("b", 3))]
    joined = open_shards(given)
    assert (len(joined), joined.kind, joined.record(4).key) == (5, "image", f"{given[1]}/0002")
    with pytest.raises(BadShard, match="holds pictures, and videos are needed"):
        _ = joined.grid_tyx
