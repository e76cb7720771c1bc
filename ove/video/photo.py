"""Still pictures in the container of MP4, which FFmpeg opens as videos of one frame."""

from pathlib import Path

_PHOTO_BRANDS = frozenset([b"heic", b"heix", b"heim", b"heis", b"mif1", b"avif"])
"""Major brands of files with pictures; sequences have others (ISO/IEC 23008-12, 10; AV1 Image File Format, 6)."""


def is_photo(path: Path) -> bool:
    """Returns whether a file is a HEIC or AVIF picture, by its first box."""
    with path.open("rb") as file:
        head = file.read(12)
    return head[4:8] == b"ftyp" and head[8:] in _PHOTO_BRANDS
