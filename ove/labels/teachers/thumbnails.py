"""The teacher `thumbnails`: coarse appearance and changes of a clip, without weights.

An offline stand-in: near-duplicates and clips with similar changes come out close, enough to run and test all later steps. It
knows nothing of meaning (spec §5).
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
"""Sides of the thumbnail of a frame, of the thumbnail for changes, and of the window cropped from it."""
IMAGE_PX = 12
"""Side of the thumbnail of a single picture."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""


def thumbnails(frames: UInt8[np.ndarray, "T S S 3"]) -> Float32[np.ndarray, "E"]:
    """Returns the embedding of a clip, of length 1: E = 8 · (3 · 6² + 16²).

    Each of 8 equal intervals gives the RGB thumbnail of its first frame, and the luma difference between the median of the
    frames around and the frame farthest from it, in a window around the difference's centre (so that the place does not
    matter). Intervals are ordered by the size of their difference, largest first (so that the time does not matter). Thumbnails
    are L2-normalised singly, differences together, and the concatenation of the two, equally weighted, again. ConfigError for
    fewer than 8 frames; uniform black frames give zeros.
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
    """Returns the embedding of a picture, of length 1: its thumbnail less the mean, E = 3 · side_px²; zeros if uniform."""
    look = _shrink(frame[None], side_px)
    return unit((look - look.mean(axis=(1, 2), keepdims=True)).reshape(1, -1))[0]


def _shrink(frames: UInt8[np.ndarray, "T H W 3"], side_px: int) -> Float32[np.ndarray, "T s s 3"]:
    """Returns area means, computed at once on vertically stacked frames; frame borders fall on cell borders."""
    count, height, width = frames.shape[:3]
    stacked = np.ascontiguousarray(rearrange(frames, "t h w c -> (t h) w c"))
    if height % 4 == 0 and width % 4 == 0 and min(height, width) > 4 * side_px:
        # An integer factor in bytes is fast; its rounding averages out in the second step.
        stacked = cv2.resize(stacked, (width // 4, count * height // 4), interpolation=cv2.INTER_AREA)
    small = cv2.resize(stacked.astype(np.float32), (side_px, count * side_px), interpolation=cv2.INTER_AREA)
    return rearrange(small, "(t h) w c -> t h w c", t=count)


def _change(luma: Float32[np.ndarray, "T h w"], start: int, end: int) -> Float32[np.ndarray, "h w"]:
    """Returns the frame of start…end − 1 farthest from the median around them, less that median."""
    around = max(1, (end - start) // 2)
    median = np.median(luma[max(0, start - around) : end + around], axis=0)
    differences = luma[start:end] - median
    return differences[np.square(differences).sum(axis=(1, 2)).argmax()].astype(np.float32)


def _window(change: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "s s"]:
    """Crops 16×16 around the centre of gravity of the change, zeros beyond the border."""
    weight = np.square(change)
    total = weight.sum()
    if total == 0:
        return np.zeros((WINDOW_PX, WINDOW_PX), np.float32)
    y, x = (int(np.floor(float((weight * axis).sum()) / total + 0.5)) for axis in np.indices(change.shape))
    return np.pad(change, WINDOW_PX // 2)[y : y + WINDOW_PX, x : x + WINDOW_PX]
