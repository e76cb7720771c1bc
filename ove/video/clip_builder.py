"""Collects the sampled pictures of a video while it is decoded, and their signals or those of all frames in between."""

from dataclasses import replace
from typing import Any

import numpy as np
from av.video.frame import PictureType, VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from ove.config import VideoConfig
from ove.records import CodecSignals, Saliency
from ove.video.bitstream.coded import NoVectors
from ove.video.bitstream.gray import GrayDecoder
from ove.video.demux import DecodedFrame
from ove.video.geometry import Orientation, content, orientation_of, turned_signals
from ove.video.pooling import SignalPool
from ove.video.saliency import ClipScales, saliency, scores_frames_alone
from ove.video.signals import SignalStack, with_residual_of
from ove.video.transcode import transcoded_signals

_MOST_KEPT_BYTES = 1 << 28
"""Of the residuals of a clip, where scores depend on all of them."""


class ClipBuilder:
    """The sampled frames of one pass over a file, each once, and their own signals."""

    def __init__(
        self,
        config: VideoConfig,
        gray: GrayDecoder | None,
        n_sampled: int,
        only_scores: bool = False,
        scales: ClipScales | None = None,
        reads_slices: bool = False,
    ) -> None:
        """Takes signals from the bitstream with `gray`; from a transcode without it, or where it has no vectors.

        `reads_slices`: frames come with what their slice data tell, instead of vectors that the decoder exports.

        With `only_scores` there are `scores` instead of `signals`, which are dropped frame by frame where that is possible:
        residuals have the size of the coded picture. Where scores depend on all frames, and these are large, this takes two
        passes: of the first there are `measured` scales alone, which the builder of the second is given as `scales`.
        """
        self.config, self.gray = config, gray
        self.pictures: list[UInt8[np.ndarray, "rows columns 3"]] = []
        """Turned as shown, at their size in the clip, without padding."""
        self.times_s: list[float | None] = []
        """Of all frames, sampled or not."""
        self._reads_slices = reads_slices
        self.has_vectors = gray is not None and (gray.has_vectors or reads_slices)
        self._orientation = Orientation()
        self._to_rgb = VideoReformatter()
        self.measured: ClipScales | None = None
        self._n_sampled, self._scales = n_sampled, scales
        self._may_drop = only_scores and self.has_vectors and scores_frames_alone(config)
        self._drops = self._may_drop and (config.percentile_scope == "frame" or scales is not None)
        self._scored: list[Saliency] = []
        self._stack = self._new_stack()

    def add(self, decoded: DecodedFrame, sampled: bool) -> None:
        """Adds the next frame; NoBitstreamSignals if it needs a residual or vectors and has none."""
        if self._reads_slices and decoded.coded is None:
            raise NoVectors("a frame of it is shown whose picture is not read")
        self.times_s.append(decoded.time_s)
        if self.gray is not None:
            self.gray.observe(decoded.packet, decoded.header)
        if sampled:
            self.pictures.append(self._picture(decoded.frame))
        self._add_signals(decoded, sampled)

    def skip(self, decoded: DecodedFrame) -> None:
        """Skips a frame before the first that may be sampled."""
        if self.gray is not None:
            self.gray.observe(decoded.packet, decoded.header)

    def signals(self) -> CodecSignals:
        """Returns the signals of the sampled frames, each once, turned as shown."""
        if self.gray is None:
            return self._transcoded()
        signals = turned_signals(self._of_bitstream(), self._orientation)
        return signals if self.has_vectors else with_residual_of(self._transcoded(), signals)

    def scores(self) -> Saliency:
        """Returns the scores of the sampled frames, each once."""
        if not self._drops:
            return saliency(self.signals(), self.config)
        return replace(self._scored[0], scores=np.concatenate([frame.scores for frame in self._scored]))

    def _new_stack(self) -> SignalStack:
        return SignalStack(1 if self._drops else self._n_sampled, lists=self.config.vectors)

    def _decide(self, frame: VideoFrame) -> None:
        """Drops signals, once the size of frames is known, if those of all sampled ones would take too much."""
        if self._may_drop and not self._drops and 2 * self._n_sampled * frame.height * frame.width > _MOST_KEPT_BYTES:
            self._drops, self.measured = True, ClipScales(self.config)
            self._stack = self._new_stack()

    def _add_signals(self, decoded: DecodedFrame, sampled: bool) -> None:
        self._decide(decoded.frame)
        if sampled and self.gray is not None:
            self._stack.add(decoded.frame, decoded.packet, self.gray, decoded.coded)
            if self._drops:
                self._score(self._stack.signals())
                self._stack.clear()

    def _score(self, signals: CodecSignals) -> None:
        turned = turned_signals(signals, self._orientation)
        if self.measured is not None:
            self.measured.add(turned)
        else:
            self._scored.append(saliency(turned, self.config, self._scales))

    def _of_bitstream(self) -> CodecSignals:
        return self._stack.signals()

    def _transcoded(self) -> CodecSignals:
        return transcoded_signals(np.stack(self.pictures), self.config.selection.gop_frames).signals()

    def _picture(self, frame: VideoFrame) -> UInt8[np.ndarray, "rows columns 3"]:
        self._orientation = orientation_of(frame)
        rgb = self._to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
        return content(rgb, self.config.size_px, self.config.geometry, self._orientation)


class PooledClipBuilder(ClipBuilder):
    """The sampled frames, and the signals of all frames since the sampled one before, pooled."""

    def __init__(self, config: VideoConfig, *given: Any, **options: Any) -> None:
        super().__init__(config, *given, **options)
        self._pool, self._pool_of_transcodes = SignalPool(config.compensation), SignalPool(config.compensation)
        self._between: list[UInt8[np.ndarray, "rows columns 3"]] = []
        """The pictures since the last sampled one, and that one."""

    def _add_signals(self, decoded: DecodedFrame, sampled: bool) -> None:
        self._decide(decoded.frame)
        if self.gray is not None:
            one = SignalStack(1, lists=self.config.vectors)
            one.add(decoded.frame, decoded.packet, self.gray, decoded.coded)
            self._pool.add(one.signals(), intra=decoded.frame.pict_type == PictureType.I)
            if sampled:
                self._pool.close()
                if self._drops:
                    self._score(self._pool.signals())
                    self._pool.clear()
        if not self.has_vectors:
            self._between.append(self.pictures[-1] if sampled else self._picture(decoded.frame))
            if sampled:
                self._close_transcode()

    def _close_transcode(self) -> None:
        """Transcodes the pictures of an interval, each predicted from the one before, the first from the last sampled one."""
        stack = transcoded_signals(np.stack(self._between), len(self._between))
        first = len(self.pictures) == 1
        signals = stack.signals()
        if not first:
            after = {name: getattr(signals, name)[1:] for name in ("motion", "has_vector", "residual")}
            signals = replace(signals, **after)
        self._pool_of_transcodes.add(signals, intra=first)
        self._pool_of_transcodes.close()
        self._between = [self.pictures[-1]]

    def _of_bitstream(self) -> CodecSignals:
        return self._pool.signals()

    def _transcoded(self) -> CodecSignals:
        return self._pool_of_transcodes.signals()
