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
from av.video.frame import PictureType, VideoFrame
from einops import repeat
from jaxtyping import Bool, Float32, Int16, Shaped, UInt8, UInt16

from ove.config import limits
from ove.records import CELL_PX

_MANY = 0.3
"""Share of the cells above which the gradient of the whole picture is faster than that of single cells (measured)."""


class NoBitstreamSignals(Exception):
    """The bitstream gives no exact signals; the message says why."""


def check_picture(width: int, height: int) -> None:
    """Raises NoBitstreamSignals for a header whose pictures have more pixels than a video's may have."""
    if excess := limits().excess("max_frame_pixels", width * height, "pixels"):
        raise NoBitstreamSignals(f"a header of it has pictures of {width}×{height}: {excess}")


class GrayDecoder(ABC):
    """Decodes single packets of one stream against a gray reference."""

    mbaff = False
    """Whether pairs of macroblocks are coded frame- or field-wise (MBAFF); FFmpeg does not export which."""
    has_vectors = True
    """Whether the ordinary decoder exports motion vectors, which tell which blocks are inter-coded."""

    @abstractmethod
    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Reads the headers in a packet, and in a new stream header that came with it.

        Called with each packet of the stream, in display order. NoBitstreamSignals where it is uncertain which headers apply.
        """

    @abstractmethod
    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """Returns the packet's luma as decoded after a gray picture, and its bit depth; valid on inter-coded pixels only."""

    def start_px(self, height: int, width: int) -> tuple[int, int]:
        """Returns (down, right): where a shown picture of this size begins in the coded one."""
        return 0, 0

    def vectors(self, frame: VideoFrame, packet: bytes) -> Shaped[np.ndarray, "n"] | None:
        """Returns the motion vectors that FFmpeg attached to a decoded frame, given its packet; None where it has none."""
        try:
            found = frame.side_data.get("MOTION_VECTORS")
        except ValueError as error:  # PyAV has no name for a kind of side data that the frame has
            raise NoBitstreamSignals(f"its frames carry side data that PyAV {av.__version__} does not know") from error
        return None if found is None else found.to_ndarray()

    def residual_into(self, out: Int16[np.ndarray, "H W"], frame: VideoFrame, packet: bytes) -> None:
        """Writes into `out` the luma residual of a decoded frame, given its packet, in 8-bit units; −128…127."""
        luma, bits = self.luma(packet)
        if luma.shape != out.shape:
            raise NoBitstreamSignals(f"a picture of it decodes alone to {luma.shape[1]}×{luma.shape[0]} pixels")
        np.subtract(luma, 1 << (bits - 1), out=out, dtype=np.int16, casting="unsafe")
        if bits > 8:
            out >>= bits - 8


class GrayPictures(GrayDecoder):
    """A gray decoder of a codec whose header and pictures lie side by side, as in MPEG-1, MPEG-2 and MPEG-4 part 2."""

    n_references = 2
    """Gray pictures decoded first: a B-picture takes one as its past and one as its future."""

    def __init__(self, codec: str, extradata: bytes) -> None:
        """Takes the header from the stream's if it is there; else the first packet brings it."""
        self._context = open_decoder(codec, b"", vectors=True, err_detect="explode")
        self._header, self._gray = b"", b""
        """The stream's first header, and a gray picture for it; empty before it is found."""
        self.observe(extradata)

    @abstractmethod
    def _picture(self, packet: bytes) -> bytes:
        """Returns the part of a packet that is its picture; NoBitstreamSignals if that cannot be decoded alone."""

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """Returns the packet's luma as decoded after gray pictures, and its bit depth; valid on inter-coded pixels only."""
        more = [self._gray] * (self.n_references - 1)
        return luma_of(decode_one(self._context, [self._header + self._gray, *more, self._picture(packet)]))

    def vectors(self, frame: VideoFrame, packet: bytes) -> Shaped[np.ndarray, "n"] | None:
        """Returns the frame's motion vectors; of the last frame, to which FFmpeg attaches none, by decoding it alone."""
        if frame.pict_type == PictureType.P and "MOTION_VECTORS" not in frame.side_data:
            frame = decode_one(self._context, [self._header + self._gray, self._picture(packet), self._gray], which=1)
        return super().vectors(frame, packet)


def open_decoder(codec: str, extradata: bytes, vectors: bool = False, **options: str) -> VideoCodecContext:
    """Opens a single-threaded decoder without loop filter that returns all it decodes, with motion vectors if asked for."""
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
    """Returns a packet with a copy of the data, followed by the zeros that decoders may read past its end."""
    packet = av.Packet(len(data))
    packet.update(data)
    return packet


def decode_one(context: VideoCodecContext, packets: list[bytes], which: int = -1) -> VideoFrame:
    """Decodes packets from a fresh start and returns the frame of one of them; NoBitstreamSignals if it has none."""
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


def luma_of(frame: VideoFrame) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
    """Returns a view of the frame's luma plane (for RGB streams: green), valid as long as the frame, and its bit depth."""
    plane, bits = frame.planes[0], frame.format.components[0].bits
    kind = np.dtype(np.uint8 if bits == 8 else "<u2")
    rows = np.asarray(memoryview(plane)[: plane.line_size * plane.height]).view(kind).reshape(plane.height, -1)
    return rows[:, : plane.width], bits


def gradient(frame: VideoFrame) -> Int16[np.ndarray, "H W"]:
    """Returns the gradient magnitude of the luma by central differences, rounded, in 8-bit units; 0 normal to a border."""
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
