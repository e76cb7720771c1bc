"""Who may work on a folder at the same time: one command, or several that each make a part of the same step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ove.errors import BadShard
from ove.files import locked, remove_leftovers

WorkPart = tuple[int, int]
"""(i, n): the i-th of n parts."""
WHOLE: WorkPart = (0, 1)


def name_of(part: WorkPart) -> str:
    """Returns the name by which `atomic_write` tells apart the parts that may be making the same file."""
    return f"{part[0]}-{part[1]}"


@contextmanager
def working(folder: Path, part: WorkPart = WHOLE, remedy: str = "wait for it or give another --work") -> Iterator[None]:
    """Keeps others out of a folder: with `WHOLE` all, else who does the same part or the whole; BadShard if they were first.

    The lock is one of the system, and ends with this process, however that ends. Other parts may come and go. The whole begins
    with deleting what those that were killed left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sentence = f"{folder}: another launch.labels works on it; {remedy}."
    mine: AbstractContextManager[object] = nullcontext()
    if part != WHOLE:
        part_sentence = f"{folder}: another launch.labels does part {part[0]}/{part[1]}; wait for it or do another part."
        mine = locked(folder / f".lock-{name_of(part)}", BadShard(part_sentence))
    with locked(folder / ".lock", BadShard(sentence), shared=part != WHOLE), mine:
        if part == WHOLE:
            remove_leftovers(folder)
        yield
