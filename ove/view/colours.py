"""Signals as colours: motion by a colour wheel, residual and saliency as heat, and kept patches bright among the others."""

import cv2
import numpy as np
from jaxtyping import Bool, Float, Int, UInt8
from matplotlib import colormaps

HEAT = "inferno"
UNKNOWN_COLOUR = (150, 150, 150)
"""Of cells without a vector."""
OUTLINE = (255, 214, 0)
_DIMMED = 0.28


def motion_colours(
    motion: Float[np.ndarray, "h w 2"], has_vector: Bool[np.ndarray, "h w"], fastest_px: float
) -> UInt8[np.ndarray, "h w 3"]:
    """Colours each cell by direction (hue) and speed (saturation): white is still, full colour moves `fastest_px` or more.

    Right is red, down yellow-green, left cyan, up violet; cells without a vector are gray.
    """
    speed = np.hypot(motion[..., 0], motion[..., 1])
    hue = np.mod(np.arctan2(motion[..., 1], motion[..., 0]), 2 * np.pi) * (180 / (2 * np.pi))
    strength = np.clip(speed / fastest_px, 0, 1)
    hsv = np.stack([hue, 255 * strength, 255 - 45 * strength], axis=-1)
    colours = cv2.cvtColor(np.rint(hsv).astype(np.uint8), cv2.COLOR_HSV2RGB)
    return np.where(has_vector[..., None], colours, np.array(UNKNOWN_COLOUR, np.uint8)).astype(np.uint8)


def wheel(side_px: int) -> UInt8[np.ndarray, "side_px side_px 3"]:
    """Returns the legend of `motion_colours`: a disc in which the offset from the centre is the motion; white around it."""
    across = np.linspace(-1, 1, side_px)
    motion = np.stack(np.meshgrid(across, across), axis=-1)
    inside = np.hypot(motion[..., 0], motion[..., 1]) <= 1
    colours = motion_colours(motion, inside, 1.0)
    return np.where(inside[..., None], colours, np.uint8(255)).astype(np.uint8)


def heat(values: Float[np.ndarray, "h w"]) -> UInt8[np.ndarray, "h w 3"]:
    """Colours 0 black to 1 (and more) pale yellow."""
    return np.rint(colormaps[HEAT](np.clip(values, 0, 1))[..., :3] * 255).astype(np.uint8)


def scaled(picture: UInt8[np.ndarray, "h w 3"], shape: tuple[int, int], smooth: bool) -> UInt8[np.ndarray, "H W 3"]:
    """Stretches the picture to `shape` = (rows, columns); without `smooth`, enlarged pixels stay sharp."""
    grows = picture.shape[0] < shape[0] or picture.shape[1] < shape[1]
    how = (cv2.INTER_LINEAR if smooth else cv2.INTER_NEAREST) if grows else cv2.INTER_AREA
    return cv2.resize(picture, shape[::-1], interpolation=how)


def kept(
    frame: UInt8[np.ndarray, "S S 3"], chosen: Bool[np.ndarray, "Y X"], side_px: int
) -> UInt8[np.ndarray, "side_px side_px 3"]:
    """Returns a frame, dark and gray where it is not chosen, with a yellow line between the two."""
    big = scaled(frame, (side_px, side_px), smooth=True)
    mask = cv2.resize(chosen.astype(np.uint8), (side_px, side_px), interpolation=cv2.INTER_NEAREST).astype(bool)
    gray = cv2.cvtColor(big, cv2.COLOR_RGB2GRAY)[..., None]
    picture = np.where(mask[..., None], big, (gray * _DIMMED).astype(np.uint8))
    if not mask.all():
        # The line: chosen pixels with a neighbour that is not.
        inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
        picture[mask & ~inner] = OUTLINE
    return picture


def masks(flat: Int[np.ndarray, "N"], grid_tyx: tuple[int, int, int]) -> Bool[np.ndarray, "T Y X"]:
    """Returns flat indices of patches as a mask."""
    mask = np.zeros(int(np.prod(grid_tyx)), bool)
    mask[flat] = True
    return mask.reshape(grid_tyx)
