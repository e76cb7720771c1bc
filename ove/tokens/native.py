"""Pictures at their native aspect ratio: their size in whole patches, and the resize to it."""

import functools
import logging

import cv2
import numpy as np
from jaxtyping import UInt8

from ove.errors import BadClip, ConfigError

_log = logging.getLogger(__name__)

MAX_TOKENS = 1024
"""Default budget of a picture: that of 448 × 448 pixels."""
_LOST_TOKENS_WEIGHT = 0.3
"""Of losing tokens, relative to a distortion by the same factor."""
_MOST_DISTORTION = 2.0
"""Pictures whose aspect ratio would change by more than this factor are refused."""


def fit_size(height: int, width: int, patch_px: int = 14, min_tokens: int = 0, max_tokens: int = MAX_TOKENS) -> tuple[int, int]:
    """Returns the (height, width) in pixels, in whole patches, at which a picture of `height` × `width` pixels is encoded.

    Of all sizes of at most `max_tokens` patches that are no larger than the picture along either side, the one that minimises
    |log(change of aspect ratio)| + 0.3·log(tokens lost), counted from the largest size of the true aspect ratio. A picture
    that would have fewer than `min_tokens` patches is enlarged, to the size of that many patches or few more that is best by
    the same measure; the default enlarges nothing. BadClip for a side below one patch that is not to be enlarged, and for an
    aspect ratio that would change by more than a factor of 2.
    """
    if patch_px < 1 or max_tokens < 1 or not 0 <= min_tokens <= max_tokens:
        raise ConfigError(
            f"min_tokens = {min_tokens} must be within 0…max_tokens, and max_tokens = {max_tokens} and patch_px = {patch_px} "
            "at least 1."
        )
    if height < 1 or width < 1:
        raise BadClip(f"a picture of {height}×{width} pixels cannot be resized; both sides must be at least 1.")
    rows, columns = _grid(height, width, patch_px, min_tokens, max_tokens)
    return rows * patch_px, columns * patch_px


def resize(image: UInt8[np.ndarray, "h w 3"], size_hw: tuple[int, int]) -> UInt8[np.ndarray, "H W 3"]:
    """Resizes a picture to `size_hw` pixels; one of that size is returned as it is.

    By area means, without aliasing, where no side grows; else by cubic interpolation.
    """
    height, width = image.shape[:2]
    if size_hw == (height, width):
        return image
    shrinks = size_hw[0] <= height and size_hw[1] <= width
    return cv2.resize(image, size_hw[::-1], interpolation=cv2.INTER_AREA if shrinks else cv2.INTER_CUBIC)


@functools.lru_cache(maxsize=4096)  # each size is also logged only once
def _grid(height: int, width: int, patch_px: int, min_tokens: int, max_tokens: int) -> tuple[int, int]:
    """Returns the rows and columns of patches of `fit_size`."""
    area = height * width / patch_px**2
    rows, columns = _best(height, width, min(area, max_tokens), 1, max_tokens, (height // patch_px, width // patch_px))
    if rows * columns < min_tokens:
        rows, columns = _best(height, width, min_tokens, min_tokens, max_tokens, (max_tokens, max_tokens))
    if not rows * columns:
        raise BadClip(
            f"a picture of {height}×{width} pixels is narrower than one patch of {patch_px}; leave it out, or set min_tokens "
            "to 1 or more to enlarge it."
        )
    distortion = (rows * width) / (columns * height)
    if not 1 / _MOST_DISTORTION <= distortion <= _MOST_DISTORTION:
        raise BadClip(
            f"a picture of {height}×{width} pixels is too narrow for {max_tokens} tokens: at best {rows}×{columns} patches, "
            f"which changes its proportions by a factor of {max(distortion, 1 / distortion):.1f}; crop it, or raise max_tokens."
        )
    _log.info(
        "pictures of %d×%d pixels are encoded at %d×%d (%d tokens; scale %.3f down, %.3f across)",
        *(height, width, rows * patch_px, columns * patch_px, rows * columns),
        *(rows * patch_px / height, columns * patch_px / width),
    )
    return rows, columns


def _best(height: int, width: int, ideal: int | float, least: int, most: int, limits: tuple[int, int]) -> tuple[int, int]:
    """Returns the best grid of `least` … `most` patches within the limits (rows, columns), or (0, 0) if there is none.

    For a given number of rows the best number of columns is next to the one that keeps the aspect ratio.
    """
    rows = np.arange(1, min(limits[0], most) + 1)
    exact = rows * (width / height)
    grids = []
    for columns in (np.floor(exact), np.ceil(exact), np.ceil(least / rows)):
        columns = np.clip(columns, 1, np.minimum(limits[1], most // rows))
        grids.append(np.stack([rows, columns.astype(np.int64)]))
    found = np.concatenate(grids, axis=1)
    found = found[:, (found.prod(0) >= max(least, 1))]
    if not found.size:
        return 0, 0
    distortion = np.abs(np.log(found[0] * width / (found[1] * height)))
    # Ties are broken alike on every machine: more tokens, then more rows.
    cost = distortion + _LOST_TOKENS_WEIGHT * np.abs(np.log(found.prod(0) / ideal))
    order = np.lexsort((-found[0], -found.prod(0), np.round(cost, 9)))
    return int(found[0, order[0]]), int(found[1, order[0]])
