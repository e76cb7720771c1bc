"""CSV and JSONL lists: a row for each file, with its path, its class name and the labels of each bank."""

import csv
import itertools
import logging
import math
import re
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any

from ove.config import ShardsConfig, bounded_json
from ove.errors import BadClip
from ove.records import BANKS
from ove.sources.folders import (
    FoundInputs,
    InputFile,
    files_in_list,
    first_repeated,
    listed,
    named_by_folder,
    same_path,
)
from ove.sources.quarantine import BadFile

PATH_COLUMNS = ("path", "file", "filename", "file_name")
LABEL_COLUMNS = ("label", "class", "class_name")
_DEFAULTS = ShardsConfig()
_log = logging.getLogger(__name__)


def is_table(path: Path) -> bool:
    """Returns whether a file is a list with named columns, by its suffix."""
    return path.suffix.lower() in (".csv", ".tsv", ".jsonl", ".ndjson")


def is_list(path: Path) -> bool:
    """Returns whether a file is a list of others by its suffix: a table, or text with a path a line."""
    return is_table(path) or path.suffix.lower() == ".txt"


def files_of_list(path: Path) -> FoundInputs:
    """Reads a list: the rows of a table, or a path a line; BadClip if it cannot be read."""
    try:
        return rows_of_list(path) if is_table(path) else files_in_list(path)
    except UnicodeDecodeError as error:
        raise BadClip(f"{path}: is no list in UTF-8 text; write a path a line.") from error
    except OSError as error:
        raise BadClip(f"{path}: the list cannot be read ({error.strerror}); check its path.") from error


def rows_of_list(path: Path, config: ShardsConfig = _DEFAULTS) -> FoundInputs:
    """Reads the files named by the rows of a list; rows without a file, or with one named before, are bad.

    CSV with column names in its first line, or a JSON object a line. Columns: `path`, `label` (a class name), a list of
    integers for any of the banks obj, vid, ocr (in CSV as JSON or separated by spaces), `start_s` and `end_s` in seconds for a
    part of a video, and `key` of the record (else its path and span). `config.path_column` and `label_column` name others for
    the first two, `root` the folder at which relative paths start, by default the list's. BadClip for a list without a column
    that is needed, ConfigError for a path of fewer folders than `config.label_folder`.
    """
    files: list[InputFile] = []
    bad: list[BadFile] = []
    seen: set[str] = set()
    path_columns = (config.path_column,) if config.path_column else PATH_COLUMNS
    label_columns = (config.label_column,) if config.label_column else LABEL_COLUMNS
    root = Path(config.root).expanduser() if config.root else path.parent
    columns: dict[str, None] = {}
    for number, row in _rows(path, path_columns):
        try:
            if isinstance(row, ValueError):
                raise row
            columns.update(dict.fromkeys(row))
            name = _first(row, path_columns)
            if name is not None and not isinstance(name, str):
                raise ValueError(f"its path is {name!r:.60}, and must be a text")
            if name is None or not name.strip():
                needed = " or ".join(path_columns)
                raise ValueError(f"has no column {needed} with the path of a file, but {', '.join(row) or 'none'}")
            span = _span(row)
            key = class_name(row.get("key")) or name.strip() + (f"#{span[0]:g}-{span[1]:g}" if span else "")
            if same_path(key) in seen:
                raise ValueError(f"names {key} a second time; list every file (or span) once")
            label = class_name(_first(row, label_columns))
            if label is None and config.label_folder:
                label = named_by_folder(name.strip(), config.label_folder, str(path))
            files.append(InputFile(listed(root, name.strip()), key, label, bank_labels(row), span_s=span))
            seen.add(same_path(key))
        except ValueError as error:
            bad.append(BadFile(str(path), f"{path}: line {number}: {error}.", number))
    for asked in filter(None, (config.path_column, config.label_column)):
        if columns and asked not in columns:
            raise _lacks(path, asked, columns)
    unused = set(columns) - {*path_columns, *label_columns, *BANKS, "key", "start_s", "end_s"}
    if unused and not config.label_folder and set(columns).isdisjoint(label_columns):
        _log.warning(
            "%s: none of its columns is %s, so its files have no class; %s not used: name the right one in shards.label_column",
            path,
            ", ".join(label_columns),
            f"{', '.join(sorted(unused))} {'is' if len(unused) == 1 else 'are'}",
        )
    return FoundInputs(files, bad)


def column_of_list(path: Path, column: str, config: ShardsConfig = _DEFAULTS) -> list[Any]:
    """Returns the values of one column, row by row, None where a row has none; BadClip for a list without it."""
    found = [row for _, row in _rows(path, (config.path_column,) if config.path_column else PATH_COLUMNS)]
    values = [row.get(column) if isinstance(row, dict) else None for row in found]
    columns = dict.fromkeys(name for row in found if isinstance(row, dict) for name in row)
    if column not in columns:
        raise BadClip(f"{path}: has no column {column}, but {', '.join(columns) or 'none'}.")
    return values


def _lacks(path: Path, column: str, columns: Iterable[str]) -> BadClip:
    known = " and ".join(" or ".join(names) for names in (PATH_COLUMNS, LABEL_COLUMNS))
    where = "" if path.suffix.lower() in (".jsonl", ".ndjson") else " in its first line"
    return BadClip(
        f"{path}: has no column {column}, but {', '.join(columns) or 'none'}{where}; name the right ones in shards.path_column "
        f"and shards.label_column, or call them {known}."
    )


