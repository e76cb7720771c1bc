"""Who may work on a folder at the same time: one command, or several that each make a part of the same step."""

import fcntl
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ove.shards.lock import held

Part = tuple[int, int]
"""(i, n): the i-th of n parts."""
WHOLE: Part = (0, 1)


@contextmanager
def working(folder: Path, part: Part = WHOLE, remedy: str = "wait for it or give another --work") -> Iterator[None]:
    """Keeps others out of a folder: with `WHOLE` all, else who does the same part or the whole; BadShard if they were first.

    The lock is one of the system, and ends with this process, however that ends. Other parts may come and go. The whole begins
    with deleting what those that were killed left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sentence = f"{folder}: another launch.labels works on it; {remedy}."
    mine: AbstractContextManager[None] = nullcontext()
    if part != WHOLE:
        part_sentence = f"{folder}: another launch.labels does part {part[0]}/{part[1]}; wait for it or do another part."
        mine = held(folder / f".lock-{part[0]}-{part[1]}", fcntl.LOCK_EX | fcntl.LOCK_NB, part_sentence)
    with held(folder / ".lock", (fcntl.LOCK_EX if part == WHOLE else fcntl.LOCK_SH) | fcntl.LOCK_NB, sentence), mine:
        for leftover in folder.glob(".*.tmp") if part == WHOLE else ():
            leftover.unlink(missing_ok=True)
        yield


@contextmanager
def in_turn(path: Path) -> Iterator[None]:
    """Waits until nobody else holds this file; then holds it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with held(path, fcntl.LOCK_EX, ""):
        yield


def temporary_of(path: Path, part: Part) -> Path:
    """Where this part builds a file: parts of another number may be making the same one."""
    return path.with_name(f".{path.name}.{part[0]}-{part[1]}.tmp")
