"""Lists and archives become the same records as files do; rows and members that are bad are named, the rest is used."""

import contextlib
import gzip
import json
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from shards_material import write_video
from source_files import encoded, example_bytes, picture, read_quarantine, write_tar, write_tfrecord

from launch import shards as command
from ove.config import ShardsConfig
from ove.errors import BadClip
from ove.shards.schema import ImageRecord, decode_image
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify
from ove.sources.folders import ByteRange, FoundInputs, InputFile, Inside
from ove.sources.inputs import ARCHIVE_FORMATS, Contents, Format, archive_format, find_inputs, read_input
from ove.sources.lists import rows_of_list
from ove.sources.tfrecord import parse_example


def _images(source: Path, out: Path, *options: str) -> tuple[dict[str, ImageRecord], list[str]]:
    """The records by key, and the reasons of what was set aside."""
    assert command.main(["--images", str(source), "--out", str(out), "--workers", "0", *options]) == 0
    assert verify(out, decode=True).problems == []
    assert not list(out.glob(".scratch*"))
    shards = ShardSet.open(out)
    records = [shards.image(i) for i in range(len(shards))]
    assert [r.key for r in records] == sorted(r.key for r in records)
    return {r.key: r for r in records}, [entry.reason for entry in read_quarantine(out / "quarantine.jsonl")]


def test_folders_give_class_names(tmp_path: Path) -> None:
    for n, folder in enumerate(("cat", "dog", "cat")):
        path = tmp_path / "in" / folder / f"{n}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(encoded(picture(n)))
    (tmp_path / "in" / "notes.jpg").write_text("no picture")
    records, reasons = _images(tmp_path / "in", tmp_path / "out")
    assert {key: r.label for key, r in records.items()} == {"cat/0.jpg": "cat", "cat/2.jpg": "cat", "dog/1.jpg": "dog"}
    assert records["dog/1.jpg"].image == (tmp_path / "in" / "dog" / "1.jpg").read_bytes()
    assert len(reasons) == 1
    assert "notes.jpg: not an image" in reasons[0]


@pytest.mark.parametrize("suffix", [".csv", ".tsv", ".jsonl"])
def test_lists_give_labels_and_bad_rows_are_named(tmp_path: Path, suffix: str) -> None:
    (tmp_path / "pictures").mkdir()
    for n in range(3):
        (tmp_path / "pictures" / f"{n}.png").write_bytes(encoded(picture(n), ".png"))
    rows = [
        {"path": "pictures/0.png", "label": "red, dark", "obj": [3, 1, 4]},
        {"path": str(tmp_path / "pictures" / "1.png"), "label": "", "obj": [7], "ocr": [5, 5]},
        {"path": "pictures/2.png", "label": "x", "obj": ["a"]},
        {"path": "pictures/0.png", "label": "again"},
        {"path": "", "label": "none"},
        {"path": "pictures/missing.png", "label": "x"},
        {"path": "pictures/2.png", "label": "x", "obj": [9]},
    ]
    source = tmp_path / f"list{suffix}"
    if suffix == ".jsonl":
        source.write_text("\n".join(json.dumps(row) for row in rows) + '\nno json\n["neither"]\n')
    else:
        mark = "," if suffix == ".csv" else "\t"
        values = [[row.get(column, "") for column in ("path", "label", "obj", "ocr")] for row in rows]
        words = [[v if isinstance(v, str) else " ".join(map(str, v)) for v in row] for row in values]
        quoted = [[f'"{word}"' for word in row] for row in words]
        source.write_text("\ufeff" + "\n".join(mark.join(row) for row in [["path", "label", "obj", "ocr"], *quoted]))
    records, reasons = _images(source, tmp_path / "out", "--set", "shards.centers_obj=8")
    first, second = records["pictures/0.png"], records[str(tmp_path / "pictures" / "1.png")]
    assert (first.label, first.labels["obj"].tolist(), "ocr" in first.labels) == ("red, dark", [3, 1, 4], False)
    assert (second.label, second.labels["obj"].tolist(), second.labels["ocr"].tolist()) == (None, [7], [5, 5])
    assert len(records) == 2
    # 2.png is named twice: once with labels that are none, once with one out of range.
    for part in (
        "bank obj are",
        "a second time",
        "no column path",
        "missing.png: no such file",
        "label 9 of the bank",
    ):
        assert sum(part in reason for reason in reasons) == 1, part
    assert len(reasons) == (7 if suffix == ".jsonl" else 5)
    manifest = ShardSet.open(tmp_path / "out").manifest
    assert (manifest.banks, manifest.labels_per_record) == ({"obj": 8, "ocr": 6}, {"obj": (1, 3), "ocr": (0, 2)})
    assert (manifest.kind, manifest.grid_tyx, manifest.classes) == ("image", None, ["red, dark"])


