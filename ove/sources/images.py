"""An image file → upright RGB pixels of 8 bits a channel; anything but a whole image is refused."""

from collections.abc import Iterator
from pathlib import Path
from typing import Literal

import cv2
import numpy as np
from jaxtyping import Shaped, UInt8

from ove.config import limits
from ove.errors import BadClip
from ove.files import kind_of_text
from ove.paths import check_input
from ove.sources.image_size import image_size

IMAGE_SIGNATURES: dict[str, tuple[bytes, ...]] = {
    "JPEG": (b"\xff\xd8\xff",),
    "PNG": (b"\x89PNG\r\n\x1a\n",),
    "WebP": (b"RIFF",),
    "TIFF": (b"II*\0", b"MM\0*"),
    "BMP": (b"BM",),
    "GIF": (b"GIF87a", b"GIF89a"),
    "JPEG 2000": (b"\0\0\0\x0cjP  ", b"\xff\x4f\xff\x51"),
    "PNM": tuple(b"P%d" % kind + space for kind in range(1, 7) for space in (b"\n", b" ", b"\r", b"\t")),
    "AVIF": (b"ftypavif", b"ftypavis"),
}
"""First bytes of the accepted formats (AVIF: after four others)."""
_EXIF_WITHIN = 1 << 18
"""Bytes of a JPEG that are searched for its EXIF block."""
_EXIF_NAME = b"Exif\0\0"
_BYTE_ORDERS: dict[bytes, Literal["little", "big"]] = {b"II*\0": "little", b"MM\0*": "big"}
_ORIENTATION_TAG = 0x0112
_TURNS = {
    1: (False, 1, 1),
    2: (False, 1, -1),
    3: (False, -1, -1),
    4: (False, -1, 1),
    5: (True, 1, 1),
    6: (True, 1, -1),
    7: (True, -1, -1),
    8: (True, -1, 1),
}
"""EXIF orientation → whether to transpose, then the steps of rows and of columns (EXIF 2.3, §4.6.4)."""
_WHITE_16 = 65535
_STRIP_PIXELS = 1 << 20
"""Pixels that are blended at a time, so that a picture takes little more memory than its pixels."""
_WEBP_ALPHA, _WEBP_ANIMATION = 0x10, 0x02
"""Flags of an extended WebP file."""


def read_image(path: Path | str, data: bytes | None = None) -> UInt8[np.ndarray, "H W 3"]:
    """Reads an image file as RGB; BadClip, naming file and reason, if it is no whole image of an accepted format and size.

    With `data`, the bytes of the file, `path` only names it in errors. Applies the EXIF orientation; gray becomes three equal
    channels; 16 bits a channel are scaled to 8 (value / 257, rounded); transparent parts are put on white; colour profiles are
    ignored, also of CMYK. Of several pictures the first is read. Floating-point pictures, whose range is unknown, are refused,
    and so are rotated or mirrored AVIF files, for which OpenCV does nothing.
    """
    path = Path(path)
    kind, data = _contents(path) if data is None else (_kind(path, data[:16]), data)
    if kind == "AVIF" and (b"irot" in data[:4096] or b"imir" in data[:4096]):
        raise BadClip(f"{path}: an AVIF file to be rotated or mirrored, which is not supported; convert it to PNG or JPEG.")
    check_size(f"{path}", kind, data)
    transparent = _decode(path, kind, data, cv2.IMREAD_UNCHANGED) if _may_be_transparent(kind, data) else None
    if transparent is not None and transparent.ndim == 3 and transparent.shape[2] == 4:
        # OpenCV returns 8-bit TIFF colours already multiplied by their opacity.
        picture = _on_white(path, transparent, multiplied=kind == "TIFF" and transparent.dtype == np.uint8)
    else:
        # 10 and 12 bits of AVIF would come as small 16-bit numbers.
        depth = 0 if kind == "AVIF" else cv2.IMREAD_ANYDEPTH
        picture = _decode(path, kind, data, cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION | depth)
    if picture.dtype != np.uint8:
        picture = _eight_bits(path, picture)
    rgb = cv2.cvtColor(picture, cv2.COLOR_BGR2RGB)
    return np.ascontiguousarray(_upright(rgb, _orientation(kind, data)))


