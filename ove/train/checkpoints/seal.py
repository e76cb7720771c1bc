"""The files of a checkpoint: noted when it has been written, compared before it is read."""

import hashlib
import json
from pathlib import Path

from ove.errors import DamagedCheckpoint

NOTE = "files.json"
"""In the folder of a step: what files it consists of."""


def seal(folder: Path) -> None:
    """Notes the files of a checkpoint that is complete."""
    files = _files(folder)
    (folder / NOTE).write_text(json.dumps({"files": files, "sha256": _digest(files)}))


def check(folder: Path) -> None:
    """Compares the files of a checkpoint with what was noted; DamagedCheckpoint names those that are gone or differ.

    Orbax answers lost files with pages of text, or with nothing, so this comes before it.
    """
    try:
        note = json.loads((folder / NOTE).read_text())
        found = _files(folder)
    except (OSError, ValueError) as error:
        raise unreadable(folder, f"{NOTE}: {error}") from error
    noted = note.get("files") if isinstance(note, dict) else None
    if not isinstance(noted, dict) or note.get("sha256") != _digest(noted):
        raise unreadable(folder, f"{NOTE}: is not what was saved")
    wrong = sorted(name for name in noted if found.get(name) != noted[name])
    if wrong:
        raise unreadable(folder, f"{len(wrong)} of its files are missing or not what was saved: {few(wrong)}")


def unreadable(folder: Path, reason: object) -> DamagedCheckpoint:
    """The error of a checkpoint that is not what was saved, and why it is known."""
    return DamagedCheckpoint(f"{folder}: cannot be read ({beginning(reason)}).")


def beginning(reason: object) -> str:
    """Of an error of orbax, the part that tells something; pages of specifications follow."""
    return (str(reason) or type(reason).__name__).splitlines()[0].split(" See full TensorStore")[0][:300]


def few(items: list[str]) -> str:
    """The first four, and how many more."""
    return "; ".join(items[:4]) + (f" and {len(items) - 4} more" if len(items) > 4 else "")


def _digest(files: dict[str, str]) -> str:
    return hashlib.sha256(json.dumps(files, sort_keys=True).encode()).hexdigest()


def _files(folder: Path) -> dict[str, str]:
    """Path → size, and checksum where that is not left to the fingerprints of the arrays."""
    found = {}
    for path in sorted(path for item in ("state", "meta") for path in (folder / item).rglob("*") if path.is_file()):
        holds_arrays = path.parent.name == "d" and path.parent.parent.name != "state"
        checksum = "" if holds_arrays else hashlib.sha256(path.read_bytes()).hexdigest()
        found[str(path.relative_to(folder))] = f"{path.stat().st_size} {checksum}"
    return found
