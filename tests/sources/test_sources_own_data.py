"""Lists with other columns, class names from any folder above a file, and split files, as others hand out their data."""

import csv
import json
from pathlib import Path

import pytest
from source_files import encoded, picture

from launch import shards as command
from ove.config import ShardsConfig
from ove.errors import BadClip, ConfigError
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.sources.inputs import find_inputs

TREE = ("train/run/clips/1.mp4", "train/run/clips/2.mp4", "train/jump/clips/1.mp4", "val/run/clips/3.mp4")


def _listed(source: Path, **settings: object) -> list[InputFile]:
    return find_inputs(source, "video", ShardsConfig(**settings), source.parent / "scratch").files  # type: ignore[arg-type]


def _labels(source: Path, **settings: object) -> dict[str, str | None]:
    return {file.key: file.label for file in _listed(source, **settings)}


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for name in TREE:
        path = tmp_path / "videos" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()
    return tmp_path / "videos"


@pytest.mark.parametrize(
    ("n", "expected"),
    [
        (0, ["train", "train", "train", "val"]),
        (1, ["clips", "clips", "clips", "clips"]),
        (2, ["jump", "run", "run", "run"]),
        (3, ["train", "train", "train", "val"]),
    ],
)
def test_the_class_is_the_nth_folder_above_a_file(tree: Path, n: int, expected: list[str]) -> None:
    assert _labels(tree, label_folder=n) == dict(zip(sorted(TREE), expected, strict=True))


def test_a_video_with_fewer_folders_above_it_is_an_error_and_notes_are_not(tree: Path) -> None:
    (tree / "README").write_text("notes")
    assert _labels(tree, label_folder=2)["README"] is None
    (tree / "val" / "4.mp4").touch()
    with pytest.raises(ConfigError, match=r"videos: val/4\.mp4 has fewer than 2 folders above it.*shards\.label_folder = 2"):
        _listed(tree, label_folder=2)
    assert _labels(tree, label_folder=1)["val/4.mp4"] == "val"
    with pytest.raises(ConfigError, match=r"label_folder = -1 must be at least 0"):
        ShardsConfig(label_folder=-1)


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_a_list_may_name_its_columns_otherwise(tmp_path: Path, suffix: str) -> None:
    rows = [{"video": "a.mp4", "action": "run", "label": "7"}, {"video": "b.mp4", "action": "jump", "label": "8"}]
    source = tmp_path / f"list{suffix}"
    with source.open("w", newline="") as file:
        if suffix == ".jsonl":
            file.write("\n".join(map(json.dumps, rows)))
        else:
            writer = csv.DictWriter(file, list(rows[0]), delimiter="\t" if suffix == ".tsv" else ",")
            writer.writeheader()
            writer.writerows(rows)
    assert _labels(source, path_column="video", label_column="action") == {"a.mp4": "run", "b.mp4": "jump"}
    assert _labels(source, path_column="video") == {"a.mp4": "7", "b.mp4": "8"}
    with pytest.raises(BadClip, match=rf"list\{suffix}: has no column verb, but video, action, label"):
        _listed(source, path_column="video", label_column="verb")
    with pytest.raises(BadClip, match=rf"list\{suffix}: .*no column path.*, but video, action, label"):
        _listed(source)
    with pytest.raises(BadClip, match=rf"list\{suffix}: has no column clip, but video, action, label"):
        _listed(source, path_column="clip")


UCF101 = "Archery/v_Archery_g08_c01.avi 1\nBowling/v_Bowling_g09_c02.avi 2\n"
"""Two lines in the form of UCF101's trainlist01.txt."""


def test_split_files_give_paths_labels_and_class_numbers(tmp_path: Path) -> None:
    source = tmp_path / "trainlist01.txt"
    source.write_text(UCF101)
    archery, bowling = "Archery/v_Archery_g08_c01.avi", "Bowling/v_Bowling_g09_c02.avi"
    assert _labels(source) == {archery: "1", bowling: "2"}
    assert _labels(source, label_folder=1) == {archery: "Archery", bowling: "Bowling"}
    test = tmp_path / "testlist01.txt"
    test.write_text("Archery/v_Archery_g01_c01.avi\r\n\r\n# a comment\nBowling/my clip 1.avi\nx.avi\tBowling\n")
    assert list(_labels(test).values()) == [None, None, "Bowling"]
    assert list(_labels(test, label_folder=1).items()) == [
        ("Archery/v_Archery_g01_c01.avi", "Archery"),
        ("Bowling/my clip 1.avi", "Bowling"),
        ("x.avi", "Bowling"),
    ]


def test_a_split_file_picks_from_a_folder_elsewhere(tmp_path: Path) -> None:
    source = tmp_path / "lists" / "trainlist01.txt"
    source.parent.mkdir()
    source.write_text(UCF101 + f"{tmp_path / 'other' / 'Golf' / '3.avi'}\n")
    (tmp_path / "lists" / "rows.csv").write_text("path\nArchery/1.avi\n")
    paths = [file.path for file in _listed(source, root=str(tmp_path / "UCF-101"))]
    assert paths[0] == tmp_path / "UCF-101" / "Archery" / "v_Archery_g08_c01.avi"
    assert paths[2] == tmp_path / "other" / "Golf" / "3.avi"  # absolute paths stay
    assert _listed(source)[0].path == tmp_path / "lists" / "Archery" / "v_Archery_g08_c01.avi"
    (row,) = _listed(tmp_path / "lists" / "rows.csv", root=str(tmp_path / "UCF-101"), label_folder=1)
    assert (row.path, row.label) == (tmp_path / "UCF-101" / "Archery" / "1.avi", "Archery")


@pytest.mark.parametrize(("name", "text"), [("list.txt", "../1.avi\n"), ("list.txt", "1.avi\n"), ("list.csv", "path\n1.avi\n")])
def test_a_line_without_a_folder_has_no_class(tmp_path: Path, name: str, text: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(ConfigError, match=rf"{name}: .*1\.avi has fewer than 1 folders above it"):
        _listed(tmp_path / name, label_folder=1)


def test_the_command_takes_all_of_it(tmp_path: Path) -> None:
    for n, place in enumerate(("a/red/x", "a/blue/x", "b/red/x")):
        path = tmp_path / "in" / place / f"{n}.png"
        path.parent.mkdir(parents=True)
        path.write_bytes(encoded(picture(n), ".png"))
    plain = ["--workers", "0", "--images"]
    assert command.main([*plain, str(tmp_path / "in"), "--out", str(tmp_path / "1"), "--label-folder", "2"]) == 0
    found = dict(ShardSet.open(tmp_path / "1").names)
    assert found == {"a/blue/x/1.png": "blue", "a/red/x/0.png": "red", "b/red/x/2.png": "red"}
    assert ShardSet.open(tmp_path / "1").manifest.made_with["shards"]["label_folder"] == 2
    (tmp_path / "list.csv").write_text("file name,colour\nred/x/0.png,dark red\nblue/x/1.png,\n")
    columns = ["--path-column", "file name", "--label-column", "colour", "--root", str(tmp_path / "in" / "a")]
    arguments = [*plain, str(tmp_path / "list.csv"), "--out", str(tmp_path / "2"), *columns]
    assert command.main([*arguments, "--label-folder", "2"]) == 0
    assert dict(ShardSet.open(tmp_path / "2").names) == {"red/x/0.png": "dark red", "blue/x/1.png": "blue"}
