"""Single MPEG-1 and MPEG-2 pictures decoded after two synthetic gray ones (spec §2, "Signals without a patched FFmpeg").

Pictures depend on nothing but their references, the sequence header and, in MPEG-2, matrices that a picture may send for those
after it. Clause numbers are those of ITU-T H.262 (02/2012); MPEG-1 (ISO/IEC 11172-2) has the same syntax without extensions.
"""

import re

from ove.video.bitstream.gray import GrayPictures, NoBitstreamSignals, check_picture
from ove.video.bitstream.nal import BitReader, BitWriter

_START = b"\x00\x00\x01"
_SEQUENCE, _PICTURE, _EXTENSION = _START + b"\xb3", _START + b"\x00", _START + b"\xb5"
_SEQUENCE_EXTENSION, _MATRICES, _SCALABLE, _PICTURE_EXTENSION = 1, 3, 5, 8
"""extension_start_code_identifier (table 6-2)."""
_AFTER_SEQUENCE = re.compile(rb"\x00\x00\x01[\x00\xb8]")
_FRAME_STRUCTURE = 3
_TALLEST_PX = 2800
"""Above it, slices have slice_vertical_position_extension (6.3.16)."""


class GrayMpeg12(GrayPictures):
    """Decodes single packets of an MPEG-1 or MPEG-2 stream against gray references."""

    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Reads the first sequence header; NoBitstreamSignals where a later one, or a picture, changes what it says."""
        if header:
            self.observe(header)
        picture = packet.find(_PICTURE)
        head = packet if picture < 0 else packet[: packet.find(_START + b"\x01", picture)]
        if any(_extension(head, at) in (_MATRICES, _SCALABLE) for at in _places(head, _EXTENSION)):
            raise NoBitstreamSignals("it is scalable, or its pictures change the matrices for those after them")
        start = packet.find(_SEQUENCE)
        if start < 0:
            return
        end = _AFTER_SEQUENCE.search(packet, start)
        sequence = packet[start : end.start() if end else None]
        if self._header and sequence != self._header:
            raise NoBitstreamSignals("its sequence header changes within the stream")
        if not self._header:
            try:
                self._gray = gray_picture(sequence)
            except (ValueError, IndexError) as error:
                raise NoBitstreamSignals(f"its sequence header cannot be read ({error})") from error
            self._header = sequence

    def _picture(self, packet: bytes) -> bytes:
        pictures = _places(packet, _PICTURE)
        if not self._header or not pictures:
            raise NoBitstreamSignals("a picture of it comes without a header")
        for at in _places(packet, _EXTENSION):
            if _extension(packet, at) == _PICTURE_EXTENSION and packet[at + 6] & 3 != _FRAME_STRUCTURE:
                raise NoBitstreamSignals("it holds pictures of single fields")
        if len(pictures) > 1:
            raise NoBitstreamSignals("a packet of it holds several pictures")
        return packet[pictures[0] :]


def _places(data: bytes, start_code: bytes) -> list[int]:
    return [match.start() for match in re.finditer(re.escape(start_code), data)]


def _extension(data: bytes, at: int) -> int:
    """Returns the identifier of the extension that begins there; 0 where the data end."""
    return data[at + 4] >> 4 if at + 6 < len(data) else 0


def gray_picture(sequence: bytes) -> bytes:
    """Returns an intra picture of uniform mid-gray for streams with this sequence header (and extension, 6.2.2).

    Every macroblock is intra with DC differences of 0 and no other coefficients: DC is predicted as 2^(bits−1) (7.2.1).
    """
    r = BitReader(sequence[4:12])
    width, height, chroma_blocks, mpeg2, progressive = r.bits(12), r.bits(12), 2, False, True
    for at in _places(sequence, _EXTENSION):
        if _extension(sequence, at) == _SEQUENCE_EXTENSION:
            e = BitReader(sequence[at + 4 : at + 10])
            e.bits(12)
            mpeg2, progressive, chroma_blocks = True, e.flag(), 1 << e.bits(2)
            width, height = width + (e.bits(2) << 12), height + (e.bits(2) << 12)
    check_picture(width, height)
    columns, rows = -(-width // 16), -(-height // 16) if progressive else 2 * -(-height // 32)
    picture = BitWriter(*_PICTURE)
    picture.raw("0" * 10, "001", "1" * 16)  # order of display, type I, no buffer model
    data = [picture.aligned(stop="0")]
    if mpeg2:
        extension = BitWriter(*_EXTENSION)
        extension.raw("1000", "1111" * 4, "00", "11")  # no vectors; 8 bits of DC; a frame
        extension.raw("0", "1", "00000", "1" if chroma_blocks == 2 else "0", "1", "0")  # no field DCT; progressive
        data.append(extension.aligned(stop=""))
    macroblock = "1" + "1" + "10010" * 4 + "0010" * chroma_blocks  # next address, intra; DC of size 0 and end, per block
    for row in range(rows):
        piece = BitWriter(*_START, (row & 127 if height > _TALLEST_PX else row) + 1)
        piece.number(row >> 7, 3 if height > _TALLEST_PX else 0)
        piece.raw("00001", "0", macroblock * columns)  # quantiser scale 1
        data.append(piece.aligned(stop=""))
    return b"".join(data)
