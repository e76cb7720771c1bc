"""Motion vectors → a dense field on 8×8 cells, and the field without the camera's own motion."""

import functools
from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Complex64, Float32, Float64, Shaped

from ove.named import named
from ove.records import CELL_PX
from ove.video.bitstream.coded import CodedPicture

_CELL_BITS = CELL_PX.bit_length() - 1
_MOVED_PX = 1e-3
_KEPT_SHARE = 0.7
_LEAST_CELLS = 64
_LEAST_SHARE = 0.5
"""Fits (spec §2): what counts as moved, the share kept for the second round, and the fewest cells that are fitted."""
_TINY = 1e-9
"""Relative to the mean square of a coordinate: a spread below it means that the cells lie on a line."""

Vectors = Float64[np.ndarray, "2 n"]
"""(dx, dy) of n cells."""
Places = Float64[np.ndarray, "n"]
"""x or y of the cells, over [−1, 1] across the picture whatever its shape."""
Linear = Float64[np.ndarray, "2 3"]
"""(dx, dy) as linear functions of (1, x, y)."""


def cells(pixels: int) -> int:
    """Returns the number of cells along a side; the picture's border may cut the last one."""
    return -(-pixels // CELL_PX)


def dense_field(
    vectors: Shaped[np.ndarray, "n"] | None,
    height_px: int,
    width_px: int,
    lists: str = "both",
    crop_px: tuple[int, int] = (0, 0),
) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Returns the field of (dx, dy) in pixels on 8×8 cells, and which cells have a vector, from FFmpeg's vectors (None: none).

    (dx, dy) is how far the content has moved since the reference frame. FFmpeg's vectors point from a block to its prediction,
    hence the minus; with a reference in the future (list 1) that is where the content goes, so they are kept. Nothing is
    divided by the distance to the reference frame, which FFmpeg does not export.
    A bi-predicted cell gets by `lists` the vector of list 0 (`l0`), that of list 1 (`l1`), or, for `both`, the direction of
    their mean and the mean of their magnitudes (spec §2). The shown picture begins `crop_px` = (down, right) pixels into the
    coded one; the first cell is the one it begins in.
    """
    rows, columns = cells(crop_px[0] + height_px), cells(crop_px[1] + width_px)
    shown = np.s_[crop_px[0] // CELL_PX : rows, crop_px[1] // CELL_PX : columns]
    if vectors is None or not len(vectors):
        empty = np.zeros((rows, columns, 2), np.float32)[shown]
        return empty, np.zeros(empty.shape[:2], bool)
    (past, future), (has_past, has_future) = _scattered(vectors, rows, columns)
    has_vector = has_past | has_future
    field = _of_lists(past, future, has_past, has_future, lists).reshape(rows, columns, 2)
    return field[shown], has_vector.reshape(rows, columns)[shown]


def coded_field(
    coded: CodedPicture, lists: str = "both", crop_px: tuple[int, int] = (0, 0), shown_px: tuple[int, int] | None = None
) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """Returns what `dense_field` does, of a picture whose slice data were read.

    Whether a vector points to the past or to the future is told by the order of pictures: a list may hold either. `shown_px`:
    (height, width) of the shown picture, which begins `crop_px` into the coded one; else all of it is shown.
    """
    forward = np.where(coded.poc_distance < 0, np.float32(-0.25), np.float32(0.25))[..., None]
    moved = (coded.vectors * forward).astype(np.float32).reshape(-1, 2, 2).view(np.complex64)[..., 0]
    used = coded.used.reshape(-1, 2)
    shape = coded.used.shape[:2]
    field = _of_lists(moved[:, 0], moved[:, 1], used[:, 0], used[:, 1], lists).reshape(*shape, 2)
    height, width = shown_px or (shape[0] * CELL_PX, shape[1] * CELL_PX)
    shown = np.s_[crop_px[0] // CELL_PX : cells(crop_px[0] + height), crop_px[1] // CELL_PX : cells(crop_px[1] + width)]
    return field[shown], (coded.used[..., 0] | coded.used[..., 1])[shown]


def _of_lists(
    first: Complex64[np.ndarray, "n"],
    second: Complex64[np.ndarray, "n"],
    has_first: Bool[np.ndarray, "n"],
    has_second: Bool[np.ndarray, "n"],
    lists: str,
) -> Float32[np.ndarray, "m"]:
    """Returns (dx, dy) of all cells, one after the other, from the vectors of both lists."""
    field = np.where(has_first, first, second)
    two = has_first & has_second
    if two.any():
        field[two] = _of_two(first[two], second[two], lists)
    return field.view(np.float32)


def _scattered(
    vectors: Shaped[np.ndarray, "n"], rows: int, columns: int
) -> tuple[Complex64[np.ndarray, "2 cells"], Bool[np.ndarray, "2 cells"]]:
    """Returns the vectors of each list on the cells that their blocks cover, and which cells have one.

    As complex numbers dx + i·dy: an array of pairs takes several times longer to index. Blocks of a list do not overlap.
    """
    forward = vectors["source"] >= 0
    scale = np.where(forward, np.float32(1), np.float32(-1)) / vectors["motion_scale"].astype(np.float32)
    moved = np.empty(len(vectors), np.complex64)
    moved.real, moved.imag = vectors["motion_x"] * scale, vectors["motion_y"] * scale
    width, height = vectors["w"].astype(np.int32), vectors["h"].astype(np.int32)
    top, left = ((vectors[at] - (side >> 1)) >> _CELL_BITS for at, side in (("dst_y", height), ("dst_x", width)))
    # Blocks may reach beyond the picture: what lies outside goes to one place behind the cells.
    nowhere = 2 * rows * columns
    field = np.full(nowhere + 1, np.nan, np.complex64)
    first = (forward * np.int32(rows) + top) * columns + left
    below, beside = (range(-(-int(np.max(side)) // CELL_PX)) for side in (height, width))
    in_column = [(width > right * CELL_PX) & (left >= -right) & (left < columns - right) for right in beside]
    for down in below:
        in_row = (height > down * CELL_PX) & (top >= -down) & (top < rows - down)
        for right in beside:
            field[np.where(in_row & in_column[right], first + (down * columns + right), nowhere)] = moved
    lists = field[:-1].reshape(2, -1)
    has_vector = ~np.isnan(lists.real)
    lists[~has_vector] = 0
    return lists, has_vector


def _of_two(past: Complex64[np.ndarray, "n"], future: Complex64[np.ndarray, "n"], lists: str) -> Complex64[np.ndarray, "n"]:
    """Returns one vector for each bi-predicted cell."""
    if lists != "both":
        return {"l0": past, "l1": future}[lists]
    mean = (past + future) * np.float32(0.5)
    magnitude = (_length(past) + _length(future)) * np.float32(0.5)
    # Opposite vectors cancel out: then the direction is that of list 0.
    direction = np.where(_length(mean) > _MOVED_PX, mean, past)
    return direction * (magnitude / np.maximum(_length(direction), np.float32(1e-12)))


def _length(vectors: Complex64[np.ndarray, "n"]) -> Float32[np.ndarray, "n"]:
    return np.hypot(vectors.real, vectors.imag)


def remove_camera(
    motion: Float32[np.ndarray, "T h w 2"], has_vector: Bool[np.ndarray, "T h w"], model: str
) -> Float32[np.ndarray, "T h w 2"]:
    """Returns the field minus the camera's motion in every cell that has a vector; other cells stay as they are.

    `none`; `median` or `mean` of a frame's vectors; `similarity`: shift, zoom and rotation; `affine`: any linear map. The last
    two are least squares in two rounds over the cells that moved; a frame where fewer than 64 did, or fewer than half of those
    with a vector, gets the median (spec §2, which has only the first of these two limits).
    """
    camera_of = named(COMPENSATIONS, model, "video.compensation")
    rows, columns = has_vector.shape[1:]
    y, x = np.repeat(np.linspace(-1, 1, rows), columns), np.tile(np.linspace(-1, 1, columns), rows)
    left = motion.copy()
    for frame, has in zip(left, has_vector, strict=True):  # frame by frame: what a fit needs stays in the processor's cache
        where = np.flatnonzero(has)
        if len(where):
            pairs = frame.reshape(-1, 2).view(np.complex64)[:, 0]
            found = pairs[where]
            vectors = np.array([found.real, found.imag], np.float64)
            camera = camera_of(vectors, x[where], y[where]).astype(np.float32)
            found.real -= camera[0]
            found.imag -= camera[1]
            pairs[where] = found
    return left


def _of_moving_cells(
    fit: Callable[[Vectors, Places, Places], Linear], vectors: Vectors, x: Places, y: Places
) -> Float64[np.ndarray, "2 _"]:
    """Fits a linear model to the cells that moved; returns the median where they are few."""
    moved = np.abs(vectors[0]) + np.abs(vectors[1]) > _MOVED_PX
    # Where most of the picture stands still the camera does too, and a fit to what moved would be one to the objects.
    if np.count_nonzero(moved) < max(_LEAST_CELLS, _LEAST_SHARE * len(moved)):
        return np.median(vectors, axis=1, keepdims=True)
    return _field(_in_two_rounds(fit, vectors.compress(moved, axis=1), x.compress(moved), y.compress(moved)), x, y)


def _in_two_rounds(fit: Callable[[Vectors, Places, Places], Linear], vectors: Vectors, x: Places, y: Places) -> Linear:
    """Fits a model to all vectors, then again to the 70 % of them that it explains best."""
    across, down = vectors - _field(fit(vectors, x, y), x, y)
    error = across * across + down * down
    kept = int(np.ceil(_KEPT_SHARE * len(error)))
    good = error <= np.partition(error, kept - 1)[kept - 1]
    return fit(vectors.compress(good, axis=1), x.compress(good), y.compress(good))


def _field(model: Linear, x: Places, y: Places) -> Vectors:
    """Returns (dx, dy) = model · (1, x, y) at each place."""
    return np.array([row[0] + row[1] * x + row[2] * y for row in model])


def _similarity(vectors: Vectors, x: Places, y: Places) -> Linear:
    """Returns the least-squares fit of dx = tx + a·x − b·y, dy = ty + b·x + a·y."""
    middle, mean, spread, moment = _moments(vectors, x, y)
    # After centring a and b decouple from the shift and from each other.
    total = max(spread.trace(), _TINY * len(x))
    a, b = moment.trace() / total, (moment[1, 0] - moment[0, 1]) / total
    turn = np.array([[a, -b], [b, a]])
    return np.column_stack([mean - turn @ middle, turn])


def _affine(vectors: Vectors, x: Places, y: Places) -> Linear:
    """Returns the least-squares fit of any linear function; for cells on one line, the one of least slope."""
    middle, mean, spread, moment = _moments(vectors, x, y)
    slopes = moment @ np.linalg.pinv(spread, rcond=_TINY, hermitian=True)
    return np.column_stack([mean - slopes @ middle, slopes])


def _moments(
    vectors: Vectors, x: Places, y: Places
) -> tuple[Float64[np.ndarray, "2"], Float64[np.ndarray, "2"], Float64[np.ndarray, "2 2"], Float64[np.ndarray, "2 2"]]:
    """Returns the mean place and vector, Σ place · placeᵀ and Σ vector · placeᵀ about them.

    By einsum, whose plain loops do not wait for BLAS's threads: on busy cores that wait is longer than the sums.
    """
    middle, mean = np.array([x.mean(), y.mean()]), vectors.mean(axis=1)
    x, y = x - middle[0], y - middle[1]
    across, down = vectors[0] - mean[0], vectors[1] - mean[1]
    xx, xy, yy, ax, ay, dx, dy = (
        np.einsum("n,n->", a, b) for a, b in ((x, x), (x, y), (y, y), (across, x), (across, y), (down, x), (down, y))
    )
    return middle, mean, np.array([[xx, xy], [xy, yy]]), np.array([[ax, ay], [dx, dy]])


COMPENSATIONS: dict[str, Callable[[Vectors, Places, Places], Float64[np.ndarray, "2 _"]]] = {
    "none": lambda vectors, x, y: np.zeros((2, 1)),
    "median": lambda vectors, x, y: np.median(vectors, axis=1, keepdims=True),
    "mean": lambda vectors, x, y: vectors.mean(axis=1, keepdims=True),
    "similarity": functools.partial(_of_moving_cells, _similarity),
    "affine": functools.partial(_of_moving_cells, _affine),
}
"""`video.compensation`: vectors of a frame, x and y of their cells → the camera's vectors: one, or one a cell."""
