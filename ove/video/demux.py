"""A video file → its decoded frames one by one, each with its packet; anything else is refused."""

import logging
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import av
from av.codec.context import Flags2
from av.container import InputContainer
from av.video.frame import VideoFrame
from av.video.stream import VideoStream

from ove.config import limits
from ove.errors import BadClip
from ove.video.bitstream.coded import CodedPicture, DamagedSlices, SliceReader
from ove.video.container import Deadline, opened_video, video_streams
from ove.video.ends import frames_announced, missing_part
from ove.video.packets import without_padding
from ove.video.span import SEEKS, VideoSpan, packets_of, time_in_video_s
from ove.video.times import ShownTimes, is_reordered, timestamp

_log = logging.getLogger(__name__)

_NEVER_PADDED = frozenset(["vp8", "vp9", "av1"])
"""Codecs that never write long runs of zeros, and whose decoders silently return a blank picture for such a packet."""
_WIPED = bytes(64)


@dataclass(frozen=True)
class Survey:
    """What demuxing tells about a file."""

    codec: str
    fps: float
    """0 where the container does not give it."""
    extradata: bytes
    n_packets: int
    """Packets whose frames are shown; in a few codecs some packets have none."""
    cut: str
    """What shows that the file ends early; empty if nothing does."""
    is_reordered: bool = False
    """Whether packets come in another order than frames, and have no timestamps that tell which."""


@dataclass(frozen=True)
class DecodedFrame:
    """One frame in display order."""

    frame: VideoFrame
    packet: bytes
    """Its packet; empty if packets are not kept."""
    time_s: float | None
    """None where the container has no timestamps."""
    header: bytes = b""
    """A new header of the stream that came with the packet, as where recordings were joined; else empty."""
    place: int | None = None
    """Of its packet in the file, in bytes."""
    is_before: bool = False
    """Whether it lies before the requested span, whose frames refer to it."""
    coded: CodedPicture | None = None
    """What its slice data tell, where they are read."""


class Damaged(BadClip):
    """A file that ends early or is broken in part; `position` frames decode before that."""


def _damaged(path: Path, n_decoded: int, how: str) -> Damaged:
    return Damaged(f"{path}: damaged: {n_decoded} frames decode{how}; get a whole copy.", n_decoded)


def survey(
    path: Path, deadline: Deadline, look: Callable[[av.Packet], None] | None = None, span: VideoSpan | None = None
) -> Survey:
    """Counts the video packets of a file, or of a span of it, without decoding, and passes them to `look`.

    BadClip if it is no video, or the span cannot be found. With a span, the file may be cut off after it.
    """
    with opened_video(path, deadline) as (container, stream):
        shown = whole = 0
        failure = ""
        try:
            for packet in packets_of(container, stream, span):
                if packet.is_corrupt:
                    failure = "a packet is cut short"
                elif packet.size and (span is None or span.holds(_time_in(path, packet, stream))):
                    whole += 1
                    shown += not packet.is_discard
                    if look is not None and not packet.is_discard:
                        look(packet)
                deadline.check(0)
        except av.FFmpegError as error:
            deadline.check(0)  # FFmpeg stops reading at the time limit with an error of its own
            failure = error.strerror or type(error).__name__
        announced = 0 if span is not None else frames_announced(container, stream)
        if span is None and not failure:
            failure = "the file ends early" if whole < announced else missing_part(path)
        if len(others := [each for each in video_streams(container) if each is not stream]) > 0:
            _log.info("%s: of %d video streams number %d is read", path, 1 + len(others), stream.index)
        return Survey(
            codec=stream.codec.canonical_name,
            fps=float(stream.average_rate or 0),
            extradata=stream.codec_context.extradata or b"",
            n_packets=shown,
            cut=f"{failure}; {announced} frames announced" if failure and announced > whole else failure,
            is_reordered=is_reordered(stream),
        )


def _time_in(path: Path, packet: av.Packet, stream: VideoStream) -> float:
    time_s = time_in_video_s(timestamp(packet, stream), stream)
    if time_s is None:
        raise BadClip(f"{path}: has no timestamps, so no span of it can be found; put it into an MP4 or MKV file.")
    return time_s


def decoded_frames(
    path: Path,
    deadline: Deadline,
    keep_packets: bool,
    span: VideoSpan | None = None,
    open_slices: Callable[[], SliceReader] | None = None,
) -> Iterator[DecodedFrame]:
    """Yields the frames of a file in display order; of a span: its frames, after those that they refer to.

    With `keep_packets` each comes with its packet, and with motion vectors where the codec has them; what `open_slices` gives
    is opened for each pass, and reads the slice data of the packets in decoding order (NoVectors if it cannot). Damaged for a
    frame marked as corrupt, slice data that are not whole or a decoder that fails, BadClip for a frame of another size than
    the first, all with the number of frames decoded so far; a file that just ends early ends the iteration.
    """
    for attempt in range(n_attempts := len(SEEKS)):
        try:
            yield from _decoded(path, deadline, keep_packets, span, attempt, open_slices() if open_slices else None)
            return
        except _FramesLost:
            assert attempt < n_attempts - 1 and span is not None


