"""The teacher `thumbnails`: what a clip looks like and what changes in it, coarsely, without any weights.

It is an honest offline stand-in: near-duplicates and clips with like changes come out close, which is enough to run and test
all that follows. It knows nothing of meaning; teachers with weights are another matter (spec §5).
"""

import itertools

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8

from ove.errors import ConfigError
from ove.labels.clusters.points import unit

INTERVALS = 8
"""Uniform frames of a clip (paper: 8 frames, each L2-normalised, concatenated, L2-normalised)."""
LOOK_PX = 6
CHANGE_PX = 28
WINDOW_PX = 16
"""Sides of the thumbnail of a frame, of the thumbnail on which changes are looked for, and of the window cut out of it."""
IMAGE_PX = 12
"""Side of the thumbnail of a single picture."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""


def thumbnails(frames: UInt8[np.ndarray, "T S S 3"]) -> Float32[np.ndarray, "E"]:
    """The embedding of a clip, of length 1: E = 8 · (3 · 6² + 16²).

    The frames fall into 8 equal intervals. Each gives the RGB thumbnail of its first frame and a temporal difference: of its
    frame that differs most from the median of the frames around, that difference in luma, in a window around its centre
    (so that the same change looks the same wherever it happens). The intervals are put in order of how much they differ, most
    first (so that it looks the same whenever it happens). The looks are L2-normalised each, the differences together, for how
    strong each is says which had the news; both parts weigh the same in the whole, which is L2-normalised. Fewer than 8
    frames raise ConfigError; a clip of uniform black frames gives zeros.
    """
    if len(frames) < INTERVALS:
        raise ConfigError(f"the teacher thumbnails needs at least {INTERVALS} frames a clip, not {len(frames)}.")
    edges = np.linspace(0, len(frames), INTERVALS + 1).astype(int).tolist()
    luma_THW = _shrink(frames, CHANGE_PX) @ _LUMA
    changes = [_change(luma_THW, start, end) for start, end in itertools.pairwise(edges)]
    order = np.argsort([-np.square(change).sum() for change in changes], kind="stable")
    looks = unit(rearrange(_shrink(frames[edges[:-1]][order], LOOK_PX), "i h w c -> i (h w c)"))
    windows = np.concatenate([_window(changes[i]).ravel() for i in order])
    return unit(np.concatenate([unit(looks.reshape(1, -1)), unit(windows[None])], axis=1))[0]


def thumbnail_image(frame: UInt8[np.ndarray, "H W 3"], side_px: int = IMAGE_PX) -> Float32[np.ndarray, "E"]:
    """The embedding of a single picture, of length 1: its thumbnail less its mean; E = 3 · side_px². Zeros if it is uniform."""
    look = _shrink(frame[None], side_px)
    return unit((look - look.mean(axis=(1, 2), keepdims=True)).reshape(1, -1))[0]


def _shrink(frames: UInt8[np.ndarray, "T H W 3"], side_px: int) -> Float32[np.ndarray, "T s s 3"]:
    """Area means of all frames in one go: stacked on top of each other, for frame borders fall on cell borders."""
    count, height, width = frames.shape[:3]
    stacked = np.ascontiguousarray(rearrange(frames, "t h w c -> (t h) w c"))
    if height % 4 == 0 and width % 4 == 0 and min(height, width) > 4 * side_px:
        # Whole-number steps in bytes are quick; what they round off averages out in the second step.
        stacked = cv2.resize(stacked, (width // 4, count * height // 4), interpolation=cv2.INTER_AREA)
    small = cv2.resize(stacked.astype(np.float32), (side_px, count * side_px), interpolation=cv2.INTER_AREA)
    return rearrange(small, "(t h) w c -> t h w c", t=count)


def _change(luma: Float32[np.ndarray, "T h w"], start: int, end: int) -> Float32[np.ndarray, "h w"]:
    """Of the frames start … end − 1 the one farthest from the median of the frames around, less that median."""
    around = max(1, (end - start) // 2)
    median = np.median(luma[max(0, start - around) : end + around], axis=0)
    differences = luma[start:end] - median
    return differences[np.square(differences).sum(axis=(1, 2)).argmax()].astype(np.float32)


def _window(change: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "s s"]:
    """The window of 16×16 around the centre of gravity of the change, zeros beyond the border."""
    weight = np.square(change)
    total = weight.sum()
    if total == 0:
        return np.zeros((WINDOW_PX, WINDOW_PX), np.float32)
    y, x = (int(np.floor(float((weight * axis).sum()) / total + 0.5)) for axis in np.indices(change.shape))
    return np.pad(change, WINDOW_PX // 2)[y : y + WINDOW_PX, x : x + WINDOW_PX]
