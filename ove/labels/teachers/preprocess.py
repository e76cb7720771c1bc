"""Pictures as CLIP's own preprocessing cuts them: shorter side resized, the middle kept (spec §5)."""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_LONGEST = 16
"""Pictures whose longer side is more than so many times the shorter are cut before they are resized."""
_REACH = 2
"""Of the bicubic filter, in pixels of the larger grid."""


def cut(picture: UInt8[np.ndarray, "H W 3"], side_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of a picture whose shorter side is resized to `side_px`, bicubic, antialiased when it gets smaller.

    The same bytes as transformers' CLIPImageProcessor with Pillow gives before it normalises: the resizing is Pillow's, which
    rounds as it was done when CLIP was trained. A picture of that size is left as it is. Of very long pictures only the middle
    is resized, so that memory is bounded; where the whole would give other bytes, it is by rounding.
    """
    height, width = picture.shape[:2]
    if (height, width) == (side_px, side_px):
        return picture
    if height < width:
        new_height, new_width = side_px, int(side_px * width / height)
    else:
        new_height, new_width = int(side_px * height / width), side_px
    if max(new_height, new_width) > _LONGEST * side_px:
        return _middle(picture, new_height, new_width, side_px)
    resized = np.asarray(Image.fromarray(picture).resize((new_width, new_height), Image.Resampling.BICUBIC))
    top, left = (new_height - side_px) // 2, (new_width - side_px) // 2
    return resized[top : top + side_px, left : left + side_px]


def _middle(picture: UInt8[np.ndarray, "H W 3"], new_height: int, new_width: int, side_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """The middle of the picture as it would be at the new size, made of the pixels that it depends on."""
    (top, bottom, y0, y1), (left, right, x0, x1) = (
        _span(old, new, side_px) for old, new in zip(picture.shape, (new_height, new_width), strict=False)
    )
    part = Image.fromarray(picture[top:bottom, left:right])
    return np.asarray(part.resize((side_px, side_px), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1)))


def _span(old: int, new: int, side_px: int) -> tuple[int, int, float, float]:
    """Along one axis: the first pixel that the middle depends on, that after the last, and its borders from the first on."""
    scale = old / new
    begin = (new - side_px) // 2 * scale
    end = begin + side_px * scale
    reach = _REACH * max(scale, 1) + 1
    first, last = max(0, math.floor(begin - reach)), min(old, math.ceil(end + reach))
    return first, last, begin - first, min(end, last) - first
