"""The teacher `thumbnails`: what a clip looks like and what changes in it, coarsely, without any weights.

It is an honest offline stand-in: near-duplicates and clips with like colours and like changes come out close, which is enough
to run and test all that follows. It knows nothing of meaning; teachers with weights are another matter (spec §5).
"""

import itertools

import cv2
import numpy as np
from einops import rearrange
from jaxtyping import Float32, UInt8

from ove.errors import ConfigError

INTERVALS = 8
"""Uniform frames of a clip (paper: 8 frames, each L2-normalised, concatenated, L2-normalised)."""
THUMBNAIL_PX = 12
_LUMA = np.array([0.299, 0.587, 0.114], np.float32)
"""BT.601 weights of R, G, B."""


def thumbnails(
    frames: UInt8[np.ndarray, "T S S 3"],
    side_px: int = THUMBNAIL_PX,
    w_motion: float = 1.0,
) -> Float32[np.ndarray, "E"]:
    """The embedding of a clip, of length 1: E = 8 · (3 + 1) · side_px².

    The frames fall into 8 equal intervals. Each gives (a) the thumbnail of its first frame, less its mean, L2-normalised, and
    (b) at each place the largest signed step of luma between two frames in a row, up to the first frame of the next interval,
    L2-normalised, times `w_motion`. Both together are L2-normalised, the 8 concatenated and normalised again. What is uniform
    in (a) or still in (b) gives zeros there. Fewer than 8 frames raise ConfigError.
    """
    if len(frames) < INTERVALS:
        raise ConfigError(f"the teacher thumbnails needs at least {INTERVALS} frames a clip, not {len(frames)}.")
    small_THWC = _shrink(frames, side_px)
    starts = np.linspace(0, len(frames), INTERVALS + 1).astype(int)
    looks = small_THWC[starts[:-1]]
    looks = rearrange(looks - looks.mean(axis=(1, 2), keepdims=True), "i h w c -> i (h w c)")
    steps_THW = np.diff(small_THWC @ _LUMA, axis=0)
    events = np.stack([_largest(steps_THW[a:b]) for a, b in itertools.pairwise(starts)])
    events = rearrange(events, "i h w -> i (h w)")
    per_interval = _unit(np.concatenate([_unit(looks), w_motion * _unit(events)], axis=1))
    return _unit(per_interval.reshape(1, -1))[0]


def thumbnail_image(frame: UInt8[np.ndarray, "S S 3"], side_px: int = THUMBNAIL_PX) -> Float32[np.ndarray, "E"]:
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


def _unit(rows: Float32[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    """Rows of length 1; rows of zeros stay."""
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return (rows / np.where(length > 0, length, 1)).astype(np.float32)
