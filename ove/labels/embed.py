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

INTERVALS = 8
"""Uniform frames of a clip (paper: 8 frames, each L2-normalised, concatenated, L2-normalised)."""
LOOK_PX = 6
CHANGE_PX = 28
WINDOW_PX = 14
"""Sides of the thumbnail of a frame, of the thumbnail on which changes are looked for, and of the window cut out of it."""
IMAGE_PX = 12
"""Side of the thumbnail of a single picture."""
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""


def thumbnails(frames: UInt8[np.ndarray, "T S S 3"]) -> Float32[np.ndarray, "E"]:
    """The embedding of a clip, of length 1: E = 8 · (3 · 6² + 14²).

    The frames fall into 8 equal intervals. Each gives the RGB thumbnail of its first frame, L2-normalised, and its temporal
    difference: at each place the largest signed step of luma between two frames in a row, up to the first frame of the next
    interval, in a window around the place where most changes (so that the same change has the same look wherever it
    happens). The 8 differences are L2-normalised together, for how strong each is says which interval had the news; the 8
    looks together weigh as much. All is concatenated and L2-normalised. Fewer than 8 frames raise ConfigError.
    """
    if len(frames) < INTERVALS:
        raise ConfigError(f"the teacher thumbnails needs at least {INTERVALS} frames a clip, not {len(frames)}.")
    starts = np.linspace(0, len(frames), INTERVALS + 1).astype(int)
    looks = _unit(rearrange(_shrink(frames[starts[:-1]], LOOK_PX), "i h w c -> i (h w c)"))
    steps_THW = np.diff(_shrink(frames, CHANGE_PX) @ _LUMA, axis=0)
    changes = np.concatenate([_window(_largest(steps_THW[a:b])).ravel() for a, b in itertools.pairwise(starts)])
    return _unit(np.concatenate([_unit(looks.reshape(1, -1)), _unit(changes[None])], axis=1))[0]


def thumbnail_image(frame: UInt8[np.ndarray, "S S 3"], side_px: int = IMAGE_PX) -> Float32[np.ndarray, "E"]:
    """The embedding of a single picture, of length 1: its thumbnail less its mean; E = 3 · side_px². Zeros if it is uniform."""
    look = _shrink(frame[None], side_px)
    return _unit((look - look.mean(axis=(1, 2), keepdims=True)).reshape(1, -1))[0]


def _shrink(frames: UInt8[np.ndarray, "T S S 3"], side_px: int) -> Float32[np.ndarray, "T s s 3"]:
    """Area means of all frames in one go: stacked on top of each other, for frame borders fall on cell borders."""
    count, size = frames.shape[:2]
    stacked = np.ascontiguousarray(rearrange(frames, "t h w c -> (t h) w c"))
    if size % 4 == 0 and size > 4 * side_px:
        # Whole-number steps in bytes are quick; what they round off averages out in the second step.
        stacked = cv2.resize(stacked, (size // 4, count * size // 4), interpolation=cv2.INTER_AREA)
    small = cv2.resize(stacked.astype(np.float32), (side_px, count * side_px), interpolation=cv2.INTER_AREA)
    return rearrange(small, "(t h) w c -> t h w c", t=count)


def _largest(steps: Float32[np.ndarray, "n h w"]) -> Float32[np.ndarray, "h w"]:
    """At each place the step that is largest in magnitude, with its sign; 0 where there is no step at all."""
    if len(steps) == 0:
        return np.zeros(steps.shape[1:], np.float32)
    up, down = steps.max(axis=0), steps.min(axis=0)
    return np.where(up >= -down, up, down)


def _window(change: Float32[np.ndarray, "h w"]) -> Float32[np.ndarray, "s s"]:
    """The window of 14×14 around the place where most changes, zeros beyond the border."""
    blurred = cv2.blur(np.abs(change), (WINDOW_PX // 2, WINDOW_PX // 2))
    y, x = np.unravel_index(blurred.argmax(), change.shape)
    return np.pad(change, WINDOW_PX // 2)[y : y + WINDOW_PX, x : x + WINDOW_PX]


def _unit(rows: Float32[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    """Rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
