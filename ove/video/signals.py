"""Codec signals of the sampled frames, collected frame by frame while a video is decoded."""

from dataclasses import replace

import numpy as np
from av.video.frame import PictureType, VideoFrame
from einops import reduce, repeat
from jaxtyping import Bool, Float32, Int16

from ove.records import CELL_PX, CodecSignals
from ove.video.bitstream.coded import CodedPicture
from ove.video.bitstream.gray import GrayDecoder, gradient, gradient_into
from ove.video.motion import cells, coded_field, dense_field

_PAIR_CELLS = 4
"""Rows of cells in a pair of macroblocks."""


class SignalStack:
    """The signals of up to `capacity` frames of one size, in arrays allocated once: full-size residuals are large."""

    def __init__(self, capacity: int, residual_source: str = "bitstream", lists: str = "both") -> None:
        """`residual_source` is passed on to the signals; `lists` chooses vectors as in `dense_field`."""
        self._capacity, self._n, self._residual_source, self._lists = capacity, 0, residual_source, lists
        self._motion: Float32[np.ndarray, "T h w 2"] | None = None
        self._has_vector: Bool[np.ndarray, "T h w"]
        self._residual: Int16[np.ndarray, "T H W"]
        self._offset_px = (0, 0)

    def __len__(self) -> int:
        return self._n

    def add(self, frame: VideoFrame, packet: bytes, gray: GrayDecoder, coded: CodedPicture | None = None) -> None:
        """Adds a frame, its packet, and what its slice data tell; without that, it must be decoded with vectors exported.

        NoBitstreamSignals if it has no residual.
        """
        height, width, t = frame.height, frame.width, self._n
        top, left = gray.start_px(height, width)
        down, across = top % CELL_PX, left % CELL_PX
        if self._motion is None:
            self._offset_px = down, across
            field = (self._capacity, cells(down + height), cells(across + width))
            self._motion, self._has_vector = np.zeros((*field, 2), np.float32), np.zeros(field, bool)
            self._residual = np.empty((self._capacity, height, width), np.int16)
        if coded is not None:
            self._motion[t], self._has_vector[t] = coded_field(coded, self._lists, (top, left), (height, width))
            intra = ~self._has_vector[t]
        elif gray.has_vectors:
            # Of a pair cut by the crop, the hidden macroblock counts too.
            reach = height + -(top + height) % (_PAIR_CELLS * CELL_PX) if gray.mbaff else height
            motion, has_vector = dense_field(gray.vectors(frame, packet), reach, width, self._lists, (top, left))
            if gray.mbaff:
                has_vector = _whole_pairs(has_vector, top // CELL_PX)[: cells(down + height)]
                motion = np.where(has_vector[..., None], motion[: len(has_vector)], np.float32(0))
            self._motion[t], self._has_vector[t] = motion, has_vector
            intra = ~has_vector
        else:
            intra = np.full(self._has_vector.shape[1:], frame.pict_type == PictureType.I)
        if intra.all():
            self._residual[t] = gradient(frame)
        else:
            gray.residual_into(self._residual[t], frame, packet)
            if intra.any():
                gradient_into(self._residual[t], frame, intra, self._offset_px)
        self._n += 1

    def clear(self) -> None:
        """Forgets the frames added, whose arrays are written again."""
        self._n = 0

    def signals(self) -> CodecSignals:
        """Returns the signals of the frames added, as views."""
        assert self._motion is not None
        motion, has_vector, residual = (array[: self._n] for array in (self._motion, self._has_vector, self._residual))
        return CodecSignals(motion, has_vector, residual, cell_offset_px=self._offset_px, residual_source=self._residual_source)


def with_residual_of(vectors: CodecSignals, residual: CodecSignals) -> CodecSignals:
    """Combines the vectors of a transcode, resampled and scaled to the residual's picture, with that residual.

    Both show the same frames, at different sizes and maybe stretched. A cell gets the vector of the transcode's cell under its
    centre.
    """
    small, large = vectors.residual.shape[1:], residual.residual.shape[1:]
    rows, columns = (
        np.minimum((np.arange(cells(to)) * CELL_PX + CELL_PX // 2) * since // (to * CELL_PX), cells(since) - 1)
        for since, to in zip(small, large, strict=True)
    )
    scale = np.array([large[1] / small[1], large[0] / small[0]], np.float32)
    return replace(
        vectors,
        motion=vectors.motion[:, rows][:, :, columns] * scale,
        has_vector=vectors.has_vector[:, rows][:, :, columns],
        residual=residual.residual,
        residual_exact=residual.residual_exact,
        residual_source=residual.residual_source,
    )


def _whole_pairs(has_vector: Bool[np.ndarray, "h w"], first_row: int) -> Bool[np.ndarray, "h w"]:
    """Returns the cells with vectors, without those of macroblock pairs of which only one has some.

    FFmpeg exports the vectors of a pair as if one macroblock lay above the other, also where their lines alternate.
    `first_row`: of the cells, in the coded picture; the last row ends a pair.
    """
    before = first_row % _PAIR_CELLS
    padded = np.pad(has_vector, ((before, 0), (0, 0)), mode="edge")
    whole = reduce(padded, "(y a) w -> y w", "min", a=_PAIR_CELLS)
    return repeat(whole, "y w -> (y a) w", a=_PAIR_CELLS)[before:]
