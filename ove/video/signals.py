"""What the codec knows about the sampled frames, gathered frame by frame while a video is decoded."""

import numpy as np
from av.video.frame import VideoFrame
from jaxtyping import Bool, Float32, Int, Int16

from ove.records import CodecSignals
from ove.video.motion import cells, dense_field
from ove.video.residual import GrayDecoder, residual_into


class SignalStack:
    """The signals of up to `capacity` frames of one size, in arrays that exist once: full-size residuals are large."""

    def __init__(self, capacity: int) -> None:
        self._capacity, self._n = capacity, 0
        self._motion: Float32[np.ndarray, "T h w 2"] | None = None
        self._has_vector: Bool[np.ndarray, "T h w"]
        self._residual: Int16[np.ndarray, "T H W"]
        self._exact = True

    def __len__(self) -> int:
        return self._n

    def add(self, frame: VideoFrame, packet: bytes, gray: GrayDecoder) -> None:
        """Adds a frame that was decoded with vectors exported, given its packet; CannotIsolate where it has no residual."""
        height, width, t = frame.height, frame.width, self._n
        if self._motion is None:
            field = (self._capacity, cells(height), cells(width))
            self._motion, self._has_vector = np.empty((*field, 2), np.float32), np.empty(field, bool)
            self._residual = np.empty((self._capacity, height, width), np.int16)
        vectors = frame.side_data.get("MOTION_VECTORS")
        self._motion[t], self._has_vector[t] = dense_field(None if vectors is None else vectors.to_ndarray(), height, width)
        residual_into(self._residual[t], frame, packet, self._has_vector[t], gray)
        self._exact &= not gray.weighted
        self._n += 1

    def signals(self, order: Int[np.ndarray, "T"], quarter_turns: int = 0) -> CodecSignals:
        """The signals in the given order of frames (indices may repeat), turned counter-clockwise by so many quarters."""
        assert self._motion is not None
        as_they_are = len(order) == self._n == self._capacity and bool((np.diff(order) == 1).all())
        motion, has_vector, residual = (
            np.rot90(array if as_they_are else array[order], quarter_turns, axes=(1, 2))
            for array in (self._motion, self._has_vector, self._residual)
        )
        for _ in range(quarter_turns % 4):
            # With y downwards, what went right goes up after a quarter turn, and what went down goes right.
            motion = np.stack([motion[..., 1], -motion[..., 0]], axis=-1)
        return CodecSignals(motion, has_vector, residual, self._exact)
