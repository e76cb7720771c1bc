"""From rows of an annotation file to samples: which video file each row means, and what of the rows cannot be used."""

import csv
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ove.errors import BadInput


@dataclass(frozen=True)
class AnnotationRow:
    """One labelled video, or one labelled span of a video, as an annotation file has it."""

    video: str
    """Name of the video's file without its extension."""
    label: str
    """Name of its class."""
    key: str
    """Unique among the rows of a split, unless the annotation names something twice."""
    span_s: tuple[float, float] | None = None
    """Beginning and end in seconds; None: the whole video."""
    folder: str = ""
    """Name of the folder that tells several files of one name apart, where the benchmark has such."""


@dataclass(frozen=True)
class Table:
    """What one split of a benchmark says."""

    rows: list[AnnotationRow]
    classes: tuple[str, ...]
    """All class names in the order of the benchmark's own numbers, used or not."""
    unusable: list[str]
    """Rows without a label, with an empty span and the like: one sentence each."""


@dataclass(frozen=True)
class AnnotatedVideo:
    """A row whose video is there."""

    path: Path
    row: AnnotationRow


@dataclass(frozen=True)
class Matched:
    """The samples of a split, and everything that is not among them; nothing is left out in silence."""

    samples: list[AnnotatedVideo]
    classes: tuple[str, ...]
    missing: list[str]
    """Keys of rows whose video is not there."""
    repeated: list[str]
    """Keys that stand there more than once with the same label; one of them counts."""
    contradictory: list[str]
    """Keys that stand there with different labels; none of them counts."""
    unusable: list[str]

    @property
    def empty_classes(self) -> list[str]:
        """Classes without a sample, in order."""
        used = {sample.row.label for sample in self.samples}
        return [name for name in self.classes if name not in used]


def match(table: Table, videos: Path) -> Matched:
    """The samples of a table among the files below the folder `videos`, in the table's order.

    A video is found by its name, in whatever subfolder it lies. BadInput if the folder is missing, or if two files have the
    name that is looked for and the benchmark's own folders do not tell them apart.
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
    """A line of JSON for each sample, as `launch.shards` reads them: path, key, label and, of a span, start_s and end_s."""
    lines = []
    for sample in matched.samples:
        entry: dict[str, Any] = {"path": str(sample.path.absolute()), "key": sample.row.key, "label": sample.row.label}
        if sample.row.span_s is not None:
            entry |= {"start_s": sample.row.span_s[0], "end_s": sample.row.span_s[1]}
        lines.append(json.dumps(entry, ensure_ascii=False))
    return lines


def first_of(folder: Path, names: Sequence[str]) -> Path:
    """The first of some files that exists in a folder; BadInput naming all of them if none does."""
    for name in names:
        if (folder / name).is_file():
            return folder / name
    raise BadInput(f"{folder}: holds none of {', '.join(names)}; give the folder with the benchmark's own annotation files.")


def read_json(path: Path, kind: type) -> Any:
    """A JSON file whose outermost value is of a kind (list or dict); BadInput otherwise."""
    try:
        value = json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, UnicodeDecodeError) as error:
        raise BadInput(f"{path}: is no JSON ({error}); download it again.") from error
    if not isinstance(value, kind):
        raise BadInput(f"{path}: holds a {type(value).__name__}, not a {kind.__name__}; it is another file than it should be.")
    return value


def read_csv(path: Path, columns: Iterable[str]) -> list[dict[str, str]]:
    """The lines of a CSV file with a header, which must name these columns; BadInput otherwise."""
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
    """A field of a JSON object; BadInput naming the place if it is not there."""
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
