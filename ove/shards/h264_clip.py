"""The frames of a clip as one H.264 stream and back: a fraction of the bytes of JPEG frames, slower to decode."""

import re
from collections.abc import Sequence
from typing import Any

import av
import cv2
import numpy as np
from av.codec.context import Flags
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from av.video.reformatter import ColorRange, Colorspace, Interpolation, VideoReformatter
from jaxtyping import UInt8

from ove.errors import BadShard
from ove.video.x264 import encode_h264

GOP_FRAMES = 32
"""Distance between IDR pictures: at most so many frames are decoded for one."""
_X264_PARAMS = (
    f"keyint={GOP_FRAMES}:min-keyint={GOP_FRAMES}:scenecut=0:bframes=0:ref=1:weightp=0:rc-lookahead=0:sync-lookahead=0:mbtree=0"
    ":slices=1:repeat-headers=1:colorprim=smpte170m:transfer=smpte170m:colormatrix=smpte170m:range=tv"
)
_EXACT = Interpolation.BICUBIC | Interpolation.ACCURATE_RND | Interpolation.FULL_CHR_H_INT | Interpolation.FULL_CHR_H_INP
"""How chroma is resampled."""
_START_CODE = re.compile(rb"\x00\x00\x01")
_SLICES, _IDR = (1, 5), 5
"""nal_unit_type (H.264, table 7-1) of slices, and of those of an IDR picture."""


def encode_clip(frames: UInt8[np.ndarray, "T H W 3"], crf: int) -> bytes:
    """Encodes frames as an H.264 stream (Annex B): IDR and P pictures of one slice, fast to decode.

    RGB frames are stored as BT.601, limited range, 4:2:0, or 4:4:4 where a side is odd; `crf` 0 (large) … 51 (poor).
    The same frames give the same bytes with the same build of x264.
    """
    options = {"preset": "veryfast", "tune": "fastdecode", "crf": str(crf), "x264-params": _X264_PARAMS}
    colours: dict[str, Any] = {"dst_colorspace": Colorspace.ITU601, "dst_color_range": ColorRange.MPEG, "interpolation": _EXACT}
    return b"".join(encode_h264(frames, options, **colours)[1])


def decode_clip(stream: bytes, n_frames: int, size_px: int, which: Sequence[int]) -> UInt8[np.ndarray, "n S S 3"]:
    """Decodes the RGB frames with the given indices, in that order, each from the IDR picture before it on.

    BadShard for a stream that has not `n_frames` pictures of this size, or does not decode.
    """
    units = access_units(stream)
    if len(units) != n_frames or not units[0][1]:
        raise BadShard(f"the H.264 stream has {len(units)} pictures and must have {n_frames}, the first of them an IDR picture")
    starts = np.flatnonzero([is_idr for _, is_idr in units])
    frames = np.empty((len(which), size_px, size_px, 3), np.uint8)
    places: dict[int, list[int]] = {}
    for place, index in enumerate(which):
        places.setdefault(int(index), []).append(place)
    last_of_gop = {int(np.max(starts[starts <= index])): index for index in sorted(places)}
    converter = VideoReformatter()
    for start, last in last_of_gop.items():
        for index, frame in enumerate(_decoded([data for data, _ in units[start : last + 1]]), start):
            if (frame.height, frame.width) != (size_px, size_px):
                raise BadShard(f"the H.264 stream has pictures of {frame.height}×{frame.width} pixels, not {size_px}×{size_px}")
            if index in places:
                frames[places[index]] = _rgb(frame, converter)
    return frames


def access_units(stream: bytes) -> list[tuple[bytes, bool]]:
    """Splits an Annex B stream into pictures, each with the headers before it, and tells which are IDR pictures.

    A picture begins at a slice whose first macroblock is number 0, or at the headers before that (H.264, 7.4.1.2.3).
    """
    starts: list[int] = []
    is_idr: list[bool] = []
    headers_at = -1
    for match in _START_CODE.finditer(stream):
        header = match.end()
        begin = match.start() - (stream[match.start() - 1 : match.start()] == b"\0")  # start codes may have a third zero
        nal_type = stream[header] & 31 if header < len(stream) else 0
        if nal_type not in _SLICES:
            headers_at = begin if headers_at < 0 else headers_at
        elif stream[header + 1 : header + 2] >= b"\x80":  # first_mb_in_slice is 0, coded as a single 1
            starts.append(begin if headers_at < 0 else headers_at)
            is_idr.append(nal_type == _IDR)
            headers_at = -1
    ends = [*starts[1:], len(stream)] if starts else []
    return [(stream[a:b], idr) for a, b, idr in zip(starts, ends, is_idr, strict=True)]


def _rgb(frame: VideoFrame, converter: VideoReformatter) -> UInt8[np.ndarray, "S S 3"]:
    """Returns a decoded frame as RGB."""
    if frame.format.name == "yuv420p":
        # BT.601, limited range, as encoded. FFmpeg rounds down (1.5 levels darker), or takes ten times as long.
        return cv2.cvtColor(frame.to_ndarray(), cv2.COLOR_YUV2RGB_I420)
    return converter.reformat(frame, format="rgb24", interpolation=_EXACT, threads=1).to_ndarray()


def _decoded(units: Sequence[bytes]) -> list[VideoFrame]:
    """Decodes units that begin with an IDR picture, one frame each."""
    context = VideoCodecContext.create("h264", "r")
    context.thread_count = 1
    context.flags |= Flags.low_delay
    context.options = {"err_detect": "explode"}
    try:
        frames = [frame for unit in units for frame in context.decode(av.Packet(unit))] + context.decode(None)
    except av.FFmpegError as error:
        raise BadShard(f"the H.264 stream does not decode ({error.strerror})") from error
    if len(frames) != len(units) or any(frame.is_corrupt for frame in frames):
        raise BadShard(f"the H.264 stream is damaged: {len(frames)} of {len(units)} pictures decode")
    return frames
