"""The few H.264 headers that gray-reference decoding needs: NAL units and parameter sets read, a gray picture written.

Clause numbers are those of ITU-T H.264 (08/2021).
"""

import re
from dataclasses import dataclass

NAL_SLICE, NAL_IDR, NAL_SPS, NAL_PPS = 1, 5, 7, 8
_PROFILES_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}


@dataclass(frozen=True)
class SequenceHeader:
    """What of a sequence parameter set (7.3.2.1.1) decides how a picture is coded."""

    sps_id: int
    chroma_format: int
    """0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4."""
    separate_planes: bool
    luma_bits: int
    frame_num_bits: int
    order_count_type: int
    order_count_bits: int
    """Of pic_order_cnt_lsb; 0 unless the type is 0."""
    order_delta_always_zero: bool
    macroblocks: int
    """Of one frame."""
    frames_only: bool
    """False for streams that may hold interlaced pictures."""
    cropped_before: bool
    """The shown picture begins to the right of, or below, the coded one."""


@dataclass(frozen=True)
class PictureHeader:
    """What of a picture parameter set (7.3.2.2) matters here."""

    pps_id: int
    sps_id: int
    slice_groups: int
    weighted: bool
    """P-slices, or B-slices explicitly, scale their prediction: then a gray reference is predicted as another gray."""


class BitReader:
    """Reads the fields of a NAL unit's payload one after the other; past the end it raises ValueError."""

    def __init__(self, nal: bytes) -> None:
        payload = re.sub(b"\x00\x00\x03", b"\x00\x00", nal)  # emulation prevention (7.4.1)
        self._value, self._left = int.from_bytes(payload, "big"), 8 * len(payload)

    def bits(self, count: int) -> int:
        """The next `count` bits as an unsigned number."""
        if count > self._left:
            raise ValueError("an H.264 header ends too early")
        self._left -= count
        return (self._value >> self._left) & ((1 << count) - 1)

    def unsigned(self) -> int:
        """The next Exp-Golomb number ue(v) (9.1)."""
        zeros = 0
        while not self.bits(1):
            zeros += 1
        return (1 << zeros) - 1 + self.bits(zeros)

    def signed(self) -> int:
        """The next signed Exp-Golomb number se(v) (9.1.1)."""
        code = self.unsigned()
        return (code + 1) // 2 if code % 2 else -(code // 2)


