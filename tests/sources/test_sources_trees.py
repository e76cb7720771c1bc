"""Folders and lists as people have them: links, loops, what may not be read; marks, separators and names of all kinds."""

import json
import logging
import os
from pathlib import Path

import cv2
import numpy as np
import pytest

import ove
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


def test_lists_and_notes_beside_clips_are_no_clips(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    names = ("a/1.MP4", "a/1.srt", "a/noext", "labels.CSV", "b/notes.txt", "b/2.mp4.part", "info.json", "b/3.tar")
    touched(*(tmp_path / name for name in names))
    with caplog.at_level(logging.WARNING, "ove"):
        found = found_in_folder(tmp_path)
    assert [file.key for file in found.files] == ["a/1.MP4", "a/noext", "b/2.mp4.part", "b/3.tar"] and found.bad == []
    assert f"{tmp_path}: 4 lists, notes or subtitles in it are left out: 1.srt, notes.txt, info.json, …" in caplog.text


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


@pytest.mark.parametrize(
    ("name", "mark"), [("l.csv", ";"), ("l.csv", "\t"), ("l.csv", ","), ("l.tsv", "\t"), ("l.tsv", ","), ("l.tsv", ";")]
)
def test_what_stands_between_the_names_of_columns_parts_values(tmp_path: Path, name: str, mark: str) -> None:
    text = f'path{mark}label\na.jpg{mark}one\n"b,{mark}; c.jpg"{mark}two\nc.jpg\n'
    assert listed(tmp_path / name, text) == ([("a.jpg", "one"), (f"b,{mark}; c.jpg", "two"), ("c.jpg", None)], [])


def test_a_line_that_cannot_be_read_ends_no_list(tmp_path: Path) -> None:
    long = "x" * 140_000
    files, reasons = listed(tmp_path / "l.csv", f'path,label\na.jpg,one\n{long},two\nb.jpg,one\n"c.jpg,one\nd.jpg,two\n')
    assert files == [("a.jpg", "one"), ("b.jpg", "one")]
    assert [reason.split(": ", 1)[1] for reason in reasons] == [
        "line 3: cannot be read (field larger than field limit (131072)).",
        "line 5: cannot be read (unexpected end of data), up to line 6, where a quotation mark may not be closed.",
    ]


def test_a_line_with_a_name_that_no_file_can_have_is_set_aside_alone(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), np.zeros((20, 20, 3), np.uint8))
    paths = ["x" * 300 + ".png", "y/" * 3000, "a.png", "b\0.png", "c\ud800.png", "d\x1b[31m.png"]
    rows = [json.dumps({"path": path, "key": f"k{n}"}) for n, path in enumerate(paths)]
    (tmp_path / "l.jsonl").write_text("\n".join([*rows, json.dumps({"path": 3})]))
    done = ove.write_shards(tmp_path / "out", tmp_path / "l.jsonl", kind="image", workers=0)
    assert done.n_good == 1 and len(done.bad) == 6
    told = "its path is 3, and must be a text", "File name too long", "null", "surrogates", "no such file"
    assert all(any(words in bad.reason for bad in done.bad) for words in told)
    assert sum("cannot be opened (" in bad.reason for bad in done.bad) == 4
    assert not any("\x1b" in bad.reason for bad in done.bad) and any(r"d\x1b[31m.png" in bad.reason for bad in done.bad)


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
            "has no column path, but video, label in its first line; .* or call them path or file or filename or file_name and",
        ),
        ("l.csv", "path,label,label\na.mp4,0,1\n", "has two columns label; rename one of them"),
        ("l.csv", "a.mp4,0\n", "has no column path, but a.mp4, 0 in its first line; name the right ones"),
        (
            "l.csv",
            '"path,label\na.mp4,0\n',
            "line 1: cannot be read .*, up to line 2, where a quotation mark may not be closed",
        ),
        (
            "l.txt",
            "a.mp4\nb.mp4\n".encode("utf-16-le"),
            "line 1: holds a NUL character, as UTF-16 does; save the list as UTF-8",
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
        (b"#EXTM3U\n#EXT-X-VERSION:3\n", "is a playlist, which names other files"),
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


@pytest.mark.parametrize("kind", ["pipe", "device", "folder", "empty", "missing", "loop", "NUL"])
def test_what_is_no_regular_file_is_refused_at_once(tmp_path: Path, kind: str) -> None:
    path, told = tmp_path / "a.mp4", "no such file"
    if kind == "pipe":
        os.mkfifo(path)
        told = "not a regular file but a pipe"
    elif kind == "device":
        path, told = Path("/dev/zero"), "a pipe or a device"
    elif kind == "folder":
        path, told = tmp_path, "is a folder"
    elif kind == "empty":
        path.touch()
        told = "is empty"
    elif kind == "loop":
        path.symlink_to(path.name)
        told = "Too many levels of symbolic links"
    elif kind == "NUL":
        path, told = tmp_path / "a\0b", "null"
    with pytest.raises(BadClip, match=told):
        survey(path, Deadline(path, 10.0))
    with pytest.raises(BadClip, match=told):
        read_image(path)
    if kind != "NUL":
        with pytest.raises(BadClip, match=told):
            ove.read(path)