def check_size(name: str, kind: str, data: bytes) -> None:
    """Raises BadClip for a file whose header announces more pixels, or bytes of them, than `LimitsConfig` allows."""
    size = image_size(kind, data)
    if size is None:
        return  # the decoder finds no header either
    bounds = ("max_picture_pixels", size.pixels, "pixels"), ("max_picture_bytes", size.decoded_bytes, "bytes when decoded")
    for bound in bounds:
        if excess := limits().excess(*bound):
            raise BadClip(
                f"{name}: its picture of {size.width}×{size.height} has {excess}; make it smaller or raise the limit."
            )


def begins_like_an_image(head: bytes) -> bool:
    """Returns whether a file that begins with these bytes (at least 16, or all) is of a kind that `read_image` reads."""
    try:
        return bool(_kind(Path(), head))
    except BadClip:
        return False


def is_plain(data: bytes) -> bool:
    """Returns whether every decoder reads a file as `read_image` does.

    True of JPEG in gray or three colours, PNG of up to 8 bits a channel, and WebP, if upright, opaque, and a single picture.
    """
    kind = _kind(Path(), data[:16])
    if _orientation(kind, data) != 1:
        return False
    if kind == "JPEG":
        return _jpeg_components(data) in (1, 3)
    if kind == "PNG":
        return data[24] <= 8 and not _may_be_transparent(kind, data) and b"acTL" not in data[: max(data.find(b"IDAT"), 0)]
    if kind == "WebP" and data[12:16] == b"VP8X":
        return not data[20] & (_WEBP_ALPHA | _WEBP_ANIMATION)
    # Lossless: a byte 0x2F, 14 bits of the width, 14 of the height, and one that says whether there is transparency.
    return kind == "WebP" and not (data[12:16] == b"VP8L" and data[24] & 0x10)


def _jpeg_components(data: bytes) -> int:
    """Returns the channels of a JPEG, from its frame header (ITU-T T.81, B.2.2); 0 without one."""
    position = 2
    while position + 9 < len(data) and data[position] == 0xFF:
        marker = data[position + 1]
        if marker == 0xFF:
            position += 1  # fill byte
            continue
        if 0xC0 <= marker <= 0xCF and marker not in (0xC4, 0xC8, 0xCC):
            return data[position + 9]
        position += 2 + int.from_bytes(data[position + 2 : position + 4], "big")
    return 0


