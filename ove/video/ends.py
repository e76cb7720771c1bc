"""Whether parts of a file are missing that it announces, which FFmpeg passes over in AVI, Matroska, WebM and Ogg."""

import struct
import zlib
from pathlib import Path
from typing import BinaryIO

from av.container import InputContainer
from av.video.stream import VideoStream

_HEAD_BYTES = 1 << 16
_ELEMENT_BYTES = 12
"""Most bytes of an element's name and size."""
_SEGMENT, _CLUSTER = b"\x18\x53\x80\x67", b"\x1f\x43\xb6\x75"
_PAGE_BYTES = 27
"""Of a page's header, before the table of its segments."""
_REVERSED = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))


def frames_announced(container: InputContainer, stream: VideoStream) -> int:
    """Returns the number of packets that a whole file must have; 0 where the container does not tell.

    The index of an MP4 has gone through its edit list, the count in its header has not. The count in the header of an AVI
    holds empty chunks, too, which repeat the picture before them and give no packet.
    """
    of_index = any(name in container.format.name for name in ("mp4", "avi"))
    return len(stream.index_entries) if of_index else stream.frames


def missing_part(path: Path) -> str:
    """Returns what an AVI, Matroska, WebM or Ogg file lacks of what its parts announce; nothing of whole and of other files."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
        if head[:4] == b"RIFF" and head[8:12] == b"AVI ":
            return "the file ends early" if _riff_is_cut(path) else ""
        if head[:4] == b"OggS":
            return _missing_pages(file, path.stat().st_size)
        at = head.find(_SEGMENT)
        if head.startswith(b"\x1a\x45\xdf\xa3") and 0 <= at < len(head) - 12:
            return _missing_elements(file, at, path.stat().st_size)
    return ""


def _riff_is_cut(path: Path) -> bool:
    """Follows the RIFF chunks of an AVI, of which files above 1 GB have several; their size is 0 while a file is written."""
    at, size = 0, path.stat().st_size
    with path.open("rb") as file:
        while at + 12 <= size:
            file.seek(at)
            name, length = struct.unpack("<4sI", file.read(8))
            if name != b"RIFF":
                return False  # something was appended
            if length == 0 or at + 8 + length > size:
                return True
            at += 8 + length + length % 2
    return False


def _missing_elements(file: BinaryIO, at: int, end: int) -> str:
    """Follows the elements of a Matroska or WebM segment (RFC 8794, RFC 9559), those of clusters one by one.

    FFmpeg goes on with the next cluster after one that it cannot read.
    """
    while at < end:
        file.seek(at)
        head = file.read(_ELEMENT_BYTES)
        name_bytes = 9 - head[0].bit_length()  # the leading zeros of a name and of a size tell how many bytes each has
        size_at = head[name_bytes : name_bytes + 1]
        size_bytes = 9 - size_at[0].bit_length() if size_at else 9
        if name_bytes > 4 or size_bytes > 8:
            return "the file ends early" if len(head) < _ELEMENT_BYTES else "a part of it is overwritten"
        name, value_bits = head[:name_bytes], 7 * size_bytes
        size = int.from_bytes(head[name_bytes : name_bytes + size_bytes], "big") & ((1 << value_bits) - 1)
        is_open = size == (1 << value_bits) - 1  # a live recording of unknown size
        at += name_bytes + size_bytes
        if not is_open and at + size > end:
            return "the file ends early"
        if name == _SEGMENT and not is_open:
            end = at + size
        elif name not in (_SEGMENT, _CLUSTER):
            at += size
    return ""


def _missing_pages(file: BinaryIO, end: int) -> str:
    """Follows the pages of an Ogg file (RFC 3533, 6), whose streams number them and mark their last one."""
    at, following, unfinished = 0, dict[bytes, int](), set[bytes]()
    while at < end:
        file.seek(at)
        head = file.read(_PAGE_BYTES)
        if head[:4] != b"OggS" or len(head) < _PAGE_BYTES:
            break  # nothing of a video may stand behind its last page
        lacing = file.read(head[26])
        page = head + lacing + file.read(sum(lacing))
        if len(page) < _PAGE_BYTES + head[26] + sum(lacing):
            break
        stream, (number, checksum) = page[14:18], struct.unpack_from("<II", page, 18)
        is_first, is_last = page[5] & 2, page[5] & 4
        if _ogg_checksum(page[:22] + bytes(4) + page[26:]) != checksum:
            return "a page of it is damaged"
        if not is_first and following.get(stream, number) != number:
            return "pages are missing in it"
        following[stream] = number + 1
        (unfinished.discard if is_last else unfinished.add)(stream)
        at += len(page)
    return "the file ends early" if unfinished or not at else ""


def _ogg_checksum(page: bytes) -> int:
    """Returns the CRC of RFC 3533: zlib's polynomial from the other end of each byte, without its inversions."""
    crc = zlib.crc32(page.translate(_REVERSED), 0xFFFFFFFF) ^ 0xFFFFFFFF
    return int(f"{crc:032b}"[::-1], 2)
