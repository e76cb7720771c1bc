"""Which frames of a clip a sheet shows, and how much is kept of every sampled frame, as a row of bars."""

import itertools

import numpy as np
from jaxtyping import Bool, Int

from ove.records import Selection
from ove.view.canvas import INK, MARK, Canvas

_EMPTY = "#eeeeee"


def moments(chosen: Bool[np.ndarray, "T Y X"], columns: int, per_frame: int | None = None) -> Int[np.ndarray, "n"]:
    """Returns `columns` frames (all of fewer): the first, and of equal stretches of the rest the one of which most is kept.

    Whole frames do not count: those with `per_frame` patches (None: Y·X).
    """
    number, count = chosen.sum(axis=(1, 2)), min(columns, len(chosen))
    partly = np.where(number < (per_frame or chosen[0].size), number, 0)
    edges = 1 + np.arange(count) * (len(number) - 1) // max(count - 1, 1)
    return np.array([0, *(start + int(np.argmax(partly[start:end])) for start, end in itertools.pairwise(edges))])


def bars(
    canvas: Canvas,
    box: tuple[int, int, int, int],
    chosen: Bool[np.ndarray, "T Y X"],
    marked: Bool[np.ndarray, "T"],
    shown: Int[np.ndarray, "n"] | None = None,
    pointer_px: int = 9,
) -> None:
    """Draws a bar for each frame into `box` = (left, top, right, bottom), full height for a frame kept whole.

    Frames `marked` stand out by colour; below those `shown` is a triangle.
    """
    left, top, right, bottom = box
    pitch = (right - left) / len(chosen)
    for t, share in enumerate(chosen.mean(axis=(1, 2))):
        x, tall = left + t * pitch, (bottom - top) * share
        canvas.bar(x, top, pitch - 2, bottom - top, _EMPTY)
        canvas.bar(x, bottom - tall, pitch - 2, tall, MARK if marked[t] else INK)
        if shown is not None and t in shown:
            canvas.pointer(x + pitch / 2 - 1, bottom + pointer_px - 5, pointer_px)


def title(selection: Selection) -> str:
    """Returns how many patches the encoder sees of how many."""
    kept, total = len(selection.flat), int(np.prod(selection.grid_tyx))
    return f"The encoder sees {kept:,} of {total:,} patches ({100 * kept / total:.3g} %)"