def test_a_list_without_paths_is_refused(tmp_path: Path) -> None:
    (tmp_path / "list.csv").write_text("name,label\na.png,b\n")
    with pytest.raises(BadClip, match="has no column path, but name, label in its first line; name the right ones"):
        _images(tmp_path / "list.csv", tmp_path / "out")


def _tar_members() -> list[tuple[str, bytes]]:
    return [
        ("./x/b7.jpg", encoded(picture(1))),
        ("./x/b7.cls", b"3\n"),
        ("x/a.0.png", encoded(picture(2), ".png")),
        ("x/a.json", json.dumps({"label": "cat", "obj": [2, 1]}).encode()),
        ("c.webp", encoded(picture(3), ".webp")),
        ("c.txt", b"a caption"),
        ("d.jpg", b"no jpeg at all"),
        ("e.txt", b"nothing but text"),
        ("f.jpg", encoded(picture(4))),
        ("f.json", b"{"),
        ("g.JPG", encoded(picture(5))),
        ("__MACOSX/._g.jpg", b"litter"),
        ("a.jpg", encoded(picture(6))),
    ]


@pytest.mark.parametrize(("name", "mode"), [("s.tar", "w"), ("s.tar.gz", "w:gz"), ("s.tgz", "w:gz"), ("s.tar.xz", "w:xz")])
def test_webdataset_tars(tmp_path: Path, name: str, mode: str) -> None:
    source = write_tar(tmp_path / name, _tar_members(), mode)
    records, reasons = _images(source, tmp_path / "out")
    found = {key.removeprefix(f"{name}/"): (r.label, [v.tolist() for v in r.labels.values()]) for key, r in records.items()}
    # A leading ./ says nothing; samples of the same name in different folders are different samples.
    assert found == {"x/b7": ("3", []), "x/a": ("cat", [[2, 1]]), "c": (None, []), "g": (None, []), "a": (None, [])}
    np.testing.assert_array_equal(decode_image(records[f"{name}/x/a"]), picture(2))
    assert [next(w for w in ("/d:", "/e:", "/f:") if w in reason) for reason in sorted(reasons)] == ["/d:", "/e:", "/f:"]
    labelled, _ = _images(source, tmp_path / "texts", "--label-column", "txt")
    assert labelled[f"{name}/c"].label == "a caption"


