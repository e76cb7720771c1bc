"""Single MPEG-4 part 2 pictures decoded after a synthetic gray one (spec §2, "Signals without a patched FFmpeg").

Streams with B-pictures are not supported: FFmpeg exports zero for all their vectors, and which macroblocks they code depends
on those that their future reference skipped. Clause numbers are those of ISO/IEC 14496-2:2004.
"""

from ove.video.bitstream.gray import GrayPictures, NoBitstreamSignals, check_picture
from ove.video.bitstream.nal import BitReader, BitWriter

_VOP = b"\x00\x00\x01\xb6"
_LAYERS = [b"\x00\x00\x01" + bytes([0x20 + i]) for i in range(16)]
_B, _RECTANGULAR, _GMC, _EXTENDED_PIXEL = 2, 0, 2, 15


class GrayMpeg4(GrayPictures):
    """Decodes single packets of an MPEG-4 part 2 stream against a gray reference."""

    n_references = 1  # no B-pictures

    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Reads the first header; NoBitstreamSignals where a later one differs, and where a packet is neither I nor P."""
        start = packet.find(_VOP)
        if packet.find(_VOP, start + 4) > 0:
            raise NoBitstreamSignals("a packet of it holds several pictures")
        if 0 <= start < len(packet) - 4 and packet[start + 4] >> 6 == _B:
            raise NoBitstreamSignals("it holds B-pictures, whose motion vectors FFmpeg does not tell")
        self._take(header)
        self._take(packet[:start] if start >= 0 else packet)

    def _take(self, header: bytes) -> None:
        layer = max(header.find(code) for code in _LAYERS)
        if layer < 0:
            return
        try:
            gray = gray_vop(header[layer + 4 :])
        except ValueError as error:
            raise NoBitstreamSignals(f"its header cannot be read ({error})") from error
        if self._gray and gray != self._gray:
            raise NoBitstreamSignals("its header changes within the stream")
        if not self._gray:
            # With the user data of its encoder, by which FFmpeg chooses the inverse transform.
            self._header, self._gray = header, gray

    def _picture(self, packet: bytes) -> bytes:
        start = packet.find(_VOP)
        if not self._gray or start < 0:
            raise NoBitstreamSignals("a picture of it comes without a header")
        return packet[start:]


def gray_vop(layer: bytes) -> bytes:
    """Returns an intra VOP of uniform mid-gray for a layer with this header (without its start code; 6.2.3).

    Every macroblock is intra with DC differences of 0: at quantiser 1 the prediction 1024 / 8 is exact (7.4.3).
    NoBitstreamSignals for layers whose pictures hold more than texture and vectors.
    """
    r = BitReader(layer[:160])
    r.bits(9)
    version = 1
    if r.flag():
        version = r.bits(4)
        r.bits(3)
    if r.bits(4) == _EXTENDED_PIXEL:
        r.bits(16)
    if r.flag():  # vol_control_parameters
        r.bits(3)
        r.bits(79 if r.flag() else 0)
    shape, _, resolution, _, fixed_rate = r.bits(2), r.bits(1), r.bits(16), r.bits(1), r.flag()
    if shape != _RECTANGULAR:
        raise NoBitstreamSignals("its pictures are not rectangular")
    time_bits = max(1, (resolution - 1).bit_length())
    r.bits(time_bits if fixed_rate else 0)
    _, width, _, height, _ = r.bits(1), r.bits(13), r.bits(1), r.bits(13), r.bits(1)
    interlaced, _, sprite = r.flag(), r.bits(1), r.bits(1 if version == 1 else 2)
    if sprite == _GMC:
        r.bits(9)
    if sprite not in (0, _GMC) or r.flag():
        raise NoBitstreamSignals("it uses sprites, or samples of other than 8 bits")
    if r.flag():  # quant_type: matrices, ended by a 0 or by their length
        for _ in range(2):
            if r.flag():
                any(r.bits(8) == 0 for _ in range(64))
    r.bits(0 if version == 1 else 1)
    estimated, _, partitioned = not r.flag(), r.bits(1), r.flag()
    layered = version != 1 and r.bits(2) != 0
    if estimated or partitioned or layered or r.flag():
        raise NoBitstreamSignals("it uses partitions, scalability or complexity estimation")

    check_picture(width, height)
    vop = BitWriter(*_VOP)
    vop.raw("00", "0", "1", "0" * time_bits, "1", "1", "000")  # I; time 0; coded; DC always by its own code
    vop.raw("00" if interlaced else "", "00001")  # no field order; quantiser 1
    # Intra, no AC prediction, no coefficients, frame DCT, DC differences of size 0 (tables B-6, B-8, B-13, B-14).
    macroblock = "1" + "0" + "0011" + ("0" if interlaced else "") + "011" * 4 + "11" * 2
    vop.raw(macroblock * (-(-width // 16) * -(-height // 16)))
    return vop.aligned(stop="0", fill="1")
