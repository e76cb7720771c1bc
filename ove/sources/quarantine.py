"""Files set aside: which, why, and where in the file it failed; one JSON object a line."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from ove.files import on_screen, printable, write_json_lines

QUARANTINE = "quarantine.jsonl"
"""Name of the list, in the folder that the files are missing from."""


@dataclass(frozen=True)
class BadFile:
    """One file that could not be used."""

    file: str
    reason: str
    """A sentence for people."""
    position: int | None = None
    """Index of the frame (or byte) where it failed, if known."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "file", printable(self.file))
        object.__setattr__(self, "reason", on_screen(printable(self.reason)))


def write_quarantine(path: Path, entries: Sequence[BadFile]) -> None:
    """Writes `quarantine.jsonl`, whole or not at all."""
    write_json_lines(path, map(asdict, entries))
