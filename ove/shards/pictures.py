"""Pictures as bytes and back: JPEG files of frames and mosaics, and the JPEG, PNG and WebP files of image records."""

import zlib

import cv2
import numpy as np
from jaxtyping import UInt8

from ove.errors import BadShard

_JPEG_START, _JPEG_END = b"\xff\xd8", b"\xff\xd9"
_PNG_START, _PNG_END = b"\x89PNG\r\n\x1a\n", b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
MOSAIC_QUALITY = 95
"""4:4:4: neighbours in a mosaic have nothing to do with each other, and 4:2:0 would bleed colour across their borders."""


def encode_jpeg(picture: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """An RGB picture as a JPEG file of the given quality (1…100), chroma at full resolution."""
    # 4:2:0 would smear colour over the borders of patches, which are cut out and seen alone.
    options = [
        cv2.IMWRITE_JPEG_QUALITY,
        quality,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR,
        cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444,
    ]
    return _encoded(picture, ".jpg", options)


def encode_png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """An RGB picture as a PNG file, without loss."""
    return _encoded(picture, ".png", [])


def format_of(data: bytes) -> str | None:
    """ "jpeg", "png" or "webp" by how the file begins and ends; None for anything else, and for files that were cut off.

    Some versions of OpenCV fill up a file that was cut off with gray instead of refusing it, so its end is looked at here.
    """
    if data.startswith(_JPEG_START):
        return "jpeg" if data.rstrip(b"\0").endswith(_JPEG_END) else None
    if data.startswith(_PNG_START):
        return "png" if _PNG_END in data[-64:] else None
    if data[:4] == b"RIFF" and data[8:12] == b"WEBP":
        return "webp" if len(data) >= int.from_bytes(data[4:8], "little") + 8 else None
    return None


def decode_picture(data: bytes) -> UInt8[np.ndarray, "H W 3"] | None:
    """The RGB pixels of a whole JPEG, PNG or WebP file, not turned; None if it is none of these or does not decode."""
    if format_of(data) is None:
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _encoded(picture: UInt8[np.ndarray, "H W 3"], suffix: str, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise BadShard(f"OpenCV could not encode a picture of shape {picture.shape} as {suffix}; check its build.")
    return buffer.tobytes()
