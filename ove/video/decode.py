"""A video file → its sampled frames and codec signals."""

import dataclasses
from pathlib import Path

import numpy as np
from jaxtyping import Float64, Int

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.records import Clip, CodecSignals, Saliency
from ove.video.bitstream.codecs import BitstreamReader, bitstream_readers, fall_back_or_raise
from ove.video.bitstream.coded import NoVectors
from ove.video.bitstream.gray import NoBitstreamSignals
from ove.video.clip_builder import ClipBuilder, PooledClipBuilder
from ove.video.container import Deadline
from ove.video.demux import Damaged, Survey, decoded_frames, survey
from ove.video.geometry import in_square, place_in_square
from ove.video.packets import PacketTable
from ove.video.saliency import ClipScales
from ove.video.sampling import WITHOUT_ENERGIES, sample_indices
from ove.video.select import i_frame_flags
from ove.video.span import VideoSpan

PAPER = VideoConfig()
"""The default settings."""


def read_video(path: Path | str, config: VideoConfig = PAPER, span: VideoSpan | None = None) -> tuple[Clip, CodecSignals]:
    """Reads the sampled frames of a file, or of a span of it, and their signals, turned as the file says.

    Signals come from the bitstream where possible, at the size of the coded picture; else, or by `config.source`, the sampled
    frames are transcoded (`Clip.source` = "transcode") and signals have the size of the clip. HEVC whose slice data are of a
    kind that is not read has its residual from the bitstream and its vectors from a transcode
    (`CodecSignals.residual_source`). BadClip for anything but a whole, readable video of one size; with `config.truncated` =
    "keep" the frames that decode are kept and `Clip.cut` says what was wrong (spec §2). A span is decoded from the key frame
    before it; `Clip.frame_index` and `n_decoded` count its frames alone.
    """
    clip, builder, order = _survey_and_read(Path(path), config, span, only_scores=False)
    return clip, dataclasses.replace(builder.signals(), order=order)


def read_scored(path: Path | str, config: VideoConfig = PAPER, span: VideoSpan | None = None) -> tuple[Clip, Saliency]:
    """Reads as `read_video`, but returns the scores of the patches alone.

    They are those that `saliency` gives for the signals of `read_video`. Signals are kept for no longer than a frame if they
    come from the bitstream. Where scores depend on other frames (`percentile_scope` = "clip") and these
    are large, the file is decoded twice for that.
    """
    clip, builder, order = _survey_and_read(Path(path), config, span, only_scores=True)
    found = builder.scores()
    return clip, found if order is None else dataclasses.replace(found, scores=found.scores[order], frame_index=order)


def _survey_and_read(
    path: Path, config: VideoConfig, span: VideoSpan | None, only_scores: bool
) -> tuple[Clip, ClipBuilder, Int[np.ndarray, "T"] | None]:
    """Returns the clip, what has its signals or scores, and which of these each frame has; None: its own."""
    deadline = Deadline(path, config.time_limit_s)
    packets = None if config.sampling in WITHOUT_ENERGIES else PacketTable()
    found = survey(path, deadline, packets.add if packets else None, span)
    if found.n_packets == 0 and span is not None:
        raise BadClip(
            f"{path}: no frame from {span.start_s:g} s to {span.end_s:g} s; the video may be shorter: check the span."
        )
    if found.n_packets == 0:
        raise BadClip(f"{path}: no whole frame in it{f' ({found.cut})' if found.cut else ''}; get a whole copy.")
    if packets and found.is_reordered:
        shown = decoded_frames(path, deadline, False, span)
        packets.arrange([(frame.place, frame.time_s) for frame in shown if not frame.is_before])
    for reader in bitstream_readers(path, found, config.source):
        try:
            return _read(path, config, found, deadline, packets, reader, span, only_scores)
        except NoBitstreamSignals as reason:
            fall_back_or_raise(path, found, config.source, reason)
            if not isinstance(reason, NoVectors):
                break
    return _read(path, config, found, deadline, packets, None, span, only_scores)


