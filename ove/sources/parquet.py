"""Parquet files with a column of encoded files, as in Hugging Face data sets: {bytes, path} and class names."""

import functools
from pathlib import Path
from typing import Any

import pyarrow
import pyarrow.parquet as pq

from ove.config import bounded_json, limits
from ove.errors import BadClip
from ove.paths import inside
from ove.records import BANKS
from ove.sources.folders import ByteRange, FoundInputs, InputFile, Inside
from ove.sources.lists import LABEL_COLUMNS, bank_labels, class_name
from ove.sources.quarantine import BadFile

_USUAL = ("image", "jpg", "img", "png", "video", "mp4", "bytes", "image_bytes")
_MEDIA_TYPES = ("Image", "Video")
"""Types of Hugging Face features."""


def rows_in_parquet(path: Path, key: str, image_column: str = "") -> FoundInputs:
    """Lists the rows of a file from its footer; a file that is damaged or has no column of files is bad.

    Keys are `key`, a slash and the number of the row.
    """
    try:
        with pq.ParquetFile(path) as table:
            groups = [table.metadata.row_group(n).num_rows for n in range(table.num_row_groups)]
            if excess := limits().excess("max_archive_inputs", sum(groups), "rows"):
                raise ValueError(f"{excess}; split the file or raise the limit")
            file_column(table.schema_arrow, image_column)
    except (pyarrow.ArrowException, OSError, ValueError) as error:
        return FoundInputs([], [BadFile(str(path), f"{path}: cannot be used as a Parquet file: {error}.")])
    places = [(group, row) for group, rows in enumerate(groups) for row in range(rows)]
    return FoundInputs(
        [
            InputFile(path, f"{key}/{number:08d}", None, {}, Inside("parquet", (ByteRange("", group, row),)))
            for number, (group, row) in enumerate(places)
        ],
        [],
    )


def read_row(
    path: Path, group: int, row: int, image_column: str, label_column: str
) -> tuple[bytes | Path, str | None, dict[str, tuple[int, ...]]]:
    """Reads a row: its encoded file (or the path of one), class name, labels by bank; ValueError if something is missing."""
    table, column, label_columns, names = _row_group(path, path.stat().st_mtime_ns, group, image_column, label_column)
    rows = table.slice(row, 1).to_pylist()
    if not rows:
        raise ValueError("its row group is shorter than the footer says; get a whole copy")
    values = rows[0]
    media = values[column]
    if isinstance(media, dict):
        media = media.get("bytes") or (media.get("path") and inside(path.parent, media["path"], path, BadClip, nested=True))
    if not media:
        raise ValueError(f"has nothing in the column {column}")
    label: str | None = None
    for name in label_columns:
        value = values[name]
        if names.get(name) and isinstance(value, int):
            if value >= len(names[name]):
                raise ValueError(f"its label is {value}, and the file names {len(names[name])} classes")
            value = names[name][value] if value >= 0 else None  # −1: no label
        label = class_name(value)
        if label is not None:
            break
    return media, label, bank_labels(values)


def file_column(schema: pyarrow.Schema, image_column: str) -> str:
    """Returns the column of files: `image_column`, or by Hugging Face features, type or name; else ValueError."""
    if image_column:
        if image_column not in schema.names:
            raise ValueError(f"it has no column {image_column}, but {', '.join(schema.names)}")
        return image_column
    told = [name for name, feature in _features(schema).items() if feature.get("_type") in _MEDIA_TYPES]
    structs = [f.name for f in schema if pyarrow.types.is_struct(f.type) and f.type.get_field_index("bytes") >= 0]
    usual = [name for name in _USUAL if name in schema.names and _is_binary(schema.field(name).type)]
    found = [name for name in (*told, *structs, *usual) if name in schema.names]
    if not found:
        raise ValueError(f"none of its columns {', '.join(schema.names)} holds encoded files; give --image-column")
    return found[0]


@functools.lru_cache(maxsize=1)
def _row_group(
    path: Path, mtime_ns: int, group: int, image_column: str, label_column: str
) -> tuple[pyarrow.Table, str, list[str], dict[str, list[str]]]:
    """Reads a row group, cached for the rows that follow; `mtime_ns` tells versions of a file apart."""
    with pq.ParquetFile(path) as file:
        schema = file.schema_arrow
        column = file_column(schema, image_column)
        if label_column and label_column not in schema.names:
            raise ValueError(f"it has no column {label_column}, but {', '.join(schema.names)}")
        features = _features(schema)
        names = {name: _class_names(feature) for name, feature in features.items() if feature.get("_type") == "ClassLabel"}
        wanted = (label_column,) if label_column else (*LABEL_COLUMNS, *names)
        labels = [name for name in dict.fromkeys(wanted) if name in schema.names]
        banks = [bank for bank in BANKS if bank in schema.names]
        if not 0 <= group < file.num_row_groups:
            raise ValueError(f"it has no row group {group}")
        size = file.metadata.row_group(group).total_byte_size  # that of columns ends the process where statistics are damaged
        if excess := limits().excess("max_row_group_bytes", size, "bytes in a row group"):
            raise ValueError(f"{excess}; write smaller row groups or raise the limit")
        return file.read_row_group(group, list({column, *labels, *banks}), use_threads=False), column, labels, names


def _class_names(feature: dict[str, Any]) -> list[str]:
    names = feature.get("names")
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError("its description has a column of class labels without their names")
    return names


def _features(schema: pyarrow.Schema) -> dict[str, dict[str, Any]]:
    """Returns Hugging Face's description of the columns; empty without one."""
    try:
        features = bounded_json((schema.metadata or {}).get(b"huggingface", b"{}"))["info"]["features"]
    except (ValueError, KeyError, TypeError):
        return {}
    return {name: feature for name, feature in features.items() if isinstance(feature, dict)}


def _is_binary(kind: pyarrow.DataType) -> bool:
    return pyarrow.types.is_binary(kind) or pyarrow.types.is_large_binary(kind)
