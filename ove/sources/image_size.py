"""The size that an image file's header announces, read before any of it is decoded."""

import re
import struct
from collections.abc import Callable
from dataclasses import dataclass

_PNM = re.compile(rb"P([1-6])" + 3 * rb"(?:\s+(?:#[^\n]*\n\s*)*(\d{1,9}))?")
_SOF = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}
"""Markers of a JPEG frame header (ITU-T T.81, table B.1)."""
_WIDTH, _HEIGHT, _BITS, _SAMPLES = 256, 257, 258, 277
"""TIFF tags."""


@dataclass(frozen=True)
class ImageSize:
    """What a header announces."""

    width: int
    height: int
    pixel_bytes: int
    """Bytes of a decoded pixel: three or four channels at the file's depth."""

    @property
    def pixels(self) -> int:
        """Number of pixels."""
        return self.width * self.height

    @property
    def decoded_bytes(self) -> int:
        """Bytes of all decoded pixels."""
        return self.pixels * self.pixel_bytes


def image_size(kind: str, data: bytes) -> ImageSize | None:
    """Returns the size that a file of this kind (a key of `IMAGE_SIGNATURES`) announces; None if its header is cut off.

    Of AVIF, which has a size for each of its parts, the largest.
    """
    try:
        return _READERS[kind](data)
    except (struct.error, IndexError):
        return None


def _jpeg(data: bytes) -> ImageSize | None:
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker in _SOF:
            height, width = struct.unpack_from(">HH", data, position + 5)
            return ImageSize(width, height, max(3, data[position + 9]) * (2 if data[position + 4] > 8 else 1))
        position += 1 if marker == 0xFF else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return None


def _png(data: bytes) -> ImageSize | None:
    if data[12:16] != b"IHDR":
        return None
    width, height, depth = struct.unpack_from(">IIB", data, 16)
    return ImageSize(width, height, 4 * (2 if depth > 8 else 1))


def _webp(data: bytes) -> ImageSize | None:
    form = data[12:16]
    if form == b"VP8X":
        return ImageSize(1 + int.from_bytes(data[24:27], "little"), 1 + int.from_bytes(data[27:30], "little"), 4)
    if form == b"VP8L":
        (packed,) = struct.unpack_from("<I", data, 21)
        return ImageSize(1 + (packed & 0x3FFF), 1 + (packed >> 14 & 0x3FFF), 4)
    width, height = struct.unpack_from("<HH", data, 26)
    return ImageSize(width & 0x3FFF, height & 0x3FFF, 3)


def _tiff(data: bytes) -> ImageSize | None:
    order = "<" if data.startswith(b"II") else ">"
    (at,) = struct.unpack_from(order + "I", data, 4)
    (count,) = struct.unpack_from(order + "H", data, at)
    found = {_SAMPLES: 1, _BITS: 1}
    for entry in range(at + 2, at + 2 + 12 * count, 12):
        tag, kind, number = struct.unpack_from(order + "HHI", data, entry)
        form = order + ("H" if kind == 3 else "I")
        fits = number * struct.calcsize(form) <= 4
        where = entry + 8 if fits else struct.unpack_from(order + "I", data, entry + 8)[0]
        if tag in (_WIDTH, _HEIGHT, _BITS, _SAMPLES):
            (found[tag],) = struct.unpack_from(form, data, where)
    if _WIDTH not in found or _HEIGHT not in found:
        return None
    return ImageSize(found[_WIDTH], found[_HEIGHT], max(3, found[_SAMPLES]) * -(-max(8, found[_BITS]) // 8))


def _bmp(data: bytes) -> ImageSize:
    small = struct.unpack_from("<I", data, 14)[0] == 12
    width, height = struct.unpack_from("<HH" if small else "<ii", data, 18)
    return ImageSize(abs(width), abs(height), 4)


def _gif(data: bytes) -> ImageSize:
    width, height = struct.unpack_from("<HH", data, 6)
    return ImageSize(width, height, 4)


def _jpeg_2000(data: bytes) -> ImageSize:
    # Marker segment SIZ (ITU-T T.800, A.5.1), which decoders follow, not the box around the code stream.
    at = data.index(b"\xff\x4f\xff\x51") if b"\xff\x4f\xff\x51" in data else len(data)
    right, bottom, left, top = struct.unpack_from(">IIII", data, at + 8)
    components, depth = struct.unpack_from(">HB", data, at + 40)
    return ImageSize(max(right - left, 0), max(bottom - top, 0), max(3, components) * (2 if depth & 127 > 7 else 1))


def _pnm(data: bytes) -> ImageSize | None:
    match = _PNM.match(data)
    if match is None or match[3] is None:
        return None
    deep = match[1] not in b"14" and int(match[4] or 0) > 255
    return ImageSize(int(match[2]), int(match[3]), 6 if deep else 3)


def _avif(data: bytes) -> ImageSize | None:
    found = [struct.unpack_from(">II", data, match.end() + 4) for match in re.finditer(b"ispe", data[: 1 << 16])]
    if not found:
        return None
    width, height = max(found, key=lambda size: size[0] * size[1])
    return ImageSize(width, height, 4)


_READERS: dict[str, Callable[[bytes], ImageSize | None]] = {
    "JPEG": _jpeg,
    "PNG": _png,
    "WebP": _webp,
    "TIFF": _tiff,
    "BMP": _bmp,
    "GIF": _gif,
    "JPEG 2000": _jpeg_2000,
    "PNM": _pnm,
    "AVIF": _avif,
}
