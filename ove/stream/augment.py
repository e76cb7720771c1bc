"""A picture of any size → the square that the encoder sees: a random crop, the centre, or all of it (spec §4)."""

import cv2
import numpy as np
from jaxtyping import UInt8

CROP_AREA = (0.7, 1.0)
CROP_ASPECT = (0.8, 1.25)
FLIP = 0.5
"""Random crops: share of the picture's area, width over height, probability of a flip (spec §4)."""


def to_square(
    picture: UInt8[np.ndarray, "h w 3"], size_px: int, augment: str, rng: np.random.Generator | None
) -> UInt8[np.ndarray, "S S 3"]:
    """Returns the picture as a square of `size_px`.

    crop: a random part of 0.7 … 1 of the area and of aspect ratio 0.8 … 1.25, flipped half of the time; without `rng`
    (evaluation) the centre. centre: the central square. none: all of it, stretched. Pictures of twice the size and more are
    halved first, then interpolated.
    """
    height, width = picture.shape[:2]
    if augment == "crop" and rng is not None:
        square = _resize(_random_part(picture, rng), size_px)
        return cv2.flip(square, 1) if rng.random() < FLIP else square
    if augment != "none":
        side = min(height, width)
        top, left = (height - side) // 2, (width - side) // 2
        picture = picture[top : top + side, left : left + side]
    return _resize(picture, size_px)


def _random_part(picture: UInt8[np.ndarray, "h w 3"], rng: np.random.Generator) -> UInt8[np.ndarray, "y x 3"]:
    """Draws area and aspect ratio, with sides at most the picture's, then the place."""
    height, width = picture.shape[:2]
    low, high = np.log(CROP_ASPECT)
    area, aspect, down, across = rng.random(4).tolist()
    pixels = height * width * (CROP_AREA[0] + area * (CROP_AREA[1] - CROP_AREA[0]))
    ratio = np.exp(low + aspect * (high - low))
    rows = min(height, max(1, round(np.sqrt(pixels / ratio))))
    columns = min(width, max(1, round(np.sqrt(pixels * ratio))))
    top, left = int(down * (height - rows + 1)), int(across * (width - columns + 1))
    return picture[top : top + rows, left : left + columns]


def _resize(picture: UInt8[np.ndarray, "h w 3"], size_px: int) -> UInt8[np.ndarray, "S S 3"]:
    # Halving by means first, against aliasing: six times faster than means over areas of any size.
    while min(picture.shape[:2]) >= 2 * size_px:
        height, width = (side // 2 for side in picture.shape[:2])
        picture = cv2.resize(picture[: 2 * height, : 2 * width], (width, height), interpolation=cv2.INTER_AREA)
    if picture.shape[:2] == (size_px, size_px):
        return picture
    return cv2.resize(picture, (size_px, size_px), interpolation=cv2.INTER_LINEAR)
