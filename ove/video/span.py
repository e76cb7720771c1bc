"""A stretch of a longer video: where it begins among the packets, and which frames belong to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ove.errors import ConfigError

_ROUNDING_S = 1e-6
"""Times in lists have few digits; a frame that begins this little before a border lies on it."""

_RETRY_S = 10.0
"""By how much a second attempt to find the key frame before a span starts earlier; the third starts at the beginning."""


@dataclass(frozen=True)
class VideoSpan:
    """The frames whose presentation time lies within start_s … end_s (not included), counted from the video's first frame."""

    start_s: float
    end_s: float

    def __post_init__(self) -> None:
        if not (math.isfinite(self.start_s) and math.isfinite(self.end_s) and 0 <= self.start_s < self.end_s):
            raise ConfigError(
                f"a span from {self.start_s:g} s to {self.end_s:g} s holds no frame; give 0 ≤ start < end, in seconds."
            )

    def is_before(self, time_s: float) -> bool:
        """Whether a frame of that time lies before the span."""
        return time_s < self.start_s - _ROUNDING_S

    def is_after(self, time_s: float) -> bool:
        """Whether a frame of that time lies after the span."""
        return time_s >= self.end_s - _ROUNDING_S

    def holds(self, time_s: float | None) -> bool:
        """Whether a frame of that time belongs to the span; one without a time does not."""
        return time_s is not None and not self.is_before(time_s) and not self.is_after(time_s)


def time_in_video_s(pts: int | None, stream: VideoStream) -> float | None:
    """Seconds from the beginning of the stream to a timestamp; None without one."""
    if pts is None or stream.time_base is None:
        return None
    return float((pts - (stream.start_time or 0)) * stream.time_base)


def packets_of(container: InputContainer, stream: VideoStream, span: VideoSpan | None) -> Iterator[av.Packet]:
    """The packets of a stream that are needed to decode a span, from the key frame before it on; all without one.

    FFmpegError where the file cannot be read any further.
    """
    if span is None or stream.time_base is None or stream.start_time is None:
        yield from container.demux(stream)
        return
    target = int(span.start_s / stream.time_base) + stream.start_time
    for earlier in (0, round(_RETRY_S / stream.time_base), target):
        container.seek(target - earlier, stream=stream, backward=True)
        packets = container.demux(stream)
        first = next(packets, None)
        if first is None or first.pts is None or (first.is_keyframe and first.pts <= target):
            break  # elsewhere, as in MPEG transport streams, a seek may go too far
    if first is not None:
        yield first
    for packet in packets:
        yield packet
        # No later packet is to be shown before it is decoded.
        if packet.dts is not None and span.is_after(time_in_video_s(packet.dts, stream) or 0.0):
            return
