"""Pictures as bytes and back: JPEG files of frames and mosaics, and the JPEG, PNG and WebP files of image records."""

import zlib

import cv2
import numpy as np
from jaxtyping import UInt8

from ove.errors import BadShard
from ove.sources.images import IMAGE_SIGNATURES

_JPEG_START, _PNG_START, _WEBP_START = STARTS = tuple(IMAGE_SIGNATURES[kind][0] for kind in ("JPEG", "PNG", "WebP"))
"""How the files begin that records may hold."""
_JPEG_END, _PNG_END = b"\xff\xd9", b"IEND" + zlib.crc32(b"IEND").to_bytes(4, "big")
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


def whole_picture(data: bytes) -> bytes | None:
    """A JPEG, PNG or WebP file without whatever follows its end; None for anything else, and for one that was cut off.

    Some versions of OpenCV fill up a file that was cut off with gray instead of refusing it, so its end is looked for here.
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
    """What a file is by how it begins: "jpeg", "png" or "webp"; "unknown" for anything else."""
    return next(
        (name for name, start in zip(("jpeg", "png", "webp"), STARTS, strict=True) if data.startswith(start)), "unknown"
    )


def decode_picture(data: bytes) -> UInt8[np.ndarray, "H W 3"] | None:
    """The RGB pixels of a JPEG, PNG or WebP file that ends where it should, not turned; None if it is none or damaged."""
    whole = data.endswith((_JPEG_END, _PNG_END)) or (data.startswith(_WEBP_START) and whole_picture(data) == data)
    if not whole or not data.startswith(STARTS):
        return None
    return cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION)


def _jpeg_scan(data: bytes) -> int:
    """Where the first scan of a JPEG begins, behind segments that may hold a small JPEG of their own; 0 if there is none.

    Within scans 0xFF is followed by 0 or by the number of a restart, so that the next end marker is the picture's own.
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
