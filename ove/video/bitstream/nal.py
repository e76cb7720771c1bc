"""NAL units of H.264 and HEVC streams: split from packets and joined, their payload read and written bit by bit.

Clause numbers are those of ITU-T H.264 (08/2021); HEVC has the same emulation prevention.
"""

import re
from collections.abc import Iterator

_START = b"\x00\x00\x01"
_MOST_ZEROS = 32
"""Before an Exp-Golomb number: none of the standards has a longer one."""


class BitReader:
    """Reads the fields of a payload in order; ValueError past its end."""

    def __init__(self, payload: bytes, skip_bits: int = 0) -> None:
        """`payload`: without emulation prevention (`unescaped`); the first `skip_bits` are not read."""
        self._payload, self._at, self._length = payload, skip_bits, 8 * len(payload)
        if self._at > self._length:
            raise ValueError("a header ends too early")

    @property
    def position(self) -> int:
        """Returns the bits before the next field."""
        return self._at

    def bits(self, count: int) -> int:
        """Reads `count` bits as an unsigned number."""
        end = self._at + count
        if end > self._length:
            raise ValueError("a header ends too early")
        # Only the bytes of the field: shifting the whole payload for each would take time by the square of its length.
        last = -(-end // 8)
        value = int.from_bytes(self._payload[self._at // 8 : last], "big") >> (8 * last - end)
        self._at = end
        return value & ((1 << count) - 1)

    def flag(self) -> bool:
        """Reads one bit."""
        return bool(self.bits(1))

    def unsigned(self) -> int:
        """Reads an Exp-Golomb number ue(v) (9.1)."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
            if zeros > _MOST_ZEROS:
                raise ValueError("a number of a header has more than 32 bits")
        return (1 << zeros) - 1 + self.bits(zeros)

    def count(self, most: int, name: str) -> int:
        """Reads ue(v) that says how many fields follow; ValueError if it is above what the standard allows."""
        number = self.unsigned()
        if number > most:
            raise ValueError(f"{name} = {number} of a header is above {most}")
        return number

    def signed(self) -> int:
        """Reads a signed Exp-Golomb number se(v) (9.1.1)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class BitWriter:
    """Collects the fields of a NAL unit or another header."""

    def __init__(self, *header_bytes: int) -> None:
        self._bits = [f"{byte:08b}" for byte in header_bytes]

    def raw(self, *fields: str) -> None:
        """Appends fields written as strings of 0 and 1."""
        self._bits.extend(fields)

    def number(self, value: int, count: int) -> None:
        """Appends an unsigned number of `count` bits."""
        self._bits.append(f"{value:0{count}b}" if count else "")

    def unsigned(self, value: int) -> None:
        """Appends an Exp-Golomb number ue(v)."""
        digits = f"{value + 1:b}"
        self._bits.append("0" * (len(digits) - 1) + digits)

    def aligned(self, stop: str = "1", fill: str = "0") -> bytes:
        """Returns the fields, then `stop`, then `fill` to the end of the byte."""
        bits = "".join(self._bits) + stop
        bits += fill * (-len(bits) % 8)
        return int(bits or "0", 2).to_bytes(len(bits) // 8, "big")

    def nal(self) -> bytes:
        """Returns the NAL unit: fields, trailing bits, emulation prevention."""
        return escaped(self.aligned())


def unescaped(nal: bytes) -> bytes:
    """Returns a NAL unit without its emulation prevention bytes (7.4.1)."""
    return re.sub(b"\x00\x00\x03", b"\x00\x00", nal)


def escaped(payload: bytes) -> bytes:
    """Returns a NAL unit with emulation prevention bytes, so that it contains no start code."""
    return re.sub(b"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


def cut_bits(payload: bytes, start: int, end: int) -> bytes:
    """Returns the payload without its bits `start` … `end` − 1, the last byte filled with zeros."""
    n_bits = 8 * len(payload)
    value = int.from_bytes(payload, "big")
    rest = n_bits - end
    shorter = (value >> (n_bits - start) << rest) | (value & ((1 << rest) - 1))
    fill = (end - start) % 8
    return (shorter << fill).to_bytes((start + rest + fill) // 8, "big")


def splice_bits(payload: bytes, cut: tuple[int, int], header_end: int, stop: str, fill: str) -> bytes:
    """Returns the first `header_end` bits of a payload without those of `cut`, then `stop`, then `fill` to a whole byte."""
    (start, end), n_bytes = cut, -(-header_end // 8)
    value, total, after = int.from_bytes(payload[:n_bytes], "big"), 8 * n_bytes, header_end - end
    header = BitWriter()
    header.number(value >> (total - start), start)
    header.number((value >> (total - header_end)) & ((1 << after) - 1), after)
    return header.aligned(stop, fill)


def clear_bits(nal: bytes, start: int, count: int) -> bytes:
    """Returns a NAL unit with `count` bits set to 0 from bit `start` on, counted without emulation prevention."""
    payload = unescaped(nal)
    cleared = int.from_bytes(payload, "big") & ~(((1 << count) - 1) << (8 * len(payload) - start - count))
    return escaped(cleared.to_bytes(len(payload), "big"))


def packet_nals(packet: bytes, length_bytes: int) -> Iterator[bytes]:
    """Yields the NAL units of a packet; each has a length prefix of `length_bytes`, or a start code if that is 0 (Annex B).

    ValueError for a length past the packet's end.
    """
    if not length_bytes:
        start = packet.find(_START)
        while start >= 0:
            end = packet.find(_START, start + 3)
            yield packet[start + 3 : end if end >= 0 else None].rstrip(b"\x00")
            start = end
        return
    at = 0
    while at < len(packet):
        start = at + length_bytes
        at = start + int.from_bytes(packet[at:start], "big")
        if at > len(packet):
            raise ValueError("a packet ends in the middle of a NAL unit")
        yield packet[start:at]


def annex_b(nals: list[bytes]) -> bytes:
    """Joins NAL units by start codes."""
    return b"".join(b"\x00" + _START + nal for nal in nals)