def _contents(path: Path) -> tuple[str, bytes]:
    """Returns the format and the bytes of a file, which is read whole only if it begins like an image."""
    check_input(path, "an image")
    try:
        if excess := limits().excess("max_input_bytes", path.stat().st_size, "bytes"):
            raise BadClip(f"{path}: has {excess}; make the picture smaller or raise the limit.")
        with path.open("rb") as file:
            head = file.read(16)
            return _kind(path, head), head + file.read()
    except OSError as error:
        raise BadClip(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error


def _kind(path: Path, head: bytes) -> str:
    """Returns the format of a file by its first 16 bytes; BadClip if it is not accepted."""
    kind = next((kind for kind, starts in IMAGE_SIGNATURES.items() if head[4 * (kind == "AVIF") :].startswith(starts)), None)
    if not head:
        raise BadClip(f"{path}: is empty (0 bytes); get a whole copy.")
    if kind is None or (kind == "WebP" and head[8:12] != b"WEBP"):
        if told := kind_of_text(head):
            raise BadClip(f"{path}: {told}.")
        if head[4:12] in (b"ftypheic", b"ftypheix", b"ftypheim", b"ftypheis", b"ftypmif1"):
            raise BadClip(f"{path}: is a picture in HEIC or HEIF, which is not read; convert it to JPEG or AVIF.")
        video = b"ftyp" in head or head.startswith((b"\x1a\x45\xdf\xa3", b"RIFF"))
        hint = "it may be a video: use another mode." if video else "leave it out or convert it."
        raise BadClip(f"{path}: not an image of an accepted format ({', '.join(IMAGE_SIGNATURES)}); {hint}")
    return kind


def _decode(path: Path, kind: str, data: bytes, flags: int) -> Shaped[np.ndarray, "..."]:
    try:
        picture = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as error:
        reason = " ".join(str(error).split())
        raise BadClip(f"{path}: this {kind} file cannot be decoded ({reason}); convert it or make it smaller.") from error
    if picture is None:
        raise BadClip(
            f"{path}: begins like a {kind} file but cannot be decoded: truncated, damaged or of a rare kind; get a whole copy "
            "or convert it to PNG or JPEG."
        )
    return picture


def _sixteen_bits(path: Path, picture: Shaped[np.ndarray, "H W C"]) -> Shaped[np.ndarray, "H W C"]:
    """Scales integers of 8 or 16 bits to 16."""
    if picture.dtype == np.uint8:
        return picture.astype(np.uint16) * 257
    if picture.dtype != np.uint16:
        raise BadClip(f"{path}: its pixels are of type {picture.dtype}; convert it to 8 or 16 bits a channel.")
    return picture


def _on_white(path: Path, bgra: Shaped[np.ndarray, "H W 4"], multiplied: bool) -> UInt8[np.ndarray, "H W 3"]:
    """Blends colours over white by their opacity, at 16 bits."""
    made = np.empty((*bgra.shape[:2], 3), np.uint8)
    for strip in _strips(bgra):
        deep = _sixteen_bits(path, bgra[strip]).astype(np.uint32)  # 65535² and a half fit
        colour, alpha = deep[..., :3], deep[..., 3:]
        if not multiplied:
            colour = (colour * alpha + _WHITE_16 // 2) // _WHITE_16
        made[strip] = (np.minimum(colour + (_WHITE_16 - alpha), _WHITE_16) + 128) // 257
    return made


def _eight_bits(path: Path, picture: Shaped[np.ndarray, "H W C"]) -> UInt8[np.ndarray, "H W C"]:
    made = np.empty(picture.shape, np.uint8)
    for strip in _strips(picture):
        made[strip] = (_sixteen_bits(path, picture[strip]).astype(np.uint32) + 128) // 257
    return made


def _strips(picture: Shaped[np.ndarray, "H W C"]) -> Iterator[slice]:
    """Yields slices of rows that together are the picture."""
    rows = max(1, _STRIP_PIXELS // max(1, picture.shape[1]))
    yield from (slice(start, start + rows) for start in range(0, len(picture), rows))


def _may_be_transparent(kind: str, data: bytes) -> bool:
    """False where the header rules it out, so that most files are decoded once."""
    if kind == "PNG":
        return data[25:26] in (b"\x04", b"\x06") or b"tRNS" in data[: max(data.find(b"IDAT"), 0)]
    if kind == "WebP":
        return data[12:16] != b"VP8 "
    return kind in ("TIFF", "GIF", "BMP", "JPEG 2000")


def _orientation(kind: str, data: bytes) -> int:
    """Returns the EXIF orientation, 1 (upright) … 8; OpenCV already turns TIFF files upright."""
    if kind == "JPEG":
        at = data.find(_EXIF_NAME, 0, _EXIF_WITHIN)
    elif kind == "PNG":
        at = data.rfind(b"eXIf") + 4
    elif kind == "WebP":
        at = data.rfind(b"EXIF") + 8
    else:
        return 1
    at += len(_EXIF_NAME) * data.startswith(_EXIF_NAME, max(at, 0))
    order = _BYTE_ORDERS.get(data[max(at, 0) : at + 4])
    if order is None:
        return 1

    def number(offset: int, size: int) -> int:
        return int.from_bytes(data[at + offset : at + offset + size], order)

    entries = number(4, 4)
    for entry in range(entries + 2, entries + 2 + 12 * min(number(entries, 2), 256), 12):
        if number(entry, 2) == _ORIENTATION_TAG:
            value = number(entry + 8, 2)
            return value if value in _TURNS else 1
    return 1


def _upright(rgb: UInt8[np.ndarray, "h w 3"], orientation: int) -> UInt8[np.ndarray, "H W 3"]:
    transposed, rows_step, columns_step = _TURNS[orientation]
    return (rgb.swapaxes(0, 1) if transposed else rgb)[::rows_step, ::columns_step]
