"""A span of a longer video: where it begins among the packets, and which frames belong to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ove.errors import ConfigError
from ove.video.bitstream.nal import packet_nals
from ove.video.times import decoded_after, is_reordered, timestamp

_IDR = 5
"""nal_unit_type of a slice of an IDR picture (H.264, table 7-1)."""
_ROUNDING_S = 1e-6
"""Times in lists have few digits: a frame this close before a border lies on it."""

SEEKS = (0.0, 10.0, math.inf)
"""How many seconds earlier each attempt to find the key frame before a span seeks; the last seeks to the beginning."""


@dataclass(frozen=True)
class VideoSpan:
    """Frames with a presentation time in start_s … end_s (exclusive), counted from the video's first frame."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise ConfigError(
                f"a span from {self.start_s:g} s to {self.end_s:g} s holds no frame; give 0 ≤ start < end, in seconds."
            )

    def is_before(self, time_s: float) -> bool:
        """Returns whether a frame of that time lies before the span."""
        return time_s < self.start_s - _ROUNDING_S

    def is_after(self, time_s: float) -> bool:
        """Returns whether a frame of that time lies after the span."""
        return time_s >= self.end_s - _ROUNDING_S

    def holds(self, time_s: float | None) -> bool:
        """Returns whether a frame of that time lies in the span; one without a time does not."""
        return time_s is not None and not self.is_before(time_s) and not self.is_after(time_s)


def time_in_video_s(pts: int | None, stream: VideoStream) -> float | None:
    """Returns the seconds from the beginning of the stream to a timestamp; None without one."""
    if pts is None or stream.time_base is None:
        return None
    return float((pts - (stream.start_time or 0)) * stream.time_base)


def packets_of(container: InputContainer, stream: VideoStream, span: VideoSpan | None, attempt: int = 0) -> Iterator[av.Packet]:
    """Yields the packets that a span needs, from the key frame before it on; all without a span.

    `attempt` says which of SEEKS to begin with. FFmpegError where the file cannot be read further.
    """
    if span is None or stream.time_base is None or stream.start_time is None:
        yield from container.demux(stream)
        return
    target = int(span.start_s / stream.time_base) + stream.start_time
    for earlier_s in SEEKS[attempt:]:
        earlier = target if earlier_s == math.inf else round(earlier_s / stream.time_base)
        container.seek(max(target - earlier, 0), stream=stream, backward=True)
        packets = container.demux(stream)
        first = next(packets, None)
        if first is None or (time := timestamp(first, stream)) is None:
            break
        if first.is_keyframe and time <= target and (not is_reordered(stream) or _begins_anew(first)):
            break  # else the seek went too far, as it may in MPEG transport streams
    if first is not None:
        yield first
    end = decoded_after(stream)
    for packet in packets:
        yield packet
        # No later packet is shown before it is decoded.
        if packet.dts is not None and span.is_after(time_in_video_s(packet.dts - end, stream) or 0.0):
            return


def _begins_anew(packet: av.Packet) -> bool:
    """Returns whether no frame that is shown before this one, or refers to one before it, follows: an IDR picture of H.264."""
    codec = packet.stream.codec_context
    return codec.name == "h264" and any(nal and nal[0] & 31 == _IDR for nal in packet_nals(bytes(packet), 0))
