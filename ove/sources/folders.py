"""Which files a command works on: single files, folders (class names from subfolders) or lists (path and label a line)."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from ove.errors import BadClip
from ove.sources.quarantine import BadFile


@dataclass(frozen=True, slots=True)
class ByteRange:
    """Some bytes of an archive."""

    name: str
    """What they are: the extension of a member ("jpg", "cls"), or empty."""
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
    """What to read it from where that is not the input's path: a decompressed copy."""


@dataclass(frozen=True, slots=True)
class InputFile:
    """One input, whether usable or not: a file, or a sample in an archive."""

    path: Path
    """The file, or the archive that holds it."""
    key: str
    """Unique among the inputs, stable from run to run: the path relative to its folder or list, or the name in an archive."""
    label: str | None
    """Class name, where the input gives one."""
    labels: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    """Class centers by bank, where a list gives them."""
    inside: Inside | None = None
    span_s: tuple[float, float] | None = None
    """Of a video: beginning and end in seconds of the part that is meant; None: all of it."""

    @property
    def name(self) -> str:
        """How messages call it."""
        return str(self.path) if self.inside is None else f"{self.path.parent / self.key}"


@dataclass(frozen=True)
class FoundInputs:
    """What a source holds."""

    files: list[InputFile]
    bad: list[BadFile]
    """Lines, rows and members that name no file; archives that end early."""


def files_in_folder(folder: Path) -> list[InputFile]:
    """Every file below `folder`, sorted by path, hidden ones left out; the name of its subfolder is a file's label."""
    if not folder.is_dir():
        raise BadClip(f"{folder}: no such folder; give a folder of files or a list of paths.")
    files = [
        p for p in sorted(folder.rglob("*")) if p.is_file() and not any(s.startswith(".") for s in p.relative_to(folder).parts)
    ]
    found = []
    for path in files:
        relative = path.relative_to(folder)
        found.append(InputFile(path, relative.as_posix(), relative.parts[0] if len(relative.parts) > 1 else None))
    return found


def files_in_list(list_file: Path) -> list[InputFile]:
    """The files named in a text file, one a line as `path` or `path<TAB>label`; relative paths start at the list's folder."""
    found = []
    for line in list_file.read_text(encoding="utf-8").splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        name, _, label = line.rstrip("\n").partition("\t")
        found.append(InputFile(list_file.parent / name.strip(), name.strip(), label.strip() or None))
    if repeated := first_repeated(file.key for file in found):
        raise BadClip(f"{list_file}: names {repeated} twice; every file may stand in a list once.")
    return found


def find_files(source: Path) -> list[InputFile]:
    """The files of a folder or of a list; an absent or empty one raises BadClip."""
    if not source.exists():
        raise BadClip(f"{source}: no such file or folder; give a folder of files or a list of paths.")
    found = files_in_folder(source) if source.is_dir() else files_in_list(source)
    if not found:
        raise BadClip(f"{source}: holds no files; give a folder of files or a list of paths.")
    return found


def first_repeated(keys: Iterable[str]) -> str | None:
    """The first of some keys that stood there before."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None
