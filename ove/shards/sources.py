"""Which files a command works on: single files, folders (class names from subfolders) or lists (path and label a line)."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from ove.errors import BadClip


@dataclass(frozen=True)
class InputFile:
    """One input file, whether usable or not."""

    path: Path
    key: str
    """Unique among the inputs, stable from run to run: the path relative to its folder or list."""
    label: str | None
    """Class name, where the input gives one."""


def files_in_folder(folder: Path) -> list[InputFile]:
    """Every file below `folder`, sorted by path, hidden ones left out; the name of its subfolder is a file's label."""
    if not folder.is_dir():
        raise BadClip(f"{folder}: no such folder; give a folder of videos or a list of paths.")
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
    return _without_repeats(found, list_file)


def find_files(source: Path) -> list[InputFile]:
    """The videos of a folder or of a list; an absent or empty one raises BadClip."""
    if not source.exists():
        raise BadClip(f"{source}: no such file or folder; give a folder of videos or a list of paths.")
    found = files_in_folder(source) if source.is_dir() else files_in_list(source)
    if not found:
        raise BadClip(f"{source}: holds no files; give a folder of videos or a list of paths.")
    return found


def _without_repeats(found: Sequence[InputFile], list_file: Path) -> list[InputFile]:
    seen: set[str] = set()
    for video in found:
        if video.key in seen:
            raise BadClip(f"{list_file}: names {video.key} twice; every file may stand in a list once.")
        seen.add(video.key)
    return list(found)
