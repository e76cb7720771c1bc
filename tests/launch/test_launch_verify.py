"""`ove verify`: sound folders are described, damaged ones named with what is wrong, and the exit code tells."""

import dataclasses
import shutil
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from synthetic import RECORDS, T, frames_of, image_record_of, record_of, write_image_set, write_set

from launch import verify
from ove.shards.h264_clip import encode_clip
from ove.shards.manifest import read_manifest, write_manifest
from ove.shards.schema import ImageRecord, VideoRecord, encode_frames
from ove.shards.verify import Verified
from ove.shards.verify import verify as verify_shards
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
        return dataclasses.replace(record_of(file), frame_index=np.linspace(0, n_frames - 1, T).astype(np.int32))

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


def test_labels_that_lack_are_named_by_bank(ask, copy: Path, tmp_path: Path) -> None:
    answer = ask(verify.main, copy, "--workers", 0)
    assert (
        "  labels    vid 24 records" in answer.out
        and "            obj 24 records" in answer.out
        and " none (" not in answer.out
    )
    for bank in ("obj", "ocr"):
        (copy / "labels" / f"{bank}.json").unlink()
    answer = ask(verify.main, copy, "--workers", 0)
    assert "            obj none (class centers; `ove labels` makes them)" in answer.out and "vid none" not in answer.out
    (copy / "labels" / "vid.json").write_text("{}")
    answer = ask(verify.main, copy, "--workers", 0)
    assert "  labels    vid damaged (see below)\n            obj none (" in answer.out
    bare = write_set(tmp_path / "bare", 8, labelled=False)
    shutil.rmtree(bare / "labels")
    answer = ask(verify.main, bare, "--workers", 0)
    assert "  classes   none (no record has a class name)\n" in answer.out
    assert "  labels    vid and obj none (class centers; `ove labels` makes them)\n" in answer.out


def test_records_without_a_class_name_are_counted(ask, tmp_path: Path) -> None:
    def make(file: InputFile) -> VideoRecord:
        record = record_of(file)
        return dataclasses.replace(record, label=None) if file.key < "0003" else record

    answer = ask(verify.main, write_set(tmp_path / "some", 8, make), "--workers", 0)
    assert "  classes   2: light 3, dark 2; 3 records without a class name\n" in answer.out


def test_what_is_counted_is_what_was_written(shard_folder: Path) -> None:
    found = verify_shards(shard_folder)
    assert found == Verified(
        records=RECORDS,
        bytes=sum(path.stat().st_size for path in shard_folder.glob("*.arrayrecord")),
        kinds=Counter(video=RECORDS),
        classes=Counter(dark=RECORDS // 2, light=RECORDS // 2),
        sources=Counter(bitstream=RECORDS),
        codecs=Counter(h264=RECORDS),
        forms=Counter(frames=RECORDS),
    )


def test_pictures_are_counted_and_decoded_if_asked_to(tmp_path: Path) -> None:
    def make(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        return dataclasses.replace(record, image=record.image[:-20]) if file.key == "0004" else record

    folder = write_image_set(tmp_path / "set", 10, make)
    found = verify_shards(folder)
    assert (found.problems, found.records, found.kinds, found.codecs) == ([], 10, Counter(image=10), Counter(jpeg=10))
    assert (found.banks, found.classes, found.short) == (Counter(obj=10), Counter(dark=5, light=5), Counter())
    found = verify_shards(folder, decode=True)
    assert [(problem.file, problem.record) for problem in found.problems] == [("shard-00000.arrayrecord", 4)]
    assert (found.records, found.kinds) == (9, Counter(image=9))


@pytest.mark.parametrize("form", ["frames", "h264", "mosaics"])
def test_every_form_of_a_video_is_decoded(tmp_path: Path, form: str) -> None:
    def make(file: InputFile) -> VideoRecord:
        frames = frames_of(int(file.key))
        whole = dataclasses.replace(
            record_of(file),
            h264=encode_clip(frames, 20),
            mosaics=encode_frames(frames[:1], 90),
            mosaic_flat=np.arange(4, dtype="u2"),
        )
        broken = {
            "frames": [*whole.frames[:-1], whole.frames[-1][:-20]],
            "h264": whole.h264[:-20],
            "mosaics": [whole.mosaics[0][:-20]],
        }
        return dataclasses.replace(whole, **{form: broken[form]}) if file.key == "0001" else whole

    folder = write_set(tmp_path / "set", 3, make)
    assert verify_shards(folder).problems == []
    found = verify_shards(folder, decode=True)
    assert [problem.record for problem in found.problems] == [1] and found.forms == Counter(frames=2, h264=2, mosaics=2)


def test_a_manifest_whose_totals_are_wrong_is_named(copy: Path) -> None:
    manifest = read_manifest(copy)
    for change in ({"records": manifest.records + 1}, {"fingerprint": manifest.fingerprint[::-1]}):
        write_manifest(copy, dataclasses.replace(manifest, **change))
        assert "its totals do not agree with its list of shards" in [problem.reason for problem in verify_shards(copy).problems]


def test_progress_counts_shards(ask, shard_folder: Path) -> None:
    """A line for each set: that of the last shard is always shown."""
    assert f"{shard_folder} 3/3 shards\n" in ask(verify.main, shard_folder, "--workers", 0).out
    seen: list[tuple[int, int]] = []
    verify_shards(shard_folder, workers=2, progress=lambda done, total: seen.append((done, total)))
    assert seen == [(0, 3), (1, 3), (2, 3), (3, 3)]
