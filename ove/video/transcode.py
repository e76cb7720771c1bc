"""Sampled frames → an H.264 stream in memory → its signals, for files whose own bitstream cannot tell them."""

from fractions import Fraction
from typing import Any

import av
import numpy as np
from av.codec.context import Flags, Flags2
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import VideoReformatter
from jaxtyping import UInt8

from ove.video.bitstream.gray import packet_of
from ove.video.bitstream.h264 import GrayH264
from ove.video.signals import SignalStack

X264_PARAMS = "bframes=0:ref=1:scenecut=0:weightp=0:rc-lookahead=0:sync-lookahead=0:mbtree=0:partitions=p8x8,i8x8,i4x4"
"""Every frame is predicted from the one before it, in blocks no finer than 8×8, for which FFmpeg exports a vector (spec §2)."""
X264_OPTIONS = {"preset": "veryfast", "crf": "18"}


def encode(frames: UInt8[np.ndarray, "T H W 3"], gop_frames: int) -> tuple[bytes, list[bytes]]:
    """Returns the header (Annex B) and one packet a frame of a stream with an I-frame every `gop_frames` frames."""
    options = X264_OPTIONS | {"x264-params": f"{X264_PARAMS}:keyint={gop_frames}:min-keyint={gop_frames}"}
    return encode_h264(frames, options, global_header=True)


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


def transcoded_signals(frames: UInt8[np.ndarray, "T H W 3"], gop_frames: int) -> SignalStack:
    """The signals of each frame relative to the sampled frame before it, from encoding them anew."""
    header, packets = encode(frames, gop_frames)
    gray = GrayH264(header)
    context = av.CodecContext.create("h264", "r")
    context.extradata, context.thread_count = header, 1
    context.flags2 |= Flags2.export_mvs
    signals = SignalStack(len(frames), residual_source="transcode")
    for data in (*packets, None):
        for frame in context.decode(None if data is None else packet_of(data)):
            # No B-frames: frames come out in the order of their packets.
            signals.add(frame, packets[len(signals)], gray)
    return signals
