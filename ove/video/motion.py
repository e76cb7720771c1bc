"""Motion vectors → a dense field on 8×8 cells, and the field without the camera's own motion."""

import numpy as np
from jaxtyping import Bool, Float32, Float64, Shaped

from ove.errors import ConfigError
from ove.records import CELL_PX

_MOVED_PX = 1e-3
_KEPT_SHARE = 0.7
_LEAST_CELLS = 64
_LEAST_SHARE = 0.5
"""Similarity fit (spec §2): what counts as moved, the share kept for the second round, and the fewest cells that are fitted."""


def cells(pixels: int) -> int:
    """Cells along a side of so many pixels; the last one may be cut by the picture's border."""
    return -(-pixels // CELL_PX)


def dense_field(
    vectors: Shaped[np.ndarray, "n"] | None, height_px: int, width_px: int
) -> tuple[Float32[np.ndarray, "h w 2"], Bool[np.ndarray, "h w"]]:
    """The field of (dx, dy) on 8×8 cells, and where there is one, from the vectors that FFmpeg attached (None: none).

    In pixels: by how much the content has moved since the reference frame. FFmpeg's vectors point from a block to where its
    prediction comes from, hence the minus; for a reference in the future they point to where the content goes, so they are
    kept. A cell predicted from both sides gets the mean. Nothing is divided by the distance to the reference frame, which
    FFmpeg does not tell.
    """
    rows, columns = cells(height_px), cells(width_px)
    # Blocks reach to the end of the last macroblock, two cells wide.
    padded_columns = columns + columns % 2
    n_cells = (rows + rows % 2) * padded_columns
    total, count = np.zeros((n_cells, 2), np.float32), np.zeros(n_cells, np.uint8)
    if vectors is not None and len(vectors):
        size = vectors["w"].astype(np.int32) * 256 + vectors["h"]
        corner_y = (vectors["dst_y"].astype(np.int32) - (vectors["h"] >> 1)) // CELL_PX
        corner_x = (vectors["dst_x"].astype(np.int32) - (vectors["w"] >> 1)) // CELL_PX
        # A coded picture may reach further than its last shown macroblock.
        inside = (corner_y < n_cells // padded_columns) & (corner_x < padded_columns)
        corner = corner_y * padded_columns + corner_x
        toward_past = vectors["source"] < 0
        scale = np.where(toward_past, -1, 1).astype(np.float32) / vectors["motion_scale"]
        moved = np.stack([vectors["motion_x"] * scale, vectors["motion_y"] * scale], axis=1)
        for direction in (toward_past & inside, ~toward_past & inside):
            # Blocks of one size and one direction do not overlap: plain assignment, no accumulation within a class.
            for block in np.unique(size[direction]):
                chosen = direction & (size == block)
                offsets = (
                    np.arange(block % 256 // CELL_PX)[:, None] * padded_columns + np.arange(block // 256 // CELL_PX)
                ).ravel()
                where = corner[chosen][:, None] + offsets
                total[where] += moved[chosen][:, None]
                count[where] += 1
    field = (total / np.maximum(count, 1)[:, None]).reshape(-1, padded_columns, 2)
    return field[:rows, :columns], (count > 0).reshape(-1, padded_columns)[:rows, :columns]


def remove_camera(
    motion: Float32[np.ndarray, "T h w 2"], has_vector: Bool[np.ndarray, "T h w"], model: str
) -> Float32[np.ndarray, "T h w 2"]:
    """The field minus the camera's motion in every cell that has a vector; the other cells stay as they are.

    `none`; `median` or `mean` of a frame's vectors; `similarity`: shift, zoom and turn, least squares in two rounds over the
    cells that moved; a frame where fewer than 64 did, or fewer than half of those with a vector, gets the median (spec §2,
    which knows only the first of the two).
    """
    if model == "none":
        return motion
    if model == "mean":
        count = np.maximum(has_vector.sum((1, 2)), 1)
        camera = np.einsum("thwc,thw->tc", motion, has_vector, dtype=np.float64) / count[:, None]
    elif model in ("median", "similarity"):
        camera = _median(motion, has_vector)
    else:
        raise ConfigError(f"compensation = {model!r} is none of 'none', 'median', 'mean', 'similarity'.")
    field = np.broadcast_to(camera[:, None, None, :], motion.shape)
    if model == "similarity":
        moved = has_vector & (np.abs(motion).sum(-1) > _MOVED_PX)
        # Where most of the picture stands still the camera does too, and a fit to what moved would be one to the objects.
        enough = moved.sum((1, 2)) >= np.maximum(_LEAST_CELLS, _LEAST_SHARE * has_vector.sum((1, 2)))
        field = np.where(enough[:, None, None, None], _similarity(motion, moved & enough[:, None, None]), field)
    return (motion - np.where(has_vector[..., None], field, 0)).astype(np.float32)


def _median(motion: Float32[np.ndarray, "T h w 2"], has_vector: Bool[np.ndarray, "T h w"]) -> Float64[np.ndarray, "T 2"]:
    """Median vector of each frame; (0, 0) for a frame without vectors."""
    medians = [np.median(field[has], axis=0) if has.any() else (0, 0) for field, has in zip(motion, has_vector, strict=True)]
    return np.array(medians, np.float64)


def _similarity(motion: Float32[np.ndarray, "T h w 2"], use: Bool[np.ndarray, "T h w"]) -> Float64[np.ndarray, "T h w 2"]:
    """The field dx = tx + a·x − b·y, dy = ty + b·x + a·y that fits best, x and y running over [−1, 1] across the picture."""
    n_frames, rows, columns = use.shape
    y, x = (axis.ravel() for axis in np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij"))
    flat, weight = motion.reshape(n_frames, -1, 2).astype(np.float64), use.reshape(n_frames, -1)
    field = _fit(flat, weight.astype(np.float64), x, y)
    error = np.where(weight, np.square(flat - field).sum(-1), np.inf)
    kept = np.ceil(_KEPT_SHARE * weight.sum(1)).astype(np.int64)
    border = np.take_along_axis(np.sort(error, axis=1), np.maximum(kept - 1, 0)[:, None], axis=1)
    return _fit(flat, (weight & (error <= border)).astype(np.float64), x, y).reshape(n_frames, rows, columns, 2)


def _fit(
    flat: Float64[np.ndarray, "T n 2"],
    weight: Float64[np.ndarray, "T n"],
    x: Float64[np.ndarray, "n"],
    y: Float64[np.ndarray, "n"],
) -> Float64[np.ndarray, "T n 2"]:
    """One round of weighted least squares, all frames at once, by the normal equations."""
    dx, dy = flat[..., 0] * weight, flat[..., 1] * weight
    n, sx, sy, sq = weight.sum(1), weight @ x, weight @ y, weight @ (x * x + y * y)
    # The unknowns after centring: a and b decouple from the shift. A frame with no weight keeps the zero field.
    some = np.maximum(n, 1)
    spread = np.maximum(sq - (sx * sx + sy * sy) / some, 1e-12)
    mean_dx, mean_dy = dx.sum(1) / some, dy.sum(1) / some
    a = (dx @ x + dy @ y - mean_dx * sx - mean_dy * sy) / spread
    b = (dy @ x - dx @ y - mean_dy * sx + mean_dx * sy) / spread
    tx, ty = mean_dx - (a * sx - b * sy) / some, mean_dy - (b * sx + a * sy) / some
    a, b, tx, ty = (value[:, None] for value in (a, b, tx, ty))
    return np.stack([tx + a * x - b * y, ty + b * x + a * y], axis=-1)
