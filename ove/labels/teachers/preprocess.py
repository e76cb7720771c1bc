"""CLIP's preprocessing: resizes the shorter side and crops the middle (spec §5)."""

import math

import numpy as np
from jaxtyping import UInt8
from PIL import Image

_LONGEST = 16
"""Pictures of a larger aspect ratio are cropped before they are resized."""
_REACH = 2
"""Radius of the bicubic filter, in pixels of the larger grid."""


def cut(picture: UInt8[np.ndarray, "H W 3"], side_px: int) -> UInt8[np.ndarray, "s s 3"]:
    """Resizes the shorter side to `side_px`, bicubic and antialiased, and crops the middle.

    Gives the bytes of transformers' CLIPImageProcessor with Pillow before normalisation, with the rounding that CLIP was
    trained with. Of very long pictures only the middle is resized, to bound memory; it may differ by rounding.
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
    """Computes the middle of the resized picture from the pixels that it depends on."""
    (top, bottom, y0, y1), (left, right, x0, x1) = (
        _span(old, new, side_px) for old, new in zip(picture.shape, (new_height, new_width), strict=False)
    )
    part = Image.fromarray(picture[top:bottom, left:right])
    return np.asarray(part.resize((side_px, side_px), Image.Resampling.BICUBIC, box=(x0, y0, x1, y1)))


def _span(old: int, new: int, side_px: int) -> tuple[int, int, float, float]:
    """Returns, along one axis, the range of pixels that the middle depends on, and its borders within them."""
    scale = old / new
    begin = (new - side_px) // 2 * scale
    end = begin + side_px * scale
    reach = _REACH * max(scale, 1) + 1
    first, last = max(0, math.floor(begin - reach)), min(old, math.ceil(end + reach))
    return first, last, begin - first, min(end, last) - first
