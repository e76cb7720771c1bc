"""Sampled frames → an H.264 stream in memory → its signals, for files whose own bitstream has none."""

import av
import numpy as np
from av.codec.context import Flags2
from jaxtyping import UInt8

from ove.video.bitstream.gray import packet_of
from ove.video.bitstream.h264 import GrayH264
from ove.video.signals import SignalStack
from ove.video.x264 import encode_h264

X264_PARAMS = "bframes=0:ref=1:scenecut=0:weightp=0:rc-lookahead=0:sync-lookahead=0:mbtree=0:partitions=p8x8,i8x8,i4x4"
"""Every frame is predicted from the one before it, in blocks no finer than 8×8, for which FFmpeg exports a vector (spec §2)."""
X264_OPTIONS = {"preset": "veryfast", "crf": "18"}


def transcode(frames: UInt8[np.ndarray, "T H W 3"], gop_frames: int) -> tuple[bytes, list[bytes]]:
    """Returns the header (Annex B) and one packet a frame of a stream with an I-frame every `gop_frames` frames."""
    options = X264_OPTIONS | {"x264-params": f"{X264_PARAMS}:keyint={gop_frames}:min-keyint={gop_frames}"}
    return encode_h264(frames, options, global_header=True)


def transcoded_signals(frames: UInt8[np.ndarray, "T H W 3"], gop_frames: int) -> SignalStack:
    """Returns the signals of each frame relative to the sampled frame before it, by transcoding."""
    header, packets = transcode(frames, gop_frames)
    gray = GrayH264(header)
    context = av.CodecContext.create("h264", "r")
    context.extradata, context.thread_count = header, 1
    context.flags2 |= Flags2.export_mvs
    signals = SignalStack(len(frames), residual_source="transcode")
    for data in (*packets, None):
        for frame in context.decode(None if data is None else packet_of(data)):
            # Without B-frames, frames come in the order of their packets.
            signals.add(frame, packets[len(signals)], gray)
    return signals
