"""Pictures as bytes and back: JPEG files of frames and mosaics, JPEG, PNG and WebP files of image records."""

import zlib

import cv2
import numpy as np
from jaxtyping import UInt8

from ove.config import limits
from ove.errors import BadShard
from ove.sources.image_size import image_size
from ove.sources.images import IMAGE_SIGNATURES

_KINDS = ("JPEG", "PNG", "WebP")
_JPEG_START, _PNG_START, _WEBP_START = STARTS = tuple(IMAGE_SIGNATURES[kind][0] for kind in _KINDS)
"""First bytes of the formats that records may hold."""
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
MOSAIC_QUALITY = 95
"""JPEG quality, at 4:4:4: neighbours in a mosaic are unrelated, and 4:2:0 would bleed colour across their borders."""


def encode_jpeg(picture: UInt8[np.ndarray, "H W 3"], quality: int) -> bytes:
    """Encodes an RGB picture as a JPEG file of the given quality (1…100), chroma at full resolution."""
    # 4:2:0 would bleed colour across the borders of patches, which are seen alone.
    chroma = [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return _encoded(picture, ".jpg", [cv2.IMWRITE_JPEG_QUALITY, quality, *chroma])


def encode_png(picture: UInt8[np.ndarray, "H W 3"]) -> bytes:
    """Encodes an RGB picture as a PNG file."""
    return _encoded(picture, ".png", [])


def whole_picture(data: bytes) -> bytes | None:
    """Returns a JPEG, PNG or WebP file without what follows its end; None for other files, and for truncated ones.

    Some versions of OpenCV fill a truncated file with gray instead of refusing it, so its end is looked for here.
    """
    if data.startswith(_JPEG_START):
        scan = _jpeg_scan(data)
        end = data.find(_JPEG_END, scan) if scan else -1
        return data[: end + 2] if end > 0 else None
    if data.startswith(_PNG_START):
        end = data.find(_PNG_END)
        return data[: end + len(_PNG_END)] if end > 0 else None
    if data.startswith(_WEBP_START) and data[8:12] == b"WEBP":
        size = 8 + int.from_bytes(data[4:8], "little")
        return data[:size] if len(data) >= size else None
    return None


def picture_format(data: bytes) -> str:
    """Returns the format of a file by its first bytes: "jpeg", "png" or "webp"; "unknown" for others."""
    return next(
        (name for name, start in zip(("jpeg", "png", "webp"), STARTS, strict=True) if data.startswith(start)), "unknown"
    )


def decode_picture(data: bytes) -> UInt8[np.ndarray, "H W 3"] | None:
    """Decodes a whole JPEG, PNG or WebP file to RGB, ignoring its orientation; None for other or damaged files.

    BadShard for more pixels than `LimitsConfig` allows.
    """
    whole = data.endswith((_JPEG_END, _PNG_END)) or (data.startswith(_WEBP_START) and whole_picture(data) == data)
    if not whole or not data.startswith(STARTS):
        return None
    size = image_size(next(kind for kind in _KINDS if data.startswith(IMAGE_SIGNATURES[kind])), data)
    if size is not None and (excess := limits().excess("max_picture_pixels", size.pixels, "pixels")):
        raise BadShard(f"a picture of {size.width}×{size.height} has {excess}; make it smaller or raise the limit.")
    try:
        return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)
    except cv2.error:  # of a header that asks for the impossible
        return None


def _jpeg_scan(data: bytes) -> int:
    """Returns where the first scan of a JPEG begins, behind segments that may hold a thumbnail; 0 if there is none.

    In a scan 0xFF is followed by 0 or a restart marker, so that the next end marker is the picture's own.
    """
    position = 2
    while position + 4 <= len(data) and data[position] == 0xFF:
        if data[position + 1] == 0xDA:
            return position
        filling = data[position + 1] == 0xFF
        position += 1 if filling else 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def _encoded(picture: UInt8[np.ndarray, "H W 3"], suffix: str, options: list[int]) -> bytes:
    done, buffer = cv2.imencode(suffix, cv2.cvtColor(picture, cv2.COLOR_RGB2BGR), options)
    if not done:
        raise BadShard(f"OpenCV could not encode a picture of shape {picture.shape} as {suffix}; check its build.")
    return buffer.tobytes()
