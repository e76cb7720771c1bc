"""Any video file → its sampled frames and what the codec knows about them."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import cv2
import numpy as np
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import Float64, Int32, UInt8

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.records import Clip, CodecSignals
from ove.video.demux import Damaged, Deadline, Survey, decoded_frames, survey
from ove.video.residual import CannotIsolate, GrayDecoder
from ove.video.select import i_frame_flags, sample_indices
from ove.video.signals import SignalStack, with_residual_of
from ove.video.sources import bitstream_reader, told_or_refused
from ove.video.transcode import transcoded_signals


def read_video(path: Path, config: VideoConfig) -> tuple[Clip, CodecSignals]:
    """The sampled frames of a file and their signals, turned as the file says it is to be shown.

    Signals come from the bitstream where they can, at the size of its picture; elsewhere, or where `config.source` says so, the
    sampled frames are encoded anew (`Clip.source` = "transcode") and signals have the size of the clip. HEVC has its residual
    from the bitstream and its vectors from a transcode (`CodecSignals.residual_source`). Anything that is no whole, readable
    video of one size raises BadClip, which names the file, what was wrong and what to do; with `config.truncated` = "keep",
    what decodes of a damaged one is kept and `Clip.cut` says what was wrong (spec §2).
    """
    deadline = Deadline(path, config.time_limit_s)
    found = survey(path, deadline)
    if found.n_packets == 0:
        raise BadClip(f"{path}: no whole frame in it{f' ({found.cut})' if found.cut else ''}; get a whole copy.")
    if opener := bitstream_reader(path, found, config.source):
        try:
            return _read(path, config, found, deadline, opener)
        except CannotIsolate as reason:
            told_or_refused(path, found, config.source, reason)
    return _read(path, config, found, deadline, None)


def _read(
    path: Path, config: VideoConfig, found: Survey, deadline: Deadline, opener: Callable[[], GrayDecoder] | None
) -> tuple[Clip, CodecSignals]:
    """`read_video` with signals from the bitstream, or, without an opener of gray decoders, from a transcode."""
    gray = opener() if opener else None
    samples = _sample(path, config, found.n_packets, deadline, gray)
    cut = samples.cut or found.cut
    if samples.n_decoded == 0 or (cut and config.truncated == "refuse"):
        why = cut or "the decoder gives no picture"
        raise BadClip(f"{path}: truncated or damaged: {samples.n_decoded} frames decode ({why}); get a whole copy.")
    if samples.n_decoded != found.n_packets:
        # Packets without a frame to show: VP8's hidden references, an open GOP's first pictures. Sample what there is.
        gray = opener() if opener else None
        samples = _sample(path, config, samples.n_decoded, deadline, gray)
    index = sample_indices(samples.n_decoded, config.n_frames, config.sampling)
    unique, order = np.unique(index, return_inverse=True)
    pictures = np.stack(samples.pictures)
    vectors_too = gray is not None and gray.has_vectors
    if gray is not None:
        signals = samples.signals.signals(order, samples.quarter_turns)
    if not vectors_too:
        transcoded = transcoded_signals(pictures, config.gop_frames).signals(order)
        signals = transcoded if gray is None else with_residual_of(transcoded, signals)
    clip = Clip(
        frames=pictures if len(unique) == len(index) else pictures[order],
        frame_index=index,
        pts_s=_seconds(samples.times_s, unique, found.fps)[order],
        is_i_frame=i_frame_flags(config.n_frames, config.gop_frames),
        source="bitstream" if vectors_too else "transcode",
        codec=found.codec,
        n_decoded=samples.n_decoded,
        fps=found.fps,
        cut=cut,
    )
    return clip, signals


@dataclass
class _Samples:
    """The sampled frames of one pass over a file, each once."""

    signals: SignalStack
    pictures: list[UInt8[np.ndarray, "S S 3"]] = field(default_factory=list)
    times_s: list[float | None] = field(default_factory=list)
    n_decoded: int = 0
    cut: str = ""
    """What was wrong with the first frame that is missing, where the file is damaged and may be."""
    quarter_turns: int = 0
    """Counter-clockwise, from the coded picture to the shown one; pictures are turned, signals are not yet."""


def _sample(path: Path, config: VideoConfig, n_frames: int, deadline: Deadline, gray: GrayDecoder | None) -> _Samples:
    """Decodes the whole file and keeps what would be sampled if it had `n_frames` frames."""
    wanted = set(sample_indices(n_frames, config.n_frames, config.sampling).tolist())
    samples, to_rgb = _Samples(SignalStack(len(wanted))), VideoReformatter()
    try:
        for number, decoded in enumerate(decoded_frames(path, deadline, keep_packets=gray is not None)):
            samples.n_decoded += 1
            if gray is not None:
                gray.follow(decoded.packet)
            if number not in wanted:
                continue
            samples.quarter_turns = round(decoded.frame.rotation / 90) % 4
            samples.pictures.append(_picture(to_rgb, decoded.frame, config.size_px, samples.quarter_turns))
            samples.times_s.append(decoded.time_s)
            if gray is not None:
                samples.signals.add(decoded.frame, decoded.packet, gray)
    except Damaged as error:
        if config.truncated == "refuse":
            raise
        samples.cut = str(error).removeprefix(f"{path}: ")
    return samples


def _picture(to_rgb: VideoReformatter, frame: VideoFrame, size_px: int, quarter_turns: int) -> UInt8[np.ndarray, "S S 3"]:
    rgb = to_rgb.reformat(frame, format="rgb24", threads=1).to_ndarray()
    smaller = frame.width >= size_px and frame.height >= size_px
    square = cv2.resize(rgb, (size_px, size_px), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.ascontiguousarray(np.rot90(square, quarter_turns))


def _seconds(times_s: list[float | None], index: Int32[np.ndarray, "U"], fps: float) -> Float64[np.ndarray, "U"]:
    """Presentation times; for streams without any, frame numbers over the frame rate (25 where that is unknown, too)."""
    known = [t for t in times_s if t is not None]
    return np.array(known) if len(known) == len(times_s) else index / (fps or 25.0)
