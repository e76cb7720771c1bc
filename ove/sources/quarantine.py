"""Files set aside: which, why, and where in the file it went wrong; one JSON object a line."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ove.files import write_json_lines

QUARANTINE = "quarantine.jsonl"
"""Name of the list, in the folder of what it was left out of."""


@dataclass(frozen=True)
class BadFile:
    """One file that could not be used."""

    file: str
    reason: str
    """A sentence for people: what was found and what was expected."""
    position: int | None = None
    """Index of the frame (or byte) where it went wrong, if that is known."""


def write_quarantine(path: Path, entries: Sequence[BadFile]) -> None:
    """Writes `quarantine.jsonl` whole under a temporary name, then renames it: a reader never sees half of it."""
    write_json_lines(path, map(asdict, entries))


def read_quarantine(path: Path) -> list[BadFile]:
    """The entries of a quarantine list; an absent file means none."""
    if not path.exists():
        return []
    return [BadFile(**json.loads(line)) for line in path.read_text(encoding="utf-8").splitlines() if line.strip()]
