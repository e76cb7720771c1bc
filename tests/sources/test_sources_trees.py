"""Folders and lists as people have them: links, loops, what may not be read; marks, separators and names of all kinds."""

import logging
import os
from pathlib import Path

import pytest

from ove.config import ShardsConfig
from ove.errors import BadClip
from ove.sources.folders import files_in_folder, found_in_folder
from ove.sources.images import read_image
from ove.sources.inputs import find_inputs
from ove.tokens.read import resolve_inputs
from ove.video.container import Deadline
from ove.video.demux import survey


def touched(*paths: Path) -> None:
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"\xff\xd8\xff")


def listed(path: Path, text: str | bytes, **options: str) -> tuple[list[tuple[str, str | None]], list[str]]:
    """What a list names, as (key, class), and the reasons of bad lines."""
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    found = find_inputs(path, "image", ShardsConfig(**options), path.parent)
    return [(file.key, file.label) for file in found.files], [bad.reason for bad in found.bad]


def test_class_folders_that_are_links_are_followed(tmp_path: Path) -> None:
    touched(tmp_path / "store" / "b" / "1.jpg", tmp_path / "store" / "b" / "deep" / "2.jpg", tmp_path / "set" / "a" / "1.jpg")
    touched(tmp_path / "set" / "a" / ".hidden" / "3.jpg", tmp_path / "one.jpg")
    (tmp_path / "set" / "b").symlink_to(tmp_path / "store" / "b")
    (tmp_path / "set" / "a" / "link.jpg").symlink_to(tmp_path / "one.jpg")
    found = found_in_folder(tmp_path / "set")
    assert [(file.key, file.label) for file in found.files] == [
        ("a/1.jpg", "a"),
        ("a/link.jpg", "a"),
        ("b/1.jpg", "b"),
        ("b/deep/2.jpg", "b"),
    ]
    assert found.bad == [] and files_in_folder(tmp_path / "set") == found.files


def test_loops_links_to_nowhere_and_pipes_are_named(tmp_path: Path) -> None:
    touched(tmp_path / "a" / "1.jpg", tmp_path / "b" / "2.jpg")
    (tmp_path / "a" / "up").symlink_to(tmp_path)
    (tmp_path / "a" / "to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b" / "to_a").symlink_to(tmp_path / "a")
    (tmp_path / "b" / "self").symlink_to("self")
    (tmp_path / "b" / "gone.mp4").symlink_to("/gone/2.mp4")
    os.mkfifo(tmp_path / "b" / "pipe")
    found = find_inputs(tmp_path, "image", ShardsConfig(), tmp_path)
    assert {file.key for file in found.files} == {"a/1.jpg", "a/to_b/2.jpg", "b/2.jpg", "b/to_a/1.jpg"}
    reasons = {str(Path(bad.file).relative_to(tmp_path)): bad.reason for bad in found.bad}
    assert "a link to a folder that it lies in" in reasons["a/up"]
    assert "a link to /gone/2.mp4, which cannot be read (No such file or directory)" in reasons["b/gone.mp4"]
    assert "Too many levels of symbolic links" in reasons["b/self"]
    assert "a pipe or a device" in reasons["b/pipe"]
    assert [line.reason for line in resolve_inputs([str(tmp_path)]).bad] == [bad.reason for bad in found.bad]


