"""Signals of all frames between two sampled ones pooled, so that nothing between them is lost."""

from dataclasses import replace

import numpy as np
from jaxtyping import Bool, Float32, Int16

from ove.records import CodecSignals
from ove.video.motion import remove_camera


class SignalPool:
    """Signals pooled over intervals of frames: of each cell and each pixel the strongest.

    Motion is pooled without the camera's, which may differ from frame to frame. Intra-coded frames, whose residual is only the
    gradient of the picture, count only in an interval without others.
    """

    def __init__(self, compensation: str) -> None:
        """`compensation`: the model of the camera's motion (`remove_camera`)."""
        self._compensation = compensation
        self._like: CodecSignals | None = None
        self._interval: _Interval | None = None
        self._motion: list[Float32[np.ndarray, "h w 2"]] = []
        self._has_vector: list[Bool[np.ndarray, "h w"]] = []
        self._residual: list[Int16[np.ndarray, "H W"]] = []

    def add(self, signals: CodecSignals, intra: bool = False) -> None:
        """Adds frames to the current interval; `intra`: all of them are I-frames."""
        self._like = self._like or signals
        motion = remove_camera(signals.motion, signals.has_vector, self._compensation)
        for frame in zip(motion, signals.has_vector, signals.residual, strict=True):
            if self._interval is None or (self._interval.intra and not intra):
                self._interval = _Interval(frame[0].copy(), frame[1].copy(), frame[2].copy(), intra)
            elif not intra:
                self._interval.add(*frame)

    def close(self) -> None:
        """Ends the interval, to which at least one frame was added."""
        assert self._interval is not None
        self._motion.append(self._interval.motion)
        self._has_vector.append(self._interval.has_vector)
        self._residual.append(self._interval.residual)
        self._interval = None

    def clear(self) -> None:
        """Forgets the intervals ended so far."""
        self._motion, self._has_vector, self._residual = [], [], []

    def signals(self) -> CodecSignals:
        """Returns one frame for each interval."""
        assert self._like is not None
        motion, has_vector, residual = (np.stack(frames) for frames in (self._motion, self._has_vector, self._residual))
        return replace(self._like, motion=motion, has_vector=has_vector, residual=residual, camera_removed=True)


class _Interval:
    """The strongest signals so far."""

    def __init__(
        self,
        motion: Float32[np.ndarray, "h w 2"],
        has_vector: Bool[np.ndarray, "h w"],
        residual: Int16[np.ndarray, "H W"],
        intra: bool,
    ) -> None:
        self.motion, self.has_vector, self.residual, self.intra = motion, has_vector, residual, intra
        self._squared = np.square(motion).sum(axis=-1)
        self._strength = np.abs(residual)

    def add(
        self, motion: Float32[np.ndarray, "h w 2"], has_vector: Bool[np.ndarray, "h w"], residual: Int16[np.ndarray, "H W"]
    ) -> None:
        squared, strength = np.square(motion).sum(axis=-1), np.abs(residual)
        faster, stronger = squared > self._squared, strength > self._strength
        self._squared[faster], self.motion[faster] = squared[faster], motion[faster]
        np.copyto(self.residual, residual, where=stronger)
        np.maximum(self._strength, strength, out=self._strength)
        self.has_vector |= has_vector