def _read(
    path: Path,
    config: VideoConfig,
    found: Survey,
    deadline: Deadline,
    packets: PacketTable | None,
    reader: BitstreamReader | None,
    span: VideoSpan | None,
    only_scores: bool,
) -> tuple[Clip, ClipBuilder, Int[np.ndarray, "T"] | None]:
    """Reads with signals from the bitstream, or, without a reader, from a transcode."""
    energies = packets.energies() if packets else None
    builder, cut = _gather(path, config, found.n_packets, energies, deadline, reader, span, only_scores)
    cut, n_decoded = cut or found.cut, len(builder.times_s)
    if n_decoded == 0 or (cut and config.truncated == "refuse"):
        why = cut or "the decoder gives no picture"
        raise BadClip(f"{path}: truncated or damaged: {n_decoded} frames decode ({why}); get a whole copy.")
    if n_decoded != found.n_packets:
        # Some packets have no frame to show: VP8's hidden references, an open GOP's first pictures.
        energies = packets.energies(builder.times_s) if packets else None
        builder, _ = _gather(path, config, n_decoded, energies, deadline, reader, span, only_scores)
    if scales := builder.measured:
        del builder  # and its decoder: their memory is for the second pass
        builder, _ = _gather(path, config, n_decoded, energies, deadline, reader, span, only_scores, scales)
    index = sample_indices(n_decoded, config.n_frames, config.sampling, energies)
    unique, order = np.unique(index, return_inverse=True)
    pictures = np.stack(builder.pictures)
    frames = in_square(pictures, config.size_px)
    rows, columns = pictures.shape[1:3]
    clip = Clip(
        frames=frames if len(unique) == len(index) else frames[order],
        frame_index=index,
        pts_s=_seconds(builder.times_s, found.fps)[index],
        is_i_frame=i_frame_flags(config.n_frames, config.selection.gop_frames),
        source="bitstream" if builder.has_vectors else "transcode",
        codec=found.codec,
        n_decoded=n_decoded,
        fps=found.fps,
        cut=cut,
        valid=place_in_square(rows, columns, config.size_px, "letterbox").valid(config.patch_px)
        if config.geometry == "letterbox"
        else None,
    )
    return clip, builder, None if len(unique) == len(index) else order


def _gather(
    path: Path,
    config: VideoConfig,
    n_frames: int,
    energies: Float64[np.ndarray, "n"] | None,
    deadline: Deadline,
    reader: BitstreamReader | None,
    span: VideoSpan | None,
    only_scores: bool,
    scales: ClipScales | None = None,
) -> tuple[ClipBuilder, str]:
    """Decodes the file, or what a span needs, and keeps what would be sampled of `n_frames` frames.

    Also returns what was wrong with the first missing frame of a damaged file that may be kept.
    """
    wanted = set(sample_indices(n_frames, config.n_frames, config.sampling, energies).tolist())
    gray, slices = (reader.gray(), reader.slices) if reader else (None, None)
    make = PooledClipBuilder if config.sampling == "pool" else ClipBuilder
    builder = make(config, gray, len(wanted), only_scores, scales, reads_slices=slices is not None)
    try:
        for decoded in decoded_frames(path, deadline, gray is not None, span, slices):
            if decoded.is_before:
                builder.skip(decoded)
            else:
                builder.add(decoded, len(builder.times_s) in wanted)
    except Damaged as error:
        if config.truncated == "refuse":
            raise
        return builder, str(error).removeprefix(f"{path}: ")
    return builder, ""


def _seconds(times_s: list[float | None], fps: float) -> Float64[np.ndarray, "n"]:
    """Returns presentation times of all frames; of streams without any, frame numbers over the frame rate (25 if unknown)."""
    known = [t for t in times_s if t is not None]
    # Where the container has only the times of decoding, frames are shown at the same ones in ascending order.
    return np.sort(known) if len(known) == len(times_s) else np.arange(len(times_s)) / (fps or 25.0)
