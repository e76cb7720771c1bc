"""Inputs of commands: files in folders (class names from subfolders) and in lists (a path and a label a line)."""

import logging
import os
import re
import stat
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePath

from ove.errors import BadClip, ConfigError
from ove.files import printable
from ove.paths import uri_of
from ove.sources.quarantine import BadFile

# fmt: off
_BESIDE = frozenset([
    ".txt", ".csv", ".tsv", ".json", ".jsonl", ".ndjson", ".xml", ".yaml", ".yml", ".md", ".html", ".log", ".srt", ".vtt",
    ".nfo", ".ini", ".db", ".py", ".ipynb",
])
"""Suffixes of what lies beside videos and pictures and is none: lists, annotations, subtitles, notes, Windows' thumbnails."""
# fmt: on
_SHOWN = 3
_BLANK = " \t\n"
_log = logging.getLogger(__name__)
_NUMBERED = re.compile(r"(.*\.\w+)[ \t]+(\d+)")
"""A path with a suffix, and the index of its class: `Archery/v_Archery_g01_c01.avi 3`, as in the lists of UCF101."""


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

    def __post_init__(self) -> None:
        # Bytes that are not UTF-8 stay in the path alone: keys and class names are text wherever they go.
        object.__setattr__(self, "key", printable(self.key))
        if self.label is not None:
            object.__setattr__(self, "label", printable(self.label))

    @property
    def name(self) -> str:
        """Returns its name in messages."""
        return printable(str(self.path if self.inside is None else self.path.parent / self.key))


@dataclass(frozen=True)
class FoundInputs:
    """The inputs of a source."""

    files: list[InputFile]
    bad: list[BadFile]
    """Lines, rows and members without a file; archives that end early."""


def files_in_folder(folder: Path, label_folder: int = 0) -> list[InputFile]:
    """Lists the files of `found_in_folder`."""
    return found_in_folder(folder, label_folder).files


def found_in_folder(folder: Path, label_folder: int = 0) -> FoundInputs:
    """Lists the files below a folder by path, but hidden ones and text; a file's label is the name of a folder above it.

    `label_folder`: which; 1 is the folder that holds the file, 2 the one above it, 0 the topmost. None where there are fewer.
    Links are followed. Bad are folders that cannot be read, links to nowhere or to a folder above them, pipes and
    devices. Lists, annotations, subtitles and the like (by their suffix) are counted in the log.
    """
    if not folder.is_dir():
        raise BadClip(f"{folder}: no such folder; give a folder of files or a list of paths.")
    bad: list[BadFile] = []
    files, beside = [], []
    for path in sorted(_walk(folder, bad)):
        if path.suffix.lower() in _BESIDE:
            beside.append(printable(path.name))
            continue
        relative = path.relative_to(folder)
        files.append(InputFile(path, relative.as_posix(), _folder_above(relative, label_folder or len(relative.parts) - 1)))
    if beside:
        shown = ", ".join(beside[:_SHOWN]) + ", …" * (len(beside) > _SHOWN)
        _log.warning("%s: %s lists, notes or subtitles in it are left out: %s", folder, f"{len(beside):,}", shown)
    return FoundInputs(files, sorted(bad, key=lambda each: each.file))


def _walk(top: Path, bad: list[BadFile]) -> Iterator[Path]:
    """Yields the files below a folder, and adds to `bad` what is none."""
    waiting: list[tuple[Path, tuple[tuple[int, int], ...]]] = [(top, ())]
    while waiting:
        folder, above = waiting.pop()
        try:
            status = folder.stat()
            here = status.st_dev, status.st_ino
            entries = [] if here in above else list(os.scandir(folder))
        except OSError as error:
            reason = f"{folder}: the folder cannot be read ({error.strerror}); check its permissions."
            bad.append(BadFile(str(folder), reason))
            continue
        if here in above:
            bad.append(BadFile(str(folder), f"{folder}: is a link to a folder that it lies in; remove it."))
        for entry in entries:
            path = folder / entry.name
            if entry.name.startswith("."):
                continue
            try:
                mode = path.stat().st_mode
            except OSError as error:
                where = f"is a link to {path.readlink()}, which " if entry.is_symlink() else ""
                bad.append(BadFile(str(path), f"{path}: {where}cannot be read ({error.strerror}); check or remove it."))
                continue
            if stat.S_ISDIR(mode):
                waiting.append((path, (*above, here)))
            elif stat.S_ISREG(mode):
                yield path
            else:
                bad.append(BadFile(str(path), f"{path}: is neither a file nor a folder but a pipe or a device; leave it out."))


def files_in_list(list_file: Path, label_folder: int = 0, root: Path | None = None) -> FoundInputs:
    """Lists the files named in a text file, one a line as `path`, `path<TAB>label` or `path number`; # and a space: a comment.

    Relative paths start at `root`, by default the list's folder. With `label_folder`, lines without a class name have that of
    the n-th folder in their path, and numbers after a path are not read as one; ConfigError for a path of fewer folders. A
    line that names a file a second time is bad. BadClip for a list that is no text.
    """
    files: list[InputFile] = []
    bad: list[BadFile] = []
    seen: set[str] = set()
    with list_file.open(encoding="utf-8-sig") as lines:  # split at \n, \r and \r\n alone: names may hold other separators
        for number, line in enumerate(lines, 1):
            if "\0" in line:
                raise BadClip(f"{list_file}: line {number}: holds a NUL character, as UTF-16 does; save the list as UTF-8.")
            name, _, label = (part.strip(_BLANK) for part in line.partition("\t"))
            if not line.strip(_BLANK) or line.rstrip("\n") == "#" or line.startswith("# "):
                continue
            if not label and (numbered := _NUMBERED.fullmatch(name)):
                name, label = numbered[1], "" if label_folder else numbered[2]
            label = label or (named_by_folder(name, label_folder, str(list_file)) if label_folder else "")
            if (path := same_path(name)) in seen:
                reason = f"{list_file}: line {number}: names {name} a second time; list every file once."
                bad.append(BadFile(str(list_file), reason, number))
                continue
            seen.add(path)
            files.append(InputFile(listed(root or list_file.parent, name), name, label or None))
    return FoundInputs(files, bad)


def same_path(name: str) -> str:
    """Returns a path without what does not change the file: `./a//b` is `a/b`."""
    return os.path.normpath(name) if ".." not in PurePath(name).parts else name


def listed(root: Path, name: str) -> Path:
    """Returns the path of a file in a list, relative ones from `root`; an address stays one, which is then refused as such."""
    return Path(name) if uri_of(name) else root / name


def named_by_folder(name: str, label_folder: int, source: str) -> str:
    """Returns the name of the n-th folder above a file, of the path as it is written; ConfigError if it has fewer."""
    label = _folder_above(PurePath(name), label_folder)
    if label is None:
        raise too_few_folders(name, label_folder, source)
    return label


def too_few_folders(name: str, label_folder: int, source: str) -> ConfigError:
    """Returns the error for a file that has no n-th folder above it."""
    return ConfigError(
        f"{source}: {name} has fewer than {label_folder} folders above it, but its class is that of folder {label_folder} "
        f"(shards.label_folder = {label_folder}); give a smaller number, or move the file."
    )


def _folder_above(path: PurePath, n: int) -> str | None:
    folders = [part for part in path.parent.parts if part != path.anchor]
    return folders[-n] if 1 <= n <= len(folders) and folders[-n] != ".." else None


def first_repeated(keys: Iterable[str]) -> str | None:
    """Returns the first key that occurs a second time."""
    seen: set[str] = set()
    for key in keys:
        if key in seen:
            return key
        seen.add(key)
    return None
