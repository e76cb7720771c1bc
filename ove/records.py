"""Frozen dataclasses of NumPy arrays that cross room borders; axes are named in docs/glossary.md.

T frames · H W pixels · h w cells of the motion field · Y X patch grid · N tokens · P values of a patch (14·14·3) ·
B samples · M labels of a sample.
"""

from dataclasses import dataclass
from typing import Literal, get_args

import numpy as np
from jaxtyping import Bool, Float, Float32, Int, Int16, Int32, Int64, Integer, UInt8

BankName = Literal["vid", "obj", "ocr"]
BANKS: tuple[BankName, ...] = get_args(BankName)
"""Whole clips; single pictures (of a set of videos the middle frame of each); pictures by the words in them."""
MODES = ("codec", "frames", "tiling", "image")
CODEC, FRAMES, TILING, IMAGE = range(4)
"""Ways of turning a record into tokens (spec §2), and their indices in `MODES`."""
TIME_STEPS = 64
"""Steps of the virtual time grid on which positions are counted (spec §1)."""
MEAN_RGB = (0.48145466, 0.4578275, 0.40821073)
STD_RGB = (0.26862954, 0.26130258, 0.27577711)
"""Of the pixels of natural images between 0 and 1, by which the encoder standardises its input (spec §4)."""
CELL_PX = 8
"""Side of one cell of a motion field, in pixels of the coded picture (FFmpeg exports one vector per 8×8 at the finest)."""


@dataclass(frozen=True)
class Clip:
    """The sampled frames of one video."""

    frames: UInt8[np.ndarray, "T S S 3"]
    """RGB, resized to a square of S pixels."""
    frame_index: Int32[np.ndarray, "T"]
    """Index of each frame among the decoded frames of the file, in display order; ascending, repeats in short videos."""
    pts_s: Float[np.ndarray, "T"]
    """Presentation time of each frame in seconds."""
    is_i_frame: Bool[np.ndarray, "T"]
    """Frames that the selection treats as I-frames: one every `gop_frames` sampled frames (not the stream's own I-frames)."""
    source: str
    """Where the signals come from: "bitstream" or "transcode"."""
    codec: str
    """FFmpeg's name of the file's codec, for example "h264"."""
    n_decoded: int
    """Number of frames that the file decodes to."""
    fps: float
    """Average frame rate of the stream; 0 where the container does not give one."""
    cut: str = ""
    """What was wrong with a damaged file of which the first frames were kept (`video.truncated` = "keep"); else empty."""
    valid: Bool[np.ndarray, "Y X"] | None = None
    """Letterboxed: patches that lie wholly within the picture; None: all."""


@dataclass(frozen=True)
class CodecSignals:
    """Codec signals of the U different sampled frames, at the size of the coded picture."""

    motion: Float32[np.ndarray, "U h w 2"]
    """(dx, dy): by how many pixels the content of each 8×8 cell has moved since its reference frame; 0 where no vector is."""
    has_vector: Bool[np.ndarray, "U h w"]
    """Cells with a motion vector; the others are intra-coded."""
    residual: Int16[np.ndarray, "U H W"]
    """Luma residual, −128…127 on inter-coded pixels; in intra-coded cells the gradient magnitude of the decoded luma."""
    residual_exact: bool = True
    """False where the residual of inter-coded pixels may be off by more than rounding and saturation (docs/codec.md)."""
    residual_source: str = "bitstream"
    """Where the residual comes from: "bitstream" or "transcode"; `Clip.source` says it of the vectors."""
    cell_offset_px: tuple[int, int] = (0, 0)
    """(down, across): pixels of the first row and column of cells outside the picture (if turned or cropped)."""
    camera_removed: bool = False
    """True if `motion` is pooled over frames, each without the camera's (`video.sampling` = "pool")."""
    order: Int[np.ndarray, "T"] | None = None
    """Which of the U each sampled frame is, ascending; repeats in short videos. None: T = U."""

    def of_frames(self, frames: Int[np.ndarray, "n"]) -> Int[np.ndarray, "n"]:
        """Returns where the signals of sampled frames (0…T−1) are."""
        return frames if self.order is None else self.order[frames]


@dataclass(frozen=True)
class Saliency:
    """The score of each patch."""

    scores: Float32[np.ndarray, "T Y X"]
    """0 (as predicted) … 1 (all new); −1 on patches that are not valid."""
    valid: Bool[np.ndarray, "Y X"] | None = None
    """Letterboxed: patches that lie wholly within the picture; None: all."""
    frame_index: Int[np.ndarray, "T"] | None = None
    """Ascending; equal numbers are copies of one frame of a short video. None: all differ."""


@dataclass(frozen=True)
class Selection:
    """The patches of a clip that an encoder sees."""

    flat: Int32[np.ndarray, "N"]
    """t·Y·X + y·X + x, ascending, without repeats."""
    grid_tyx: tuple[int, int, int]
    """(T, Y, X)."""


@dataclass(frozen=True)
class Batch:
    """Samples of one bank, all of one length."""

    patches: UInt8[np.ndarray, "B N P"]
    """Flattened as (row, column, channel), RGB."""
    positions: Int32[np.ndarray, "B N 3"]
    """(t, y, x) in patches; t on the 64-step time grid."""
    labels: Int32[np.ndarray, "B M"]
    """Class centers of each sample in the bank, nearest first; −1: none."""
    mode: Int32[np.ndarray, "B"]
    """Index into `MODES`."""
    replaced: Bool[np.ndarray, "B"]
    """True if another record replaced the one drawn, which could not be used."""
    source: Int32[np.ndarray, "B"]
    """Which of the head's shard sets each record is from."""
    record: Int64[np.ndarray, "B"]
    """Index of each record in its shard set."""


def on_time_grid(frame: Integer[np.ndarray, "..."], n_frames: int) -> Int32[np.ndarray, "..."]:
    """Index of a sampled frame among `n_frames` → step on the 64-step time grid, clamp(round(i / (n − 1) · 63), 0, 63)."""
    steps = np.rint(np.asarray(frame) * ((TIME_STEPS - 1) / max(n_frames - 1, 1)))
    return np.clip(steps, 0, TIME_STEPS - 1).astype(np.int32)
