"""The reader printed in docs/data_format.md reads what we write."""

import dataclasses
import re
from pathlib import Path
from typing import Any

import numpy as np
from shards_material import make_record

from ove.config import ShardsConfig
from ove.shards.manifest import Manifest
from ove.shards.read import ShardSet
from ove.shards.schema import VideoRecord, decode_frames
from ove.shards.sources import find_files
from ove.shards.write import write_shards

_PAGE = Path(__file__).parents[2] / "docs" / "data_format.md"


def test_the_documented_reader_reads_our_shards(video_folder: Path, tmp_path: Path) -> None:
    config = ShardsConfig(records_per_shard=3, workers=0)
    write_shards(find_files(video_folder), tmp_path, make_record, config, {}, lambda progress: None)
    code = re.search(r"```python\n(.*?)```", _PAGE.read_text(), re.DOTALL)
    assert code is not None
    names: dict[str, Any] = {}
    exec(code[1], names)
    shards = ShardSet.open(tmp_path)
    read = list(names["read_records"](tmp_path))
    assert len(read) == len(shards) == 7
    for index, found in enumerate(read):
        record = shards.record(index)
        np.testing.assert_array_equal(found.pop("frames"), decode_frames(record, range(len(record.frames))))
        assert found.pop("schema_version") == 1
        assert found.pop("kind") == "video"
        for name, value in found.items():
            np.testing.assert_array_equal(value, getattr(record, name))


def test_every_field_is_described() -> None:
    text = _PAGE.read_text()
    for kind in (VideoRecord, Manifest):
        for field in dataclasses.fields(kind):
            assert f"`{field.name}`" in text