@pytest.mark.parametrize("name", ["s.tar", "s.tar.gz"])
def test_a_cut_tar_is_used_up_to_the_cut(tmp_path: Path, name: str) -> None:
    noise = np.random.default_rng(0).integers(0, 256, (8, 40, 40, 3), np.uint8)
    members = [(f"{n:03d}.png", encoded(rgb, ".png")) for n, rgb in enumerate(noise)]
    whole = write_tar(tmp_path / name, members, "w:gz" if name.endswith("gz") else "w").read_bytes()
    (tmp_path / name).write_bytes(whole[: len(whole) // 2])
    records, reasons = _images(tmp_path / name, tmp_path / "out")
    assert sorted(records) == [f"{name}/{n:03d}" for n in range(len(records))]
    assert 2 <= len(records) <= 5
    assert all(str(tmp_path / name) in reason for reason in reasons)
    assert any("ends within it" in reason or "cannot be decompressed" in reason for reason in reasons)


def test_videos_out_of_a_tar_are_those_of_the_files(tmp_path: Path) -> None:
    write_video(tmp_path / "in" / "v.mp4", seed=1, n_frames=20)
    write_video(tmp_path / "in" / "w.mp4", seed=2, n_frames=20)
    data = {n: (tmp_path / "in" / f"{n}.mp4").read_bytes() for n in "vw"}
    (tmp_path / "tars").mkdir()
    members = [
        ("v.mp4", data["v"]),
        ("v.json", b'{"label": "drum", "vid": [4, 0]}'),
        ("w.mp4", data["w"][:1500]),
    ]
    write_tar(tmp_path / "tars" / "one.tar", members)
    small = ["--size", "56", "--frames", "8", "--gop", "4", "--workers", "0"]
    for source, out in (("in", "files"), ("tars", "archived")):
        assert command.main(["--videos", str(tmp_path / source), "--out", str(tmp_path / out), *small]) == 0
    files, archived = ShardSet.open(tmp_path / "files"), ShardSet.open(tmp_path / "archived")
    assert len(archived) == 1
    same, wanted = archived.video(0), files.video(0)
    assert (same.key, same.label, same.labels["vid"].tolist()) == ("one.tar/v", "drum", [4, 0])
    assert same.frames == wanted.frames
    np.testing.assert_array_equal(same.saliency, wanted.saliency)
    (bad,) = read_quarantine(tmp_path / "archived" / "quarantine.jsonl")
    # The file that it was unpacked to is nobody's business.
    assert bad.file == str(tmp_path / "tars" / "one.tar" / "w")
    assert ".scratch" not in bad.reason
    assert bad.file in bad.reason


def _examples() -> list:
    image = encoded(picture(1))
    return [
        {"image/encoded": image, "image/class/label": 5, "image/class/text": "owl", "obj": [1, 2], "image/height": 24},
        {"image/encoded": encoded(picture(2), ".png"), "image/class/label": 7},
        {"image/class/label": 5},
        b"\x99no protocol buffer",
        {"image/encoded": image, "obj": [-3]},
        {"image/encoded": image[:200]},
        {"image/encoded": image, "score": [0.5, 0.25]},
    ]


@pytest.mark.parametrize("name", ["t.tfrecord", "train-00000-of-00001", "t.tfrecord.gz"])
def test_tfrecords(tmp_path: Path, name: str) -> None:
    source = write_tfrecord(tmp_path / name.removesuffix(".gz"), _examples())
    if name.endswith(".gz"):
        (tmp_path / name).write_bytes(gzip.compress(source.read_bytes()))
    records, reasons = _images(tmp_path / name, tmp_path / "out")
    assert [(int(key[-8:]), r.label) for key, r in records.items()] == [(0, "owl"), (1, "7"), (6, None)]
    assert records[f"{name}/00000000"].labels["obj"].tolist() == [1, 2]
    assert records[f"{name}/00000000"].image == encoded(picture(1))
    assert [int(reason.split(":")[0][-8:]) for reason in reasons] == [2, 3, 4, 5]


def test_other_names_of_features(tmp_path: Path) -> None:
    source = write_tfrecord(tmp_path / "t.tfrecord", [{"img": encoded(picture(1)), "name": "a", "image": "not this"}])
    with pytest.raises(BadClip, match="none of the 1 inputs"):
        _images(source, tmp_path / "out")
    records, _ = _images(source, tmp_path / "out", "--image-column", "img", "--label-column", "name")
    assert [r.label for r in records.values()] == ["a"]


def test_damage_in_a_tfrecord_file(tmp_path: Path) -> None:
    whole = write_tfrecord(tmp_path / "t.tfrecord", [{"image/encoded": encoded(picture(n))} for n in range(4)]).read_bytes()
    size = 16 + int.from_bytes(whole[:8], "little")
    cases = {size + 200: 3, size + 3: 1, len(whole) - 1: 3}  # in data; in a length; the last checksum
    for n, (place, good) in enumerate(cases.items()):
        data = bytearray(whole)
        data[place] ^= 1
        (tmp_path / "t.tfrecord").write_bytes(data)
        records, reasons = _images(tmp_path / "t.tfrecord", tmp_path / f"{n}")
        assert (len(records), len(reasons)) == (good, 1)
        assert "checksum" in reasons[0]
    (tmp_path / "t.tfrecord").write_bytes(whole[:-5])
    records, reasons = _images(tmp_path / "t.tfrecord", tmp_path / "cut")
    assert len(records) == 3
    assert "ends within a record" in reasons[0]


@given(
    st.dictionaries(
        st.text(max_size=8),
        st.one_of(
            st.lists(st.binary(max_size=200), min_size=1, max_size=3),
            st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=3),
            st.lists(st.floats(width=32, allow_nan=False), min_size=1, max_size=3),
        ),
        min_size=1,
        max_size=5,
    )
)
@settings(max_examples=50, deadline=None)
def test_examples_are_read_as_protobuf_writes_them(values: dict) -> None:
    assert parse_example(example_bytes(values)) == values


@given(st.binary(max_size=60))
@settings(max_examples=200, deadline=None)
def test_other_bytes_are_no_example(data: bytes) -> None:
    with contextlib.suppress(ValueError):
        parse_example(data)


def _hugging_face_table(tmp_path: Path) -> pyarrow.Table:
    (tmp_path / "beside.png").write_bytes(encoded(picture(9), ".png"))
    pictures = [
        {"bytes": encoded(picture(1)), "path": "a.jpg"},
        {"bytes": encoded(picture(2), ".png"), "path": None},
        {"bytes": None, "path": "beside.png"},
        {"bytes": None, "path": None},
        {"bytes": b"none", "path": "b.jpg"},
        {"bytes": encoded(picture(3)), "path": "c.jpg"},
    ]
    table = pyarrow.table({"image": pictures, "label": [1, 0, -1, 0, 0, 2], "obj": [[5], None, [1, 2], [], [], []]})
    features = {"image": {"_type": "Image"}, "label": {"_type": "ClassLabel", "names": ["cat", "dog"]}}
    return table.replace_schema_metadata({"huggingface": json.dumps({"info": {"features": features}})})


def test_parquet_of_hugging_face(tmp_path: Path) -> None:
    pq.write_table(_hugging_face_table(tmp_path), tmp_path / "p.parquet", row_group_size=2)
    records, reasons = _images(tmp_path / "p.parquet", tmp_path / "out")
    assert {int(key[-8:]): r.label for key, r in records.items()} == {0: "dog", 1: "cat", 2: None}
    assert records["p.parquet/00000000"].image == encoded(picture(1))
    assert {int(key[-8:]): r.labels["obj"].tolist() for key, r in records.items() if r.labels} == {0: [5], 2: [1, 2]}
    np.testing.assert_array_equal(decode_image(records["p.parquet/00000002"]), picture(9))
    for number, part in (
        (3, "nothing in the column image"),
        (4, "not an image"),
        (5, "label is 2, and the file names 2"),
    ):
        assert sum(f"{number:08d}: " in reason and part in reason for reason in reasons) == 1


def test_parquet_of_plain_columns(tmp_path: Path) -> None:
    table = pyarrow.table({"jpg": [encoded(picture(n)) for n in range(3)], "class": ["a", "b", None], "x": [1, 2, 3]})
    pq.write_table(table, tmp_path / "p.parquet")
    records, _ = _images(tmp_path / "p.parquet", tmp_path / "out")
    assert [r.label for r in records.values()] == ["a", "b", None]
    pq.write_table(table.select(["x"]), tmp_path / "none.parquet")
    (tmp_path / "text.parquet").write_text("no parquet")
    for name, part in (("none", "none of its columns x"), ("text", "cannot be used as a Parquet file")):
        with pytest.raises(BadClip, match=part):
            _images(tmp_path / f"{name}.parquet", tmp_path / name)


def test_a_folder_of_archives_and_what_changes_is_made_again(tmp_path: Path) -> None:
    source = tmp_path / "in"
    source.mkdir()
    write_tar(source / "a.tar", [(f"{n}.jpg", encoded(picture(n))) for n in range(3)])
    write_tfrecord(source / "b.tfrecord", [{"image/encoded": encoded(picture(n))} for n in range(3)])
    (source / "c.jpg").write_bytes(encoded(picture(7)))
    records, _ = _images(source, tmp_path / "out", "--records-per-shard", "3")
    assert sorted({key.split("/")[0] for key in records}) == ["a.tar", "b.tfrecord", "c.jpg"]
    times = {p.name: p.stat().st_mtime_ns for p in (tmp_path / "out").glob("*.arrayrecord")}
    write_tfrecord(source / "b.tfrecord", [{"image/encoded": encoded(picture(n))} for n in (0, 1, 8)])
    _images(source, tmp_path / "out", "--records-per-shard", "3")
    changed = [name for name, t in times.items() if (tmp_path / "out" / name).stat().st_mtime_ns != t]
    assert changed == ["shard-00001.arrayrecord"]


def test_what_a_source_is(tmp_path: Path) -> None:
    told = {"a.tar": "tar", "a.TAR.GZ": "tar", "a.tgz": "tar", "a.parquet": "parquet", "a.jpg": None, "a.csv": None}
    told |= {
        "t.tfrecord-00000-of-00010": "tfrecord",
        "val-00127-of-00128": "tfrecord",
        "x-00000-of-00002.parquet": "parquet",
    }
    assert {name: archive_format(Path(name)) for name in told} == told
    for name, part in (("nowhere", "no such file"), ("bin", "no list of paths"), ("empty", "holds no files")):
        if name == "bin":
            (tmp_path / name).write_bytes(b"\xff\xfe\x00\x81")
        if name == "empty":
            (tmp_path / name).mkdir()
        with pytest.raises(BadClip, match=part):
            find_inputs(tmp_path / name, "image", ShardsConfig(), tmp_path)


def test_a_format_is_an_entry_of_a_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def find(path: Path, key: str, kind: str, config: ShardsConfig, copy: Path | None) -> FoundInputs:
        size = (copy or path).stat().st_size // 2
        parts = [ByteRange("", start, size) for start in (0, size)]
        return FoundInputs([InputFile(path, f"{key}/{p.start}", None, {}, Inside("halves", (p,), copy)) for p in parts], [])

    def read(file: InputFile, kind: str, config: ShardsConfig) -> Contents:
        assert file.inside is not None and file.inside.archive is not None
        (part,) = file.inside.parts
        return Contents(file.inside.archive.read_bytes()[part.start : part.start + part.size], "", None, {})

    monkeypatch.setitem(ARCHIVE_FORMATS, "halves", Format(lambda name: name.endswith(".halves"), find, read))
    source = tmp_path / "in"
    source.mkdir()
    (source / "a.halves.gz").write_bytes(gzip.compress(b"onetwo"))
    files = find_inputs(source, "image", ShardsConfig(), tmp_path / "scratch").files
    assert [file.key for file in files] == ["a.halves.gz/0", "a.halves.gz/3"]
    assert [read_input(file, "image", ShardsConfig()).media for file in files] == [b"one", b"two"]


def test_a_list_may_name_parts_of_videos(tmp_path: Path) -> None:
    rows = [
        {"path": "a.mp4", "start_s": 1.5, "end_s": 3, "label": "x"},
        {"path": "a.mp4", "start_s": 4, "end_s": 5.25, "key": "second", "label": "y"},
        {"path": "a.mp4"},
        {"path": "a.mp4", "start_s": 3, "end_s": 1},
        {"path": "a.mp4", "start_s": 3},
        {"path": "a.mp4", "start_s": 1.5, "end_s": 3},
    ]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, rows)))
    found = rows_of_list(listed)
    assert [(f.key, f.span_s, f.label) for f in found.files] == [
        ("a.mp4#1.5-3", (1.5, 3.0), "x"),
        ("second", (4.0, 5.25), "y"),
        ("a.mp4", None, None),
    ]
    assert [bad.position for bad in found.bad] == [4, 5, 6]
    assert "0 ≤ start_s < end_s" in found.bad[0].reason and "from 3 to None" in found.bad[1].reason
    of_csv = tmp_path / "list.csv"
    of_csv.write_text("path,start_s,end_s,label\na.mp4,1.5,3,x\na.mp4,,,y\n")
    assert [f.span_s for f in rows_of_list(of_csv).files] == [(1.5, 3.0), None]
