"""Luma residual of single pictures from a stock decoder: what it adds to the prediction from a gray reference.

Every motion-compensated prediction from a uniform gray picture is that gray, whatever the vector, the reference index or the
interpolation. A picture decoded alone after a gray one therefore comes out as clip(gray + residual) (spec §2). What a gray
picture is in each codec, and what else a picture needs to be decoded alone, stands in `h264`, `hevc`, `mpeg12` and `mpeg4`.
"""

from abc import ABC, abstractmethod

import av
import cv2
import numpy as np
from av.codec.context import Flags, Flags2
from av.video.codeccontext import VideoCodecContext
from av.video.frame import VideoFrame
from einops import repeat
from jaxtyping import Bool, Float32, Int16, Shaped, UInt8, UInt16

from ove.records import CELL_PX

_MANY = 0.3
"""Share of the cells from which on the gradient of the whole picture is quicker than that of single cells (measured)."""


class NoBitstreamSignals(Exception):
    """The bitstream gives no exact signals; the message says why."""


class GrayDecoder(ABC):
    """Decodes single packets of one stream against a gray reference."""

    mbaff = False
    """Macroblocks are coded in mbaff, frame- or field-wise (MBAFF); FFmpeg does not export which."""
    has_vectors = True
    """The ordinary decoder exports motion vectors; by them it is known which blocks are inter-coded."""

    @abstractmethod
    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Reads the parameter sets in a packet, and in a new stream header that came with it.

        Called with each packet of the stream, in display order.
        """

    @abstractmethod
    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """The packet's luma as decoded after a gray picture, and its bit depth; valid on inter-coded pixels only."""

    def start_px(self, height: int, width: int) -> tuple[int, int]:
        """(down, right): where a shown picture of this size begins in the coded one."""
        return 0, 0

    def vectors(self, frame: VideoFrame, packet: bytes) -> Shaped[np.ndarray, "n"] | None:
        """The motion vectors that FFmpeg attached to a decoded frame, None where it has none, given its packet."""
        return _table(frame)

    def residual_into(self, out: Int16[np.ndarray, "H W"], frame: VideoFrame, packet: bytes) -> None:
        """Writes into `out` the luma residual of a decoded frame, given its packet, in 8-bit units; −128…127."""
        luma, bits = self.luma(packet)
        if luma.shape != out.shape:
            raise NoBitstreamSignals(f"a picture of it decodes alone to {luma.shape[1]}×{luma.shape[0]} pixels")
        np.subtract(luma, 1 << (bits - 1), out=out, dtype=np.int16, casting="unsafe")
        if bits > 8:
            out >>= bits - 8


def open_decoder(codec: str, extradata: bytes, vectors: bool = False, **options: str) -> VideoCodecContext:
    """A single-threaded decoder without loop filter that gives out everything it decodes, with motion vectors if asked for."""
    context = av.CodecContext.create(codec, "r")
    assert isinstance(context, VideoCodecContext)
    if extradata:
        context.extradata = extradata
    context.thread_count = 1
    context.options = {"skip_loop_filter": "all", **options}
    context.flags |= Flags.output_corrupt
    context.flags2 |= Flags2.show_all | (Flags2.export_mvs if vectors else 0)
    return context


def packet_of(data: bytes) -> av.Packet:
    """A packet with a copy of the data, followed by the zeros that decoders may read past its end."""
    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def decode_one(context: VideoCodecContext, packets: list[bytes], which: int = -1) -> VideoFrame:
    """The frame of one of these packets, decoded one after the other from a fresh start; NoBitstreamSignals if none comes."""
    frames: list[VideoFrame] = []
    try:
        for number, data in enumerate(packets):
            packet = packet_of(data)
            packet.pts = packet.dts = number
            frames += context.decode(packet)
        frames += context.decode(None)
    except av.FFmpegError as error:
        raise NoBitstreamSignals(f"a picture of it fails to decode alone ({error.strerror})") from error
    finally:
        context.flush_buffers()
    targets = [frame for frame in frames if frame.pts == which % len(packets)]
    if not targets:
        raise NoBitstreamSignals("a picture of it does not come out when decoded alone")
    return targets[0]


def _table(frame: VideoFrame) -> Shaped[np.ndarray, "n"] | None:
    vectors = frame.side_data.get("MOTION_VECTORS")
    return None if vectors is None else vectors.to_ndarray()


def luma_of(frame: VideoFrame) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
    """A view of the frame's luma plane (for RGB streams: green), and its bit depth; it lives as long as the frame."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.asarray(memoryview(plane)[: plane.line_size * plane.height]).view(kind).reshape(plane.height, -1)
    return rows[:, : plane.width], bits


def gradient(frame: VideoFrame) -> Int16[np.ndarray, "H W"]:
    """Gradient magnitude of the frame's luma by central differences, rounded, in 8-bit units, 0 along a border's normal."""
    luma, bits = luma_of(frame)
    scale = 0.5 / (1 << (bits - 8))
    down = cv2.Sobel(luma, cv2.CV_32F, 0, 1, ksize=1, scale=scale)
    right = cv2.Sobel(luma, cv2.CV_32F, 1, 0, ksize=1, scale=scale)
    return _length(right, down)


def gradient_into(
    out: Int16[np.ndarray, "H W"], frame: VideoFrame, where: Bool[np.ndarray, "h w"], offset_px: tuple[int, int]
) -> None:
    """Writes the `gradient` of the frame into `out` on the cells `where`, which begin `offset_px` outside of the picture."""
    (rows, columns), (height, width), (top, left) = where.shape, out.shape, offset_px
    if where.mean() > _MANY or (height, width) != (rows * CELL_PX, columns * CELL_PX):
        pixels = repeat(where, "h w -> (h a) (w b)", a=CELL_PX, b=CELL_PX)[top : top + height, left : left + width]
        np.copyto(out, gradient(frame), where=pixels)
        return
    luma, bits = luma_of(frame)
    padded = cv2.copyMakeBorder(luma, 1, 1, 1, 1, cv2.BORDER_REFLECT_101)
    down, right = padded.strides
    around = (CELL_PX * down, CELL_PX * right, down, right)  # each cell with the pixels next to it
    cell = np.ndarray((rows, columns, CELL_PX + 2, CELL_PX + 2), padded.dtype, padded, 0, around)[where]
    cell = cell.astype(np.float32) * np.float32(0.5 / (1 << (bits - 8)))
    across, along = cell[:, 1:-1, 2:] - cell[:, 1:-1, :-2], cell[:, 2:, 1:-1] - cell[:, :-2, 1:-1]
    out.reshape(rows, CELL_PX, columns, CELL_PX).swapaxes(1, 2)[where] = _length(across, along)


def _length(right: Float32[np.ndarray, "*shape"], down: Float32[np.ndarray, "*shape"]) -> Int16[np.ndarray, "*shape"]:
    # Exact until the root, which every machine rounds alike (cv2.magnitude is not bound to).
    return np.rint(np.sqrt(right * right + down * down)).astype(np.int16)
