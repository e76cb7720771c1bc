"""A span of a longer video: where it begins among the packets, and which frames belong to it."""

import math
from collections.abc import Iterator
from dataclasses import dataclass

import av
from av.container import InputContainer
from av.video.stream import VideoStream

from ove.errors import ConfigError

_ROUNDING_S = 1e-6
"""Times in lists have few digits: a frame this close before a border lies on it."""

_RETRY_S = 10.0
"""How much earlier a second attempt to find the key frame before a span seeks; the third seeks to the beginning."""


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


def packets_of(container: InputContainer, stream: VideoStream, span: VideoSpan | None) -> Iterator[av.Packet]:
    """Yields the packets that a span needs, from the key frame before it on; all without a span.

    FFmpegError where the file cannot be read further.
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
            break  # else the seek went too far, as it may in MPEG transport streams
    if first is not None:
        yield first
    for packet in packets:
        yield packet
        # No later packet is shown before it is decoded.
        if packet.dts is not None and span.is_after(time_in_video_s(packet.dts, stream) or 0.0):
            return