def bank_labels(row: Mapping[str, Any]) -> dict[str, tuple[int, ...]]:
    """Returns the labels in the columns obj, vid and ocr of a row; ValueError unless they are lists of integers ≥ 0."""
    found = {bank: _integers(bank, row[bank]) for bank in BANKS if row.get(bank) is not None and row[bank] != ""}
    return {bank: labels for bank, labels in found.items() if labels}


def class_name(value: Any) -> str | None:
    """Returns a label as a class name: text or an integer as text, nothing as None; ValueError for anything else."""
    if value is None or value == "":
        return None
    if isinstance(value, bool) or not isinstance(value, (str, int)):
        raise ValueError(f"its label is {value!r:.60}, and must be a class name or number")
    return str(value).strip() or None


def _span(row: Mapping[str, Any]) -> tuple[float, float] | None:
    given = [row.get(name) for name in ("start_s", "end_s")]
    if all(value in (None, "") for value in given):
        return None
    try:
        start, end = (float(value) for value in given)  # type: ignore[arg-type]
    except (TypeError, ValueError):
        raise ValueError(
            f"its span goes from {given[0]!r:.40} to {given[1]!r:.40}, and must have start_s and end_s in seconds"
        ) from None
    if not (0 <= start < end and math.isfinite(end)):
        raise ValueError(f"its span goes from {start:g} s to {end:g} s; 0 ≤ start_s < end_s is needed")
    return start, end


def _integers(bank: str, value: Any) -> tuple[int, ...]:
    if isinstance(value, str):
        text = value.strip()
        try:
            value = bounded_json(text) if text.startswith("[") else [int(word) for word in text.replace(",", " ").split()]
        except ValueError:
            value = text
    if isinstance(value, int) and not isinstance(value, bool):
        value = [value]
    if not isinstance(value, (list, tuple)) or not all(type(n) is int and 0 <= n < 1 << 31 for n in value):
        raise ValueError(f"its labels of the bank {bank} are {value!r:.60}, and must be a list of integers from 0 on")
    return tuple(value)


def _first(row: Mapping[str, Any], columns: tuple[str, ...]) -> Any:
    return next((row[column] for column in columns if row.get(column) not in (None, "")), None)


def _rows(path: Path, path_columns: tuple[str, ...]) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    """Yields (number of the line, row or what is wrong with it)."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as lines:
            if path.suffix.lower() in (".csv", ".tsv"):
                yield from _csv_rows(path, lines, path_columns)
                return
            for number, line in enumerate(lines, 1):
                if line.strip():
                    yield number, _json_row(line)
    except UnicodeDecodeError as error:
        raise BadClip(f"{path}: is no list in UTF-8 text ({error.reason} at byte {error.start}); save it as UTF-8.") from error


def _json_row(line: str) -> dict[str, Any] | ValueError:
    try:
        row = bounded_json(line)
    except ValueError as error:
        return ValueError(f"is no JSON ({error})")
    return row if isinstance(row, dict) else ValueError("is no JSON object")


def _csv_rows(
    path: Path, lines: Iterator[str], path_columns: tuple[str, ...]
) -> Iterator[tuple[int, dict[str, Any] | ValueError]]:
    first = next(lines, "")
    delimiter = _delimiter(first, path.suffix.lower())
    rows = csv.reader(itertools.chain([first], lines), delimiter=delimiter, skipinitialspace=True, strict=True)
    header = _next_row(rows) or []
    if isinstance(header, ValueError):
        raise BadClip(f"{path}: line 1: {header}.")
    columns = [name.strip() for name in header]
    if len(columns) == 1 and re.fullmatch(r".*\.\w+ +\d+", columns[0]):
        raise BadClip(f"{path}: has lines of `path number` and no column names; rename it to {path.stem}.txt.")
    if not set(path_columns) & set(columns):
        raise _lacks(path, path_columns[0], columns)
    if twice := first_repeated(filter(None, columns)):
        raise BadClip(f"{path}: has two columns {twice}; rename one of them.")
    begin = rows.line_num + 1
    while (row := _next_row(rows)) is not None:
        if isinstance(row, ValueError):
            yield begin, row
        elif len(row) > len(columns):
            yield rows.line_num, ValueError(f"has more values than columns; put values with {delimiter!r} into quotation marks")
        elif row:  # spreadsheets leave out empty values at the end
            yield rows.line_num, dict(itertools.zip_longest(columns, row))
        begin = rows.line_num + 1


def _next_row(rows: Any) -> list[str] | ValueError | None:
    """Returns the next row of a CSV reader, what is wrong with it, or None at the end."""
    begin = rows.line_num + 1
    try:
        return next(rows, None)
    except csv.Error as error:
        lines = f", up to line {rows.line_num}, where a quotation mark may not be closed" * (rows.line_num > begin)
        return ValueError(f"cannot be read ({error}){lines}")


def _delimiter(header: str, suffix: str) -> str:
    """Returns the one of tab, comma and semicolon (of spreadsheets in many languages) that stands between column names."""
    usual = "\t" if suffix == ".tsv" else ","
    return next((mark for mark in (usual, ";", "\t", ",") if mark in header), usual)
