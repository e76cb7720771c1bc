"""The reader printed in docs/data_format.md reads what we write, and the page describes every field."""

import dataclasses
import json
import re
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from shards_material import write_video
from source_files import encoded, picture

from launch import shards as command
from ove.shards.manifest import Manifest
from ove.shards.schema import ImageRecord, VideoRecord, decode_frames, decode_image
from ove.shards.shard_set import ShardSet

_PAGE = Path(__file__).parents[2] / "docs" / "data_format.md"


def _documented(folder: Path) -> Iterator[dict[str, Any]]:
    """The records of a folder, as the code on the page reads them."""
    code = re.search(r"```python\n(.*?)```", _PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    assert "ove" not in re.findall(r"\w+", code[1])
    names: dict[str, Any] = {}
    exec(code[1], names)
    return names["read_records"](folder)


def _compare(found: dict[str, Any], record: VideoRecord | ImageRecord) -> None:
    assert found.pop("schema_version") == 1
    assert found.keys() == {field.name for field in dataclasses.fields(record)}
    for name, value in found.items():
        if name == "labels":
            assert {bank: labels.tolist() for bank, labels in value.items()} == {
                b: v.tolist() for b, v in record.labels.items()
            }
        else:
            np.testing.assert_array_equal(value, getattr(record, name), name)


@pytest.mark.parametrize("store", ["frames", "h264,mosaics"])
def test_the_documented_reader_reads_videos(store: str, tmp_path: Path) -> None:
    lines = []
    for n in range(3):
        write_video(tmp_path / f"{n}.mp4", seed=n, n_frames=40)
        lines.append(json.dumps({"path": f"{n}.mp4", "label": "left" if n else None, "vid": [n, 7]}))
    (tmp_path / "list.jsonl").write_text("\n".join(lines))
    words = ["--size", "56", "--frames", "40", "--budget", "70", "--records-per-shard", "2", "--workers", "0", "--store", store]
    assert command.main(["--videos", str(tmp_path / "list.jsonl"), "--out", str(tmp_path / "out"), *words]) == 0
    shards = ShardSet.open(tmp_path / "out")
    read = list(_documented(tmp_path / "out"))
    assert len(read) == len(shards) == 3
    for index, found in enumerate(read):
        record = shards.video(index)
        assert found.pop("kind") == "video"
        np.testing.assert_array_equal(found["frames"], decode_frames(record, range(40)))
        found["frames"] = record.frames
        _compare(found, record)


def test_the_documented_reader_reads_pictures(tmp_path: Path) -> None:
    for n, suffix in enumerate((".jpg", ".png", ".webp")):
        (tmp_path / f"{n}{suffix}").write_bytes(encoded(picture(n, 20 + n, 30), suffix))
    (tmp_path / "list.csv").write_text("path,label,obj\n0.jpg,a,1 2\n1.png,b,\n2.webp,,3\n")
    assert command.main(["--images", str(tmp_path / "list.csv"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    shards = ShardSet.open(tmp_path / "out")
    read = list(_documented(tmp_path / "out"))
    assert len(read) == len(shards) == 3
    for index, found in enumerate(read):
        record = shards.image(index)
        assert found.pop("kind") == "image"
        np.testing.assert_array_equal(found["image"], decode_image(record))
        found["image"] = record.image
        _compare(found, record)


def test_the_fingerprint_is_what_the_page_says(shard_folder: Path) -> None:
    manifest = json.loads((shard_folder / "manifest.json").read_text())
    checksums = ", ".join(f'"{shard["sha256"]}"' for shard in manifest["shards"])
    text = f'{{"schema_version": 1, "shards": [{checksums}]}}'
    assert sha256(text.encode()).hexdigest() == manifest["fingerprint"]


def test_every_field_is_described() -> None:
    text = _PAGE.read_text(encoding="utf-8")
    for kind in (VideoRecord, ImageRecord, Manifest):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text, field.name
