"""Locks a folder for one command, or for several that each compute a part of one step."""

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from pathlib import Path

from ove.errors import BadShard
from ove.files import locked, remove_leftovers

WorkPart = tuple[int, int]
"""(i, n): the i-th of n parts."""
WHOLE: WorkPart = (0, 1)


def name_of(part: WorkPart) -> str:
    """Returns the `writer` under which `atomic_write` keeps the files of different parts apart."""
    return f"{part[0]}-{part[1]}"


@contextmanager
def working(folder: Path, part: WorkPart = WHOLE, remedy: str = "wait for it or give another --work") -> Iterator[None]:
    """Locks a folder: against all others for `WHOLE`, else against the same part and the whole; BadShard if it is taken.

    The system releases the lock when this process ends. `WHOLE` first deletes what killed commands left half-written.
    """
    folder.mkdir(parents=True, exist_ok=True)
    sentence = f"{folder}: another `ove labels` works on it; {remedy}."
    mine: AbstractContextManager[object] = nullcontext()
    if part != WHOLE:
        part_sentence = f"{folder}: another `ove labels` does part {part[0]}/{part[1]}; wait for it or do another part."
        mine = locked(folder / f".lock-{name_of(part)}", BadShard(part_sentence))
    with locked(folder / ".lock", BadShard(sentence), shared=part != WHOLE), mine:
        if part == WHOLE:
            remove_leftovers(folder)
        yield
