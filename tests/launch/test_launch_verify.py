"""`ove verify`: sound folders are described, damaged ones named with what is wrong, and the exit code tells."""

import shutil
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from synthetic import T, record_of, write_set

from launch import verify
from ove.shards.manifest import read_manifest
from ove.shards.schema import VideoRecord
from ove.sources.folders import InputFile


@pytest.fixture
def copy(shard_folder: Path, tmp_path: Path) -> Path:
    """Shards that a test may damage."""
    return Path(shutil.copytree(shard_folder, tmp_path / "shards"))


def test_a_sound_folder_is_described(ask, shard_folder: Path) -> None:
    answer = ask(verify.main, shard_folder, "--decode", "--workers", 0)
    manifest = read_manifest(shard_folder)
    assert answer.code == 0, answer
    for words in (
        f"{manifest.records} of {manifest.records} in 3 shards",
        "video 24, 8 frames of 28 × 28 px, 2 × 2 patches each",
        "2: dark 12, light 12",
        "h264 24",
        "bitstream 24",
        "frames 24",
        "vid 24 records, up to 3 of 8 centers (beside the shards)",
        "Nothing is wrong",
    ):
        assert words in answer.out


def test_videos_of_fewer_frames_than_are_stored_are_counted(ask, shard_folder: Path, tmp_path: Path) -> None:
    def make(file: InputFile) -> VideoRecord:
        """Three videos have 3, 5 and 7 frames, the others as many as are stored."""
        n_frames = {"0001": 3, "0002": 5, "0003": 7}.get(file.key, T)
        return replace(record_of(file), frame_index=np.linspace(0, n_frames - 1, T).astype(np.int32))

    answer = ask(verify.main, write_set(tmp_path / "set", 8, make), "--workers", 0)
    assert "3 videos have fewer frames (3 to 7)" in answer.out, answer
    assert "fewer frames" not in ask(verify.main, shard_folder, "--workers", 0).out


def test_all_that_is_wrong_is_listed(ask, copy: Path, shard_folder: Path, tmp_path: Path) -> None:
    shards = read_manifest(copy).shards
    data = bytearray((copy / shards[0].file).read_bytes())
    data[len(data) // 4] ^= 16
    (copy / shards[0].file).write_bytes(data)
    (copy / shards[1].file).unlink()
    (stored,) = (copy / "labels").glob("vid.labels-*.npy")
    stored.write_bytes(stored.read_bytes()[:-1] + b"\x07")
    answer = ask(verify.main, shard_folder, copy, tmp_path / "nothing", "--workers", 0)
    assert answer.code == 1
    assert f"{shards[0].file}: its SHA-256 is not the one that was written" in answer.out
    assert f"{shards[0].file} record " in answer.out
    assert f"{shards[1].file}: is missing" in answer.out
    assert "labels/vid.json: " in answer.out and "not those that were written" in answer.out
    assert f"{tmp_path / 'nothing'}: no such shard folder" in answer.out
    assert answer.out.rstrip().endswith("problems.")
    assert f"{shard_folder}:" not in answer.out, "nothing is wrong with this one"


def test_wrong_use_is_one_sentence(ask, shard_folder: Path) -> None:
    answer = ask(verify.main, shard_folder, "--workers", -1)
    assert (answer.code, answer.err.count("\n")) == (2, 1) and "--workers" in answer.err
