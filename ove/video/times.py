"""When frames are shown: presentation timestamps, or in AVI, which has none, the times of decoding in ascending order."""

import heapq

import av
from av.video.stream import VideoStream

_MOST_REORDERED = 16
"""Pictures that may be decoded between a picture and its output (H.264, max_num_reorder_frames)."""


def timestamp(packet: av.Packet, stream: VideoStream) -> int | None:
    """Returns a packet's presentation timestamp; of AVI its decoding timestamp, from which FFmpeg guesses the former."""
    return packet.dts if counts_frames(stream) else packet.pts


def counts_frames(stream: VideoStream) -> bool:
    """Returns whether the container only counts frames: their times are known, but not which of them is shown when."""
    return stream.container.format.name == "avi"


def is_reordered(stream: VideoStream) -> bool:
    """Returns whether times come in another order than the frames they belong to."""
    return counts_frames(stream) and bool(stream.codec_context.has_b_frames)


def decoded_after(stream: VideoStream) -> int:
    """Returns by how much later than it is shown a frame may be decoded, in units of the time base."""
    if not is_reordered(stream) or not stream.average_rate or not stream.time_base:
        return 0
    return round(_MOST_REORDERED / (stream.average_rate * stream.time_base))


class ShownTimes:
    """The times of packets that wait for their frames, handed out in the order in which these are shown."""

    def __init__(self, stream: VideoStream) -> None:
        self._reordered = is_reordered(stream)
        self._waiting: list[int] = []

    def add(self, time: int | None) -> None:
        """Adds the time of a packet that is about to be decoded."""
        if self._reordered and time is not None:
            heapq.heappush(self._waiting, time)

    def next(self, own: int | None) -> int | None:
        """Returns the time of the frame shown next, whose packet has the time `own`."""
        return heapq.heappop(self._waiting) if self._reordered and self._waiting else own
