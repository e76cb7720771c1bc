"""Whether a file is shorter than its own header says, which FFmpeg ignores in AVI, Matroska and WebM."""

import struct
from pathlib import Path

from av.container import InputContainer
from av.video.stream import VideoStream

_HEAD_BYTES = 1 << 16


def frames_announced(container: InputContainer, stream: VideoStream) -> int:
    """Returns the number of packets that a whole file must have; 0 where the container does not tell.

    The index of an MP4 has gone through its edit list, the count in its header has not. The count in the header of an AVI
    holds empty chunks, too, which repeat the picture before them and give no packet.
    """
    of_index = any(name in container.format.name for name in ("mp4", "avi"))
    return len(stream.index_entries) if of_index else stream.frames


def is_cut(path: Path) -> bool:
    """Returns whether an AVI, Matroska or WebM file is shorter than its parts say that they are; False for other files."""
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    return _riff_is_cut(path) if head[:4] == b"RIFF" and head[8:12] == b"AVI " else _segment_is_cut(path, head)


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


def _segment_is_cut(path: Path, head: bytes) -> bool:
    """Returns whether a Matroska or WebM file is shorter than its segment (RFC 8794, RFC 9559)."""
    at = head.find(b"\x18\x53\x80\x67")
    if not head.startswith(b"\x1a\x45\xdf\xa3") or at < 0 or len(head) < at + 12:
        return False
    length = 9 - head[at + 4].bit_length()  # the leading zeros of a size tell how many bytes it has
    value_bits = 7 * length
    size = int.from_bytes(head[at + 4 : at + 4 + length], "big") & ((1 << value_bits) - 1)
    # All ones: a live recording of unknown size.
    return size != (1 << value_bits) - 1 and path.stat().st_size < at + 4 + length + size
