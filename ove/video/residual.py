"""Luma residual of single H.264 pictures from a stock decoder: what it adds to the prediction from a gray reference.

Every motion-compensated prediction from a uniform gray picture is that gray, whatever the vector, the reference index or the
interpolation. A picture decoded alone after a gray one therefore comes out as clip(gray + residual) (spec §2).
"""

import av
import cv2
import numpy as np
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from jaxtyping import Bool, Int16, UInt8, UInt16

from ove.records import CELL_PX
from ove.video import h264_headers as h264

_FLAG_OUTPUT_CORRUPT = 1 << 3
_FLAG2_SHOW_ALL = 1 << 22
_GRAY_PTS, _TARGET_PTS = 0, 1


class CannotIsolate(Exception):
    """The pictures of this stream cannot be decoded one by one after a gray reference; the reason is the message."""


class GrayDecoder:
    """Decodes single packets of one H.264 stream against a gray reference."""

    def __init__(self, extradata: bytes) -> None:
        """Prepares the gray picture from the stream's parameter sets (`avcC` or Annex B), or raises CannotIsolate."""
        self._length_bytes = 0  # Annex B
        try:
            if extradata[:1] == b"\x01":
                self._length_bytes, self._sets = h264.split_avcc(extradata)
            else:
                self._sets = h264.split_annex_b(extradata)
            headers = [h264.read_sps(nal) for nal in self._sets if nal[0] & 31 == h264.NAL_SPS]
            pictures = [h264.read_pps(nal) for nal in self._sets if nal[0] & 31 == h264.NAL_PPS]
        except (ValueError, IndexError) as error:
            raise CannotIsolate(f"its parameter sets cannot be read ({error})") from error
        if not headers or not pictures:
            raise CannotIsolate("its header holds no parameter sets")
        if not all(sps.frames_only for sps in headers):
            raise CannotIsolate("it may hold interlaced pictures")
        if any(sps.cropped_before for sps in headers):
            raise CannotIsolate("its picture is cropped at the left or top")
        if any(pps.slice_groups > 1 for pps in pictures):
            raise CannotIsolate("it uses slice groups")
        used = {pps.pps_id for pps in pictures}
        free = iter([i for i in range(255, -1, -1) if i not in used])
        self._gray = {sps.sps_id: self._joined(h264.gray_access_unit(sps, next(free))) for sps in headers}
        self._sps_of_pps = {pps.pps_id: pps.sps_id for pps in pictures}
        self.weighted = any(pps.weighted for pps in pictures)
        """Pictures may use weighted prediction; where one does, its residual is off by a constant per block."""
        self._context = _decoder(extradata)

    def check_sets(self, packet: bytes) -> None:
        """CannotIsolate if the packet brings parameter sets other than those of the stream's header."""
        for nal in self._nals(packet):
            if nal[:1] and nal[0] & 31 in (h264.NAL_SPS, h264.NAL_PPS) and nal not in self._sets:
                raise CannotIsolate("its parameter sets change within the stream")

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """The packet's luma as decoded after a gray picture, and its bit depth; valid on inter-coded pixels only."""
        frames: list[VideoFrame] = []
        try:
            for data, pts in ((self._gray[self._sps_id(packet)], _GRAY_PTS), (packet, _TARGET_PTS)):
                timed = av.Packet(data)
                timed.pts = timed.dts = pts
                frames += self._context.decode(timed)
            frames += self._context.decode(None)
        except av.FFmpegError as error:
            raise CannotIsolate(f"a picture of it fails to decode alone ({error.strerror})") from error
        finally:
            self._context.flush_buffers()
        targets = [frame for frame in frames if frame.pts == _TARGET_PTS]
        if not targets:
            raise CannotIsolate("a picture of it does not come out when decoded alone")
        return luma_of(targets[0])

    def _sps_id(self, packet: bytes) -> int:
        if len(self._gray) == 1:
            return next(iter(self._gray))
        try:
            slices = (nal for nal in self._nals(packet) if nal[0] & 31 in (h264.NAL_SLICE, h264.NAL_IDR))
            return self._sps_of_pps[h264.read_slice_pps_id(next(slices))]
        except (StopIteration, KeyError, ValueError, IndexError) as error:
            raise CannotIsolate("a picture of it names no known parameter set") from error

    def _nals(self, packet: bytes) -> list[bytes]:
        try:
            if self._length_bytes:
                return h264.split_length_prefixed(packet, self._length_bytes)
        except ValueError as error:
            raise CannotIsolate(str(error)) from error
        return h264.split_annex_b(packet)

    def _joined(self, nals: list[bytes]) -> bytes:
        if self._length_bytes:
            return b"".join(len(nal).to_bytes(self._length_bytes, "big") + nal for nal in nals)
        return b"".join(b"\x00\x00\x00\x01" + nal for nal in nals)


def luma_of(frame: VideoFrame) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
    """A view of the frame's luma plane (for RGB streams: green), and its bit depth; it lives as long as the frame."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.asarray(memoryview(plane)[: plane.line_size * plane.height]).view(kind).reshape(plane.height, -1)
    return rows[:, : plane.width], bits


def residual_into(
    out: Int16[np.ndarray, "H W"], frame: VideoFrame, packet: bytes, has_vector: Bool[np.ndarray, "h w"], gray: GrayDecoder
) -> None:
    """Writes into `out` the luma residual of a decoded frame, given the packet it came from and the cells with a vector.

    −128…127 in 8-bit units, exact up to saturation, in cells with a vector (not where weighted prediction is used, see
    docs/codec.md); in the others, which are intra-coded, the gradient magnitude of the decoded luma, 0…180.
    """
    if not has_vector.any():
        out[:] = gradient(frame)
        return
    luma, bits = gray.luma(packet)
    if luma.shape != out.shape:
        raise CannotIsolate(f"a picture of it decodes alone to {luma.shape[1]}×{luma.shape[0]} pixels")
    np.subtract(luma, 1 << (bits - 1), out=out, dtype=np.int16, casting="unsafe")
    if bits > 8:
        out >>= bits - 8
    if not has_vector.all():
        intra = np.repeat(np.repeat(~has_vector, CELL_PX, axis=0), CELL_PX, axis=1)
        np.copyto(out, gradient(frame), where=intra[: frame.height, : frame.width])


def gradient(frame: VideoFrame) -> Int16[np.ndarray, "H W"]:
    """Gradient magnitude of the frame's luma by central differences, rounded, in 8-bit units, 0 along a border's normal."""
    luma, bits = luma_of(frame)
    scale = 0.5 / (1 << (bits - 8))
    down = cv2.Sobel(luma, cv2.CV_32F, 0, 1, ksize=1, scale=scale)
    right = cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=1, scale=scale)
    # Exact until the root, which every machine rounds alike (cv2.magnitude is not bound to).
    return np.rint(np.sqrt(right * right + down * down)).astype(np.int16)


def _decoder(extradata: bytes) -> VideoCodecContext:
    context = av.CodecContext.create("h264", "r")
    context.extradata = extradata
    context.thread_count = 1
    context.options = {"skip_loop_filter": "all"}
    context.flags |= _FLAG_OUTPUT_CORRUPT
    context.flags2 |= _FLAG2_SHOW_ALL
    return context
