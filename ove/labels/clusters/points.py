"""Vectors in many files as one sequence, read on demand."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from ove.prefetch import prefetch

_READ_AHEAD = 2
"""Blocks that are read ahead."""


class Points:
    """N vectors of width E, in memory or mapped from files; all float32 or all float16."""

    def __init__(self, parts: Sequence[Float[np.ndarray, "_ E"]], chosen: Int[np.ndarray, "N"] | None = None) -> None:
        """Holds the rows of all parts, or the ascending indices `chosen` among them."""
        self._parts = list(parts)
        self._ends = np.cumsum([len(part) for part in parts])
        self._chosen = chosen

    def __len__(self) -> int:
        return int(self._ends[-1]) if self._chosen is None else len(self._chosen)

    @property
    def width(self) -> int:
        """E."""
        return self._parts[0].shape[1]

    @property
    def dtype(self) -> np.dtype:
        """float32 or float16."""
        return self._parts[0].dtype

    def subset(self, index: Int[np.ndarray, "n"]) -> "Points":
        """Returns the points at ascending indices, unread."""
        return Points(self._parts, index if self._chosen is None else self._chosen[index])

    def rows(self, index: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n E"]:
        """Returns the points at indices, in that order, as they are stored."""
        index = np.asarray(index, np.int64)
        index = index if self._chosen is None else self._chosen[index]
        found = np.empty((len(index), self.width), self.dtype)
        order = np.argsort(index, kind="stable")  # reads forward
        for number, here in enumerate(np.split(order, np.searchsorted(index[order], self._ends[:-1]))):
            if len(here):
                found[here] = self._parts[number][index[here] - (self._ends[number] - len(self._parts[number]))]
        return found

    def block(self, start: int, length: int) -> Float[np.ndarray, "length E"]:
        """Returns `length` points from `start` on, padded with zeros."""
        start = min(start, len(self))
        stop = min(start + length, len(self))
        if self._chosen is None and len(self._parts) == 1 and stop - start == length:
            return np.asarray(self._parts[0][start:stop])
        found = np.zeros((length, self.width), self.dtype)
        found[: stop - start] = self.rows(np.arange(start, stop))
        return found

    def blocks(self, length: int, rows: slice | None = None) -> Iterator[tuple[int, Float[np.ndarray, "_ E"]]]:
        """Yields all points in blocks of equal length with the index of the first; a thread reads ahead.

        `rows`: reads only these rows of every block.
        """
        first, last = (0, length) if rows is None else (rows.start, rows.stop)

        def read(start: int) -> tuple[int, Float[np.ndarray, "_ E"]]:
            return start, self.block(start + first, last - first)

        return prefetch(read, range(0, len(self), length), threads=1, depth=_READ_AHEAD)


def as_points(points: "Points | Float[np.ndarray, 'N E']") -> Points:
    """Wraps an array, as float32 unless it is float16; returns Points unchanged."""
    if isinstance(points, Points):
        return points
    return Points([points if points.dtype == np.float16 else np.asarray(points, np.float32)])


def unit(rows: Shaped[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    """Scales rows to length 1, in float32; rows of zeros stay."""
    rows = np.asarray(rows, np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1).astype(np.float32)