class _FramesLost(Exception):
    """The decoder gives no picture for the first frames of a span: it must begin earlier."""


def _decoded(
    path: Path,
    deadline: Deadline,
    keep_packets: bool,
    span: VideoSpan | None,
    attempt: int,
    slices: SliceReader | None = None,
) -> Iterator[DecodedFrame]:
    """Yields frames as `decoded_frames`, from the key frame that the attempt finds; before the first, maybe _FramesLost."""
    with opened_video(path, deadline) as (container, stream):
        context, base = stream.codec_context, stream.time_base
        context.thread_count = 1  # measured: automatic threading is slower for single clips, and workers run in parallel
        if keep_packets:  # takes a tenth of the time of decoding
            context.flags2 |= Flags2.export_mvs
        context.options = {"max_pixels": str(limits().max_frame_pixels)}
        waiting: dict[int, _Waiting] = {}
        n_decoded, size, times, nothing_yet = 0, (0, 0), ShownTimes(stream), True
        for number, packet in enumerate(_packets(container, stream, span, attempt)):
            if packet is not None:
                time = timestamp(packet, stream)
                times.add(time)
                data, header = (bytes(packet), _new_header(packet)) if keep_packets else (b"", b"")
                coded = _read_slices(path, slices, data, header, n_decoded)
                waiting[number] = _Waiting(data, time, header, packet.pos, coded)
                # The decoder hands a packet's timestamp to its frame: numbered, frames and packets match whatever the order.
                packet.pts = packet.dts = number
                if stream.codec.canonical_name in _NEVER_PADDED and _WIPED in without_padding(stream, bytes(packet)):
                    raise _damaged(path, n_decoded, ", the next is overwritten with zeros")
            try:
                frames = context.decode(packet)
            except av.FFmpegError as error:
                raise _damaged(path, n_decoded, f", then {error.strerror or type(error).__name__}") from error
            for frame in frames:
                packet_of_it = waiting.pop(frame.pts if frame.pts is not None else -1, _Waiting())
                data, header, place = packet_of_it.data, packet_of_it.header, packet_of_it.place
                time = times.next(packet_of_it.time)
                place_s = time_in_video_s(time, stream) if span is not None else None
                if nothing_yet and span is not None and place_s is not None and attempt < len(SEEKS) - 1:
                    earlier = [time_in_video_s(other.time, stream) for other in waiting.values()]
                    if any(span.holds(other_s) and other_s < place_s for other_s in earlier if other_s is not None):
                        raise _FramesLost
                nothing_yet = False
                if span is not None and place_s is not None:
                    if span.is_after(place_s):
                        return
                    if span.is_before(place_s):
                        yield DecodedFrame(frame, data, None, header, is_before=True)
                        continue
                size = size if n_decoded else (frame.width, frame.height)
                _check(path, frame, n_decoded, size)
                seconds = time * base.numerator / base.denominator if time is not None and base else None
                yield DecodedFrame(frame, data, seconds, header, place, coded=packet_of_it.coded)
                n_decoded += 1
            deadline.check(n_decoded)


class _Waiting(NamedTuple):
    """A packet whose frame has not come yet, and what was read of it."""

    data: bytes = b""
    time: int | None = None
    header: bytes = b""
    place: int | None = None
    coded: CodedPicture | None = None


def _read_slices(path: Path, slices: SliceReader | None, packet: bytes, header: bytes, n_decoded: int) -> CodedPicture | None:
    """Reads the next packet's slice data; Damaged where they are not whole."""
    if slices is None:
        return None
    if header:
        slices.take_header(header)
    try:
        return slices.read(packet)
    except DamagedSlices as error:
        raise _damaged(path, n_decoded, f", then {error}") from error


def _new_header(packet: av.Packet) -> bytes:
    return bytes(packet.get_sidedata("new_extradata")) if packet.has_sidedata("new_extradata") else b""


def _packets(
    container: InputContainer, stream: VideoStream, span: VideoSpan | None, attempt: int
) -> Iterator[av.Packet | None]:
    """Yields the stream's packets as far as they can be read, then None to flush the decoder."""
    try:
        for packet in packets_of(container, stream, span, attempt):
            if packet.size and not packet.is_corrupt:
                yield packet
    except av.FFmpegError:
        pass  # `survey` has met the same error and reports it with the number of frames
    yield None


def _check(path: Path, frame: VideoFrame, n_decoded: int, size: tuple[int, int]) -> None:
    if frame.is_corrupt:
        raise _damaged(path, n_decoded, ", the next is marked as corrupt")
    if (frame.width, frame.height) != size:
        raise BadClip(
            f"{path}: the picture changes from {size[0]}×{size[1]} to {frame.width}×{frame.height} pixels after {n_decoded} "
            "frames; cut the video there or scale it to one size.",
            n_decoded,
        )