def test_a_folder_that_may_not_be_read_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Tests may run as root, whom nothing is refused: the system call answers as to others."""
    touched(tmp_path / "a" / "1.jpg", tmp_path / "locked" / "2.jpg")
    listing = os.scandir

    def refusing(folder: Path) -> object:
        if Path(folder).name == "locked":
            raise PermissionError(13, "Permission denied", str(folder))
        return listing(folder)

    monkeypatch.setattr(os, "scandir", refusing)
    found = found_in_folder(tmp_path)
    assert [file.key for file in found.files] == ["a/1.jpg"]
    assert [bad.reason for bad in found.bad] == [
        f"{tmp_path}/locked: the folder cannot be read (Permission denied); check its permissions."
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("mark", ["", "\ufeff"])
def test_text_lists_of_all_editors(tmp_path: Path, end: str, mark: str) -> None:
    lines = [
        "a.jpg\tone",
        "",
        "# a comment",
        "#",
        "#20_Rhythm_clap.avi\tclap",
        "x\u2028y\x85z\x0b.jpg\ttwo",
        " b c.jpg 7 ",
        "#8.jpg",
    ]
    files, reasons = listed(tmp_path / "l.txt", mark + end.join(lines))
    expected = [
        ("a.jpg", "one"),
        ("#20_Rhythm_clap.avi", "clap"),
        ("x\u2028y\x85z\x0b.jpg", "two"),
        ("b c.jpg", "7"),
        ("#8.jpg", None),
    ]
    assert files == expected and reasons == []


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("l.txt", "v/a.jpg\tone\n./v/a.jpg\ttwo\nv//a.jpg\tone\nv/../v/a.jpg\tone\n"),
        ("l.csv", "path,label\nv/a.jpg,one\n./v/a.jpg,two\nv//a.jpg,one\nv/../v/a.jpg,one\n"),
    ],
)
def test_a_file_named_twice_is_used_once_and_the_others_with_it(tmp_path: Path, name: str, text: str) -> None:
    files, reasons = listed(tmp_path / name, text + text.splitlines()[-1].replace("v/../v/a", "b") + "\n")
    assert files == [("v/a.jpg", "one"), ("v/../v/a.jpg", "one"), ("b.jpg", "one")]  # .. may lead elsewhere through a link
    assert len(reasons) == 2 and all("a second time" in reason for reason in reasons)


@pytest.mark.parametrize(
    "text", ['path, label\na.jpg, one\n"b, c.jpg", two\n', '\ufeffpath,label \r\na.jpg,one\r\n"b, c.jpg",two\r\n']
)
def test_spaces_around_the_names_and_values_of_a_csv_mean_nothing(tmp_path: Path, text: str) -> None:
    assert listed(tmp_path / "l.csv", text) == ([("a.jpg", "one"), ("b, c.jpg", "two")], [])


def test_columns_that_no_one_reads_are_named(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING, "ove"):
        assert listed(tmp_path / "l.csv", "path,category\na.jpg,one\n")[0] == [("a.jpg", None)]
        assert "category is not used: name the right one in shards.label_column" in caplog.text
        caplog.clear()
        assert listed(tmp_path / "m.csv", "path,category\na.jpg,one\n", label_column="category")[0] == [("a.jpg", "one")]
        assert listed(tmp_path / "n.csv", "path,label,other\na.jpg,one,x\n")[0] == [("a.jpg", "one")]
        assert listed(tmp_path / "o.csv", "path,obj\na.jpg,3\n")[0] == [("a.jpg", None)]
        assert caplog.text == ""


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("l.csv", "videos/a.mp4 0\nvideos/b.mp4 1\n", "has lines of `path number` and no column names; rename it to l.txt"),
        (
            "l.csv",
            "video,label\na.mp4,0\n",
            "has no column path, but video, label; .* or call them path or file or filename or file_name and label",
        ),
        ("l.json", '["a.mp4", "b.mp4"]', "lists in JSON have an object a line; write them so, and name the file l.jsonl"),
        ("l.txt", "a.jpg\n".encode("utf-16"), "UTF-8"),
    ],
)
def test_lists_of_other_kinds_are_told_apart(tmp_path: Path, name: str, text: str | bytes, told: str) -> None:
    with pytest.raises(BadClip, match=told):
        listed(tmp_path / name, text)


@pytest.mark.parametrize(
    ("head", "told"),
    [
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 1\n", "run `git lfs pull`"),
        (b"\n<!DOCTYPE html><html>", "a page in HTML"),
        (b"<HTML>\n", "a page in HTML"),
    ],
)
def test_what_stands_in_the_place_of_a_file_is_told(tmp_path: Path, head: bytes, told: str) -> None:
    path = tmp_path / "a.mp4"
    path.write_bytes(head)
    with pytest.raises(BadClip, match=told):
        survey(path, Deadline(path, 10.0))
    with pytest.raises(BadClip, match=told):
        read_image(path)


def test_a_heic_picture_is_no_video_and_not_read(tmp_path: Path) -> None:
    path = tmp_path / "a.heic"
    path.write_bytes(b"\0\0\0\x18ftypheic\0\0\0\0mif1heic")
    with pytest.raises(BadClip, match="a picture in HEIC or HEIF, which is not read; convert it"):
        read_image(path)
