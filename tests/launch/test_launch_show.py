"""`ove show`: keys are listed, records printed and drawn, and a key that comes near is suggested."""

import json
from pathlib import Path

import cv2
import numpy as np
import pytest
from synthetic import CLASSES, RECORDS, record_of, write_set

from launch import show
from ove.config import ShardsConfig
from ove.shards.pictures import encode_jpeg
from ove.shards.schema import ImageRecord
from ove.shards.shard_set import ShardSet
from ove.shards.write import write_shards
from ove.sources.folders import InputFile
from ove.view.colours import masks
from ove.view.moments import moments


def test_keys_are_listed(ask, shard_folder: Path) -> None:
    lines = ask(show.main, shard_folder).out.splitlines()
    assert lines == [f"{n}\t{n:04d}\t{CLASSES[n % 2]}" for n in range(RECORDS)]
    assert len(ask(show.main, shard_folder, "--limit", 3).out.splitlines()) == 3
    of_one = ask(show.main, shard_folder / "shard-00001.arrayrecord").out.splitlines()
    assert [line.split("\t")[1] for line in of_one] == [f"{n:04d}" for n in range(8, 16)]


@pytest.mark.parametrize("how", [("0010",), ("--index", 10)])
def test_a_record_is_printed_and_drawn(ask, shard_folder: Path, tmp_path: Path, how: tuple[object, ...]) -> None:
    answer = ask(show.main, shard_folder, *how, "--out", tmp_path / "sheet.png")
    assert answer.code == 0, answer
    fields = {line[:15].strip(): line[16:] for line in answer.out.splitlines()}
    assert fields["key"] == "0010" and fields["label"] == "dark" and fields["frames"].startswith("8 JPEG files")
    assert fields["is_i_frame"] == "8, 2 of 8 true: 0, 4" and fields["labels vid"] == "2, 3, 4"
    assert fields["saliency"].startswith("8 × 2 × 2 float16, 0.")
    assert fields["frame_index"].endswith(", 8 differ")
    picture = cv2.imread(str(tmp_path / "sheet.png"))
    assert picture.shape[0] > 600 and len(np.unique(picture.reshape(-1, 3), axis=0)) > 1000


def test_the_picture_is_named_after_the_key(ask, shard_folder: Path, tmp_path: Path, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)
    ask(show.main, shard_folder, "0003", "--budget", 16)
    assert (tmp_path / "0003.png").is_file()


def test_pictures_are_shown_with_their_labels(ask, tmp_path: Path) -> None:
    def make(file: InputFile) -> ImageRecord:
        picture = np.random.default_rng(0).integers(0, 256, (20, 30, 3), dtype=np.uint8)
        return ImageRecord(file.key, encode_jpeg(picture, 90), 20, 30, "cat", {"obj": np.arange(20, dtype=np.int32)})

    files = [InputFile(tmp_path / "a", "pets/a.jpg", "cat")]
    write_shards(files, tmp_path / "shards", make, ShardsConfig(workers=0), {}, lambda progress: None)
    answer = ask(show.main, tmp_path / "shards", "pets/a.jpg", "--out", tmp_path / "a.png")
    assert answer.code == 0 and "labels obj      0, 1, 2" in answer.out and "width_px        30" in answer.out
    assert cv2.imread(str(tmp_path / "a.png")).shape[1] > 640


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("0O10",), "did you mean 0010"),
        (("nothing like it",), "without KEY this command lists them"),
        (("--index", 24), "has the records 0 to 23, and none 24"),
        (("0003", "--budget", 0), "--budget 0"),
        (("0003", "--budget", 4), "budget_tokens = 4 is below"),
        (("0003", "--out", "{}/sheet.xyz"), "end it with .png"),
    ],
)
def test_what_does_not_work_is_one_sentence(ask, shard_folder: Path, tmp_path: Path, arguments, words: str) -> None:
    answer = ask(show.main, shard_folder, *(str(argument).format(tmp_path) for argument in arguments))
    assert answer.code == 2 and words in answer.err and answer.err.count("\n") == 1


def test_a_file_that_is_no_shard_of_its_folder_is_named(ask, shard_folder: Path) -> None:
    answer = ask(show.main, shard_folder / "shard-00009.arrayrecord")
    assert answer.code == 2 and "none of the 3 shards" in answer.err


def test_moments_lie_in_order_and_begin_with_the_first() -> None:
    record = record_of(InputFile(Path("x"), "0001", None))
    shown = moments(masks(np.array([0, 1, 2, 3, 9, 13]), record.grid_tyx), columns=4)
    assert shown[0] == 0 and (np.diff(shown) > 0).all() and {2, 3} <= set(shown.tolist())


def test_a_damaged_record_does_not_hide_the_others(ask, tmp_path: Path) -> None:
    folder = write_set(tmp_path / "shards", 8)
    shard = folder / ShardSet.open(folder).manifest.shards[0].file
    data = bytearray(shard.read_bytes())
    data[len(data) // 4] ^= 16
    shard.write_bytes(data)
    assert len(ask(show.main, folder).out.splitlines()) == 8  # by the index, no record is read
    manifest = json.loads((folder / "manifest.json").read_text())
    (folder / "manifest.json").write_text(json.dumps(manifest | {"index": ""}))
    answer = ask(show.main, folder)
    assert answer.code == 0 and len(answer.out.splitlines()) == 7 and "is damaged" in answer.err
