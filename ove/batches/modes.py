"""Who sees what: codec, frames, tiling and image turn one stored record into tokens of the same layout (spec §2)."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from fractions import Fraction

import cv2
import numpy as np
from jaxtyping import Int32, UInt8

from ove.batches.patches import gather, on_time_grid, patchify, positions
from ove.errors import ConfigError
from ove.shards.schema import VideoRecord, decode_frames
from ove.video.select import i_frame_flags, select

MODES = ("codec", "frames", "tiling", "image")
CODEC, FRAMES, TILING, IMAGE = range(4)

CROP_AREA = (0.7, 1.0)
CROP_ASPECT = (0.8, 1.25)
FLIP = 0.5
"""Augmentation of images in training (spec §4)."""


@dataclass(frozen=True)
class View:
    """How records become tokens."""

    budget_tokens: int
    gop_frames: int
    iframe_policy: str

    def frames_of_budget(self, grid_tyx: tuple[int, int, int]) -> int:
        """Whole frames that the budget pays for; ConfigError if it is not a whole number, or more than there are."""
        n_frames, rows, columns = grid_tyx
        whole, rest = divmod(self.budget_tokens, rows * columns)
        if rest or not 1 <= whole <= n_frames:
            raise ConfigError(
                f"budget_tokens = {self.budget_tokens} is not 1 to {n_frames} times the {rows * columns} patches of a frame, "
                "which the modes frames and tiling need."
            )
        return whole

    def check(self, grid_tyx: tuple[int, int, int], modes: Collection[int]) -> None:
        """ConfigError if the budget does not fit clips of this grid in one of the modes."""
        if CODEC in modes:
            flags = i_frame_flags(grid_tyx[0], self.gop_frames)
            select(np.zeros(grid_tyx, np.float32), flags, self.budget_tokens, self.iframe_policy)
        if FRAMES in modes or TILING in modes:
            self.frames_of_budget(grid_tyx)


def see(
    record: VideoRecord, mode: int, view: View, rng: np.random.Generator | None
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]:
    """The patches and (t, y, x) positions of a record in a mode; without `rng` nothing is random (evaluation).

    BadShard if a frame that the mode needs cannot be decoded, ConfigError if the budget does not fit the clip.
    """
    modes: Sequence[Callable] = (_codec, _frames, _tiling, _image)
    return modes[mode](record, view, rng)


def schedule(shares: Sequence[float]) -> tuple[int, ...]:
    """A repeating pattern of modes in exactly these shares (as fractions with denominators up to 64), spread evenly."""
    parts = [Fraction(share).limit_denominator(64) for share in shares]
    length = int(np.lcm.reduce([p.denominator for p in parts]))
    if sum(parts) != 1:
        raise ConfigError(f"shares of modes {tuple(shares)} must be fractions with denominators up to 64 that sum to 1.")
    taken = [Fraction(0)] * len(parts)
    pattern = []
    for step in range(1, length + 1):
        mode = max(range(len(parts)), key=lambda m: (parts[m] * step - taken[m], -m))
        taken[mode] += 1
        pattern.append(mode)
    return tuple(pattern)


def _codec(record: VideoRecord, view: View, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """I-frames whole and the most surprising patches of the others, in flat order."""
    scores = record.saliency.astype(np.float32)
    flags = i_frame_flags(len(scores), view.gop_frames)
    chosen = select(scores, flags, view.budget_tokens, view.iframe_policy)
    tyx = positions(chosen.flat, chosen.grid_tyx)
    which, place = np.unique(tyx[:, 0], return_inverse=True)
    frames = decode_frames(record, which.tolist())
    _, rows, columns = chosen.grid_tyx
    flat_in_decoded = place * (rows * columns) + chosen.flat % (rows * columns)
    tyx[:, 0] = on_time_grid(tyx[:, 0], len(scores))
    return gather(frames, flat_in_decoded, record.patch_px), tyx


def _chunk_frames(record: VideoRecord, view: View, rng: np.random.Generator | None) -> np.ndarray:
    """One frame out of each of the equal chunks: at random, or the middle one in evaluation."""
    n_frames = record.saliency.shape[0]
    edges = np.linspace(0, n_frames, view.frames_of_budget(record.saliency.shape) + 1)
    within = 0.5 if rng is None else rng.uniform(size=len(edges) - 1)
    return np.minimum((edges[:-1] + within * np.diff(edges)).astype(np.int64), n_frames - 1)


def _frames(record: VideoRecord, view: View, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """Whole frames at their true times."""
    n_frames, rows, columns = record.saliency.shape
    which = _chunk_frames(record, view, rng)
    tyx = positions(np.arange(len(which) * rows * columns), (len(which), rows, columns))
    tyx[:, 0] = on_time_grid(which, n_frames)[tyx[:, 0]]
    return patchify(decode_frames(record, which.tolist()), record.patch_px), tyx


def _tiling(record: VideoRecord, view: View, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """The same frames as one tall image: t = 0, rows counted on."""
    _, rows, columns = record.saliency.shape
    which = _chunk_frames(record, view, rng)
    tyx = positions(np.arange(len(which) * rows * columns), (1, len(which) * rows, columns))
    return patchify(decode_frames(record, which.tolist()), record.patch_px), tyx


def _image(record: VideoRecord, view: View, rng: np.random.Generator | None) -> tuple[np.ndarray, np.ndarray]:
    """The clip's middle frame; in training a random crop of it, mirrored half of the time."""
    n_frames, rows, columns = record.saliency.shape
    frame = decode_frames(record, [n_frames // 2])[0]
    if rng is not None:
        frame = _augmented(frame, rng)
    return patchify(frame[None], record.patch_px), positions(np.arange(rows * columns), (1, rows, columns))


def _augmented(frame: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    side = frame.shape[0]
    area = rng.uniform(*CROP_AREA)
    aspect = np.exp(rng.uniform(*np.log(CROP_ASPECT)))
    height = min(side, round(side * np.sqrt(area / aspect)))
    width = min(side, round(side * np.sqrt(area * aspect)))
    top, left = rng.integers(side - height + 1), rng.integers(side - width + 1)
    crop = cv2.resize(frame[top : top + height, left : left + width], (side, side), interpolation=cv2.INTER_LINEAR)
    return np.ascontiguousarray(crop[:, ::-1]) if rng.uniform() < FLIP else crop
