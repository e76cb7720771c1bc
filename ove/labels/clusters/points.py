"""Vectors that lie in many files as one sequence; only what is asked for is read."""

from collections.abc import Iterator, Sequence

import numpy as np
from jaxtyping import Float, Float32, Int, Shaped

from ove.prefetch import prefetch

_READ_AHEAD = 2
"""Blocks that are read while another is worked on."""


class Points:
    """N vectors of E numbers, in memory or mapped from files; all of one type, float32 or float16, of any length."""

    def __init__(self, parts: Sequence[Float[np.ndarray, "_ E"]], chosen: Int[np.ndarray, "N"] | None = None) -> None:
        """The rows of all parts, or those with the ascending indices `chosen` among them."""
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
        """Of the stored numbers."""
        return self._parts[0].dtype

    def subset(self, index: Int[np.ndarray, "n"]) -> "Points":
        """The points with these ascending indices, still unread."""
        return Points(self._parts, index if self._chosen is None else self._chosen[index])

    def rows(self, index: Int[np.ndarray, "n"]) -> Float[np.ndarray, "n E"]:
        """The points with these indices, in this order, as they are stored."""
        index = np.asarray(index, np.int64)
        index = index if self._chosen is None else self._chosen[index]
        found = np.empty((len(index), self.width), self.dtype)
        order = np.argsort(index, kind="stable")  # from the beginning of the files to their end
        for number, here in enumerate(np.split(order, np.searchsorted(index[order], self._ends[:-1]))):
            if len(here):
                found[here] = self._parts[number][index[here] - (self._ends[number] - len(self._parts[number]))]
        return found

    def block(self, start: int, length: int) -> Float[np.ndarray, "length E"]:
        """`length` points from `start` on; rows of 0 after the last."""
        start = min(start, len(self))
        stop = min(start + length, len(self))
        if self._chosen is None and len(self._parts) == 1 and stop - start == length:
            return np.asarray(self._parts[0][start:stop])
        found = np.zeros((length, self.width), self.dtype)
        found[: stop - start] = self.rows(np.arange(start, stop))
        return found

    def blocks(self, length: int, rows: slice | None = None) -> Iterator[tuple[int, Float[np.ndarray, "_ E"]]]:
        """All points in blocks of equal length, each with the index of its first; a thread reads ahead.

        `rows`: only these of every block are wanted, the others are not read.
        """
        first, last = (0, length) if rows is None else (rows.start, rows.stop)

        def read(start: int) -> tuple[int, Float[np.ndarray, "_ E"]]:
            return start, self.block(start + first, last - first)

        return prefetch(read, range(0, len(self), length), threads=1, depth=_READ_AHEAD)


def as_points(points: "Points | Float[np.ndarray, 'N E']") -> Points:
    """Points as they are; an array as points in float32."""
    if isinstance(points, Points):
        return points
    return Points([points if points.dtype == np.float16 else np.asarray(points, np.float32)])


def unit(rows: Shaped[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    """Rows of length 1, in float32; rows of 0 stay."""
    rows = np.asarray(rows, np.float32)
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1).astype(np.float32)