class BitWriter:
    """Collects the fields of a NAL unit."""

    def __init__(self, header_byte: int) -> None:
        self._bits = [f"{header_byte:08b}"]

    def raw(self, *fields: str) -> None:
        """Appends fields written as strings of 0 and 1."""
        self._bits.extend(fields)

    def unsigned(self, value: int) -> None:
        """Appends an Exp-Golomb number ue(v)."""
        digits = f"{value + 1:b}"
        self._bits.append("0" * (len(digits) - 1) + digits)

    def nal(self) -> bytes:
        """The NAL unit: fields, trailing bits, emulation prevention."""
        bits = "".join(self._bits) + "1"
        bits += "0" * (-len(bits) % 8)
        payload = int(bits, 2).to_bytes(len(bits) // 8, "big")
        return re.sub(b"\x00\x00(?=[\x00-\x03])", b"\x00\x00\x03", payload)


def split_annex_b(data: bytes) -> list[bytes]:
    """The NAL units of a byte stream with start codes (Annex B)."""
    return [nal.rstrip(b"\x00") for nal in data.split(b"\x00\x00\x01")[1:]]


def split_length_prefixed(data: bytes, length_bytes: int) -> list[bytes]:
    """The NAL units of a packet in MP4 style; a length that points past the end raises ValueError."""
    nals, at = [], 0
    while at < len(data):
        start = at + length_bytes
        at = start + int.from_bytes(data[at:start], "big")
        if at > len(data):
            raise ValueError("an H.264 packet ends in the middle of a NAL unit")
        nals.append(data[start:at])
    return nals


def split_avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Bytes of a length prefix, and the parameter sets, of an MP4 `avcC` record (ISO/IEC 14496-15, 5.3.3)."""
    length_bytes, at, nals = (extradata[4] & 3) + 1, 5, []
    for mask in (31, 255):  # first the sequence, then the picture parameter sets
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            nals.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return length_bytes, nals


def read_sps(nal: bytes) -> SequenceHeader:
    """The sequence parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(nal)
    r.bits(8)
    profile = r.bits(8)
    r.bits(16)
    sps_id, chroma_format, separate_planes, luma_bits = r.unsigned(), 1, 0, 8
    if profile in _PROFILES_WITH_CHROMA_FORMAT:
        chroma_format = r.unsigned()
        separate_planes = r.bits(1) if chroma_format == 3 else 0
        luma_bits = 8 + r.unsigned()
        r.unsigned()
        r.bits(1)
        if r.bits(1):
            _skip_scaling_lists(r, 8 if chroma_format != 3 else 12)
    frame_num_bits, order_count_type = r.unsigned() + 4, r.unsigned()
    order_count_bits = r.unsigned() + 4 if order_count_type == 0 else 0
    delta_always_zero = 0
    if order_count_type == 1:
        delta_always_zero = r.bits(1)
        r.signed()
        r.signed()
        for _ in range(r.unsigned()):
            r.signed()
    r.unsigned()
    r.bits(1)
    columns, rows, frames_only = r.unsigned() + 1, r.unsigned() + 1, r.bits(1)
    if not frames_only:
        r.bits(1)
    r.bits(1)
    left, _, top, _ = (r.unsigned() for _ in range(4)) if r.bits(1) else (0, 0, 0, 0)
    return SequenceHeader(
        sps_id=sps_id,
        chroma_format=chroma_format,
        separate_planes=bool(separate_planes),
        luma_bits=luma_bits,
        frame_num_bits=frame_num_bits,
        order_count_type=order_count_type,
        order_count_bits=order_count_bits,
        order_delta_always_zero=bool(delta_always_zero),
        macroblocks=columns * rows * (2 - frames_only),
        frames_only=bool(frames_only),
        cropped_before=bool(left or top),
    )


def _skip_scaling_lists(r: BitReader, count: int) -> None:
    """Reads past the scaling lists of a parameter set (7.3.2.1.1.1)."""
    for i in range(count):
        if not r.bits(1):
            continue
        last, following = 8, 8
        for _ in range(16 if i < 6 else 64):
            if following:
                following = (last + r.signed()) % 256
            last = following or last


def read_pps(nal: bytes) -> PictureHeader:
    """The picture parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(nal)
    r.bits(8)
    pps_id, sps_id = r.unsigned(), r.unsigned()
    r.bits(2)
    slice_groups = r.unsigned() + 1
    if slice_groups > 1:
        return PictureHeader(pps_id, sps_id, slice_groups, weighted=False)
    r.unsigned()
    r.unsigned()
    weighted_p, weighted_b = r.bits(1), r.bits(2)
    return PictureHeader(pps_id, sps_id, slice_groups, weighted=bool(weighted_p) or weighted_b == 1)


def read_slice_pps_id(nal: bytes) -> int:
    """Id of the picture parameter set that a slice's NAL unit refers to (7.3.3)."""
    r = BitReader(nal[:32])
    r.bits(8)
    r.unsigned()
    r.unsigned()
    return r.unsigned()


def gray_access_unit(sps: SequenceHeader, pps_id: int) -> list[bytes]:
    """The NAL units (PPS, IDR slice) of a uniform mid-gray picture, for progressive streams with these sequence parameters.

    Every macroblock is Intra 16×16 with DC prediction and no coefficients: without neighbours, or with gray ones, DC predicts
    2^(bits−1). `pps_id` must be one that the stream does not use. (spec §2; syntax 7.3.2.2, 7.3.3, 7.3.5, 9.2.1.)
    """
    pps = BitWriter(0x68)
    pps.unsigned(pps_id)
    pps.unsigned(sps.sps_id)
    pps.raw("00", "1", "1", "1")  # CAVLC, no field order; one slice group; one reference in either list
    pps.raw("000", "1", "1", "1", "100")  # no weights; QP offsets 0; deblocking control present; nothing else

    piece = BitWriter(0x65)
    for value in (0, 7, pps_id):  # first macroblock, all slices are I, parameter set
        piece.unsigned(value)
    piece.raw("00" if sps.separate_planes else "", "0" * sps.frame_num_bits)
    piece.unsigned(0)  # idr_pic_id
    piece.raw("0" * sps.order_count_bits)
    piece.raw("1" if sps.order_count_type == 1 and not sps.order_delta_always_zero else "")
    piece.raw("00", "1", "010")  # not long-term; QP delta 0; deblocking off
    has_chroma_mode = sps.chroma_format in (1, 2)
    luma_like_planes = 3 if sps.chroma_format == 3 and not sps.separate_planes else 1
    macroblock = "00100" + ("1" if has_chroma_mode else "") + "1" + "1" * luma_like_planes
    piece.raw(macroblock * sps.macroblocks)
    return [pps.nal(), piece.nal()]
