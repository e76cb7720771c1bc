"""Matches rows of an annotation file with video files, and lists the rows that cannot be used."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ove.config import read_bounded_json
from ove.errors import BadInput


@dataclass(frozen=True)
class AnnotationRow:
    """One labelled video, or labelled span of a video, of an annotation file."""

    video: str
    """Stem of the video file."""
    label: str
    """Class name."""
    key: str
    """Unique within a split, unless the annotation repeats a row."""
    span_s: tuple[float, float] | None = None
    """Start and end in seconds; None: the whole video."""
    folder: str = ""
    """Folder that distinguishes files of one name, in some benchmarks."""


@dataclass(frozen=True)
class Table:
    """One split of a benchmark."""

    rows: list[AnnotationRow]
    classes: tuple[str, ...]
    """All class names by the benchmark's own numbers, used or not."""
    unusable: list[str]
    """Rows without a label, with an empty span and so on: one sentence each."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """A row with its video file."""

    path: Path
    row: AnnotationRow


@dataclass(frozen=True)
class Matched:
    """The samples of a split, and everything that was left out."""

    samples: list[AnnotatedVideo]
    classes: tuple[str, ...]
    missing: list[str]
    """Keys of rows without a video file."""
    repeated: list[str]
    """Keys of repeated rows with one label; the first is used."""
    contradictory: list[str]
    """Keys of repeated rows with different labels; none is used."""
    unusable: list[str]

    @property
    def empty_classes(self) -> list[str]:
        """Classes without a sample, in order."""
        used = {sample.row.label for sample in self.samples}
        return [name for name in self.classes if name not in used]


def match(table: Table, videos: Path) -> Matched:
    """Finds the videos of a table by name below the folder `videos`; returns samples in the table's order.

    BadInput if the folder is missing, or if two files have one name and the benchmark's folders do not distinguish them.
    """
    known = set(table.classes)
    strange = sorted({row.label for row in table.rows} - known)
    if strange:
        raise BadInput(
            f"the annotations have labels that are not among their {len(known)} classes ({', '.join(strange[:5])}); take the "
            "list of classes of the same release."
        )
    by_key: dict[str, list[AnnotationRow]] = defaultdict(list)
    for row in table.rows:
        by_key[row.key].append(row)
    paths = _by_name(videos)
    samples, missing, repeated, contradictory = [], [], [], []
    for key, rows in by_key.items():
        if len({row.label for row in rows}) > 1:
            contradictory.append(key)
            continue
        if len(rows) > 1:
            repeated.append(key)
        path = _one_of(paths.get(rows[0].video, []), rows[0])
        if path is None:
            missing.append(key)
        else:
            samples.append(AnnotatedVideo(path, rows[0]))
    return Matched(samples, table.classes, missing, repeated, contradictory, table.unusable)


def list_lines(matched: Matched) -> list[str]:
    """Returns a line of JSON per sample for `ove shards`: path, key, label and, of a span, start_s and end_s."""
    lines = []
    for sample in matched.samples:
        entry: dict[str, Any] = {"path": str(sample.path.absolute()), "key": sample.row.key, "label": sample.row.label}
        if sample.row.span_s is not None:
            entry |= {"start_s": sample.row.span_s[0], "end_s": sample.row.span_s[1]}
        lines.append(json.dumps(entry, ensure_ascii=False))
    return lines


def first_of(folder: Path, names: Sequence[str]) -> Path:
    """Returns the first of some files that exists in a folder; BadInput, naming all, if none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BadInput(f"{folder}: holds none of {', '.join(names)}; give the folder with the benchmark's own annotation files.")


def read_json(path: Path, kind: type) -> Any:
    """Reads a JSON file whose outermost value is a list or dict (`kind`); BadInput otherwise."""
    try:
        value = read_bounded_json(path)
    except ValueError as error:
        raise BadInput(f"{path}: is no JSON ({error}); download it again.") from error
    if not isinstance(value, kind):
        raise BadInput(f"{path}: holds a {type(value).__name__}, not a {kind.__name__}; it is another file than it should be.")
    return value


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """Reads a CSV file whose header names these columns; BadInput otherwise."""
    try:
        with path.open(encoding="utf-8-sig", newline="") as file:
            reader = csv.DictReader(file, strict=True)
            lacking = sorted(set(columns) - set(reader.fieldnames or ()))
            if lacking:
                raise BadInput(f"{path}: lacks the columns {', '.join(lacking)}; it is another file than it should be.")
            lines = list(reader)
    except (csv.Error, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is no CSV file ({error}); download it again.") from error
    for number, line in enumerate(lines, start=2):
        if any(line[column] is None for column in columns):
            raise BadInput(f"{path}: line {number} is shorter than the header; download it again.")
    return lines


def field_of(entry: Mapping[str, Any], name: str, where: str) -> Any:
    """Returns a field of a JSON object; BadInput, naming the place, if it is missing."""
    if not isinstance(entry, Mapping) or name not in entry:
        raise BadInput(f"{where}: an entry has no field {name!r}; it is another file than it should be.")
    return entry[name]


def _by_name(videos: Path) -> dict[str, list[Path]]:
    if not videos.is_dir():
        raise BadInput(f"{videos}: no such folder; give the folder that holds the benchmark's videos.")
    found: dict[str, list[Path]] = defaultdict(list)
    for path in sorted(videos.rglob("*")):
        if path.is_file() and not path.name.startswith("."):
            found[path.stem].append(path)
    return found


def _one_of(paths: Sequence[Path], row: AnnotationRow) -> Path | None:
    if len(paths) > 1:
        inside = [path for path in paths if row.folder and row.folder in path.parent.parts]
        if len(inside) != 1:
            raise BadInput(
                f"{row.video}: {len(paths)} files have this name ({paths[0]}, {paths[1]}); keep one of them in the folder."
            )
        return inside[0]
    return paths[0] if paths else None
