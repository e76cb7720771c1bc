"""RGB frames → an H.264 stream in memory."""

from fractions import Fraction
from typing import Any

import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8


def encode_h264(
    frames: UInt8[np.ndarray, "T H W 3"], options: dict[str, str], global_header: bool = False, **conversion: Any
) -> tuple[bytes, list[bytes]]:
    """Returns the header (empty without `global_header`) and one packet a frame that x264 makes of RGB frames.

    BT.601, limited range, 4:2:0, or 4:4:4 where a side is odd; `conversion`: arguments of `VideoReformatter.reformat`. The same
    frames give the same bytes with the same build of x264.
    """
    context = VideoCodecContext.create("libx264", "w")
    context.width, context.height = frames.shape[2], frames.shape[1]
    pix_fmt = "yuv444p" if frames.shape[1] % 2 or frames.shape[2] % 2 else "yuv420p"
    context.pix_fmt, context.time_base, context.thread_count = pix_fmt, Fraction(1, 25), 1
    context.flags |= Flags.global_header if global_header else 0
    context.options = options
    packets, converter = [], VideoReformatter()  # one for all: setting up a conversion takes longer than doing it
    for number, picture in enumerate(frames):
        frame = converter.reformat(VideoFrame.from_ndarray(picture, format="rgb24"), format=pix_fmt, threads=1, **conversion)
        frame.pts = number
        packets += context.encode(frame)
    packets += context.encode(None)
    return context.extradata or b"", [bytes(packet) for packet in packets]
