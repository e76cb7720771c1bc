"""Inputs of commands: files in folders (class names from subfolders) and in lists (a path and a label a line)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ove.errors import BadClip
from ove.sources.quarantine import BadFile


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Some bytes of an archive."""

    name: str
    """Extension of a tar member ("jpg", "cls"), else empty."""
    start: int
    """First byte; in Parquet files the row group."""
    size: int
    """Bytes; in Parquet files the row within its group."""


@dataclass(frozen=True, slots=True)
class Inside:
    """Where an input lies in an archive."""

    format: str
    """Key of `ove.sources.inputs.ARCHIVE_FORMATS`."""
    parts: tuple[ByteRange, ...]
    archive: Path | None = None
    """A decompressed copy to read instead of the input's path."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input, usable or not: a file, or a sample in an archive."""

    path: Path
    """The file, or the archive that holds it."""
    key: str
    """Unique among the inputs and the same in every run: the path relative to a folder or list, or the name in an archive."""
    label: str | None
    """Class name, if the input gives one."""
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Class centers by bank, if a list gives them."""
    inside: Inside | None = None
    span_s: tuple[float, float] | None = None
    """Of a video: start and end of the part to read, in seconds; None: all of it."""

    @property
    def name(self) -> str:
        """Returns its name in messages."""
        return str(self.path) if self.inside is None else f"{self.path.parent / self.key}"


@dataclass(frozen=True)
class FoundInputs:
    """The inputs of a source."""

    files: list[InputFile]
    bad: list[BadFile]
    """Lines, rows and members without a file; archives that end early."""


def files_in_folder(folder: Path) -> list[InputFile]:
    """Lists the files below a folder by path, without hidden ones; the name of its subfolder is a file's label."""
    if not folder.is_dir():
        raise BadClip(f"{folder}: no such folder; give a folder of files or a list of paths.")
    found = []
    for path in sorted(folder.rglob("*")):
        relative = path.relative_to(folder)
        if path.is_file() and not any(part.startswith(".") for part in relative.parts):
            found.append(InputFile(path, relative.as_posix(), relative.parts[0] if len(relative.parts) > 1 else None))
    return found


def files_in_list(list_file: Path) -> list[InputFile]:
    """Lists the files named in a text file, one a line as `path` or `path<TAB>label`; relative paths start at its folder."""
    found = []
    for line in list_file.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, label = line.rstrip("\n").partition("\t")
        found.append(InputFile(list_file.parent / name.strip(), name.strip(), label.strip() or None))
    if repeated := first_repeated(file.key for file in found):
        raise BadClip(f"{list_file}: names {repeated} twice; list every file once.")
    return found


def first_repeated(keys: Iterable[str]) -> str | None:
    """Returns the first key that occurs a second time."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None
