"""The HEVC headers that decoding single pictures needs: parameter sets, and slices up to their data.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ove.video.bitstream.nal import BitReader, unescaped

NAL_VPS, NAL_SPS, NAL_PPS = 32, 33, 34
FIRST_IRAP, LAST_IRAP, IDR = 16, 23, (19, 20)
"""nal_unit_type of the pictures at which decoding may begin, and of those after which nothing refers back (table 7-1)."""
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_MOST_PICTURES = 16

PictureSet = Sequence[tuple[int, bool]]
"""Short-term references (7.4.8), those before the picture first: distance in order of display, and whether it uses them."""


@dataclass(frozen=True)
class SequenceHeader:
    """What of a sequence parameter set (7.3.2.2) decides how a slice header reads."""

    sps_id: int
    chroma_planes: bool
    """ChromaArrayType is not 0."""
    separate_planes: bool
    blocks: int
    """Coding tree blocks of a picture."""
    order_count_bits: int
    sao: bool
    picture_sets: tuple[PictureSet, ...]
    long_term: bool
    long_term_used: tuple[bool, ...]
    """Of the long-term references that the set lists: whether pictures use them."""
    temporal_vectors: bool


@dataclass(frozen=True)
class PictureHeader:
    """What of a picture parameter set (7.3.2.3) decides how a slice header reads."""

    pps_id: int
    sps_id: int
    dependent_slices: bool
    output_flag: bool
    extra_bits: int
    cabac_init: bool
    references: tuple[int, int]
    """Active by default in list 0 and list 1."""
    chroma_offsets: bool
    weights_at: int
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    weighted_p: bool
    weighted_b: bool
    entry_points: bool
    """Tiles or rows that are decoded apart: slice headers tell where each begins."""
    filter_across_slices: bool
    deblocking_override: bool
    deblocking_off: bool
    lists_modification: bool
    header_extension: bool
    chroma_offset_lists: bool = False
    other_extensions: bool = False
    """Layers, depth or screen content."""


def kind(nal: bytes) -> int:
    """nal_unit_type of a NAL unit of the base layer (7.3.1.2); −1 for other layers and empty units."""
    if len(nal) < 3 or nal[0] & 1 or nal[1] >> 3:
        return -1
    return nal[0] >> 1


def split_hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Bytes of a length prefix, and the NAL units, of an MP4 `hvcC` record (ISO/IEC 14496-15, 8.3.3)."""
    length_bytes, at, nals = (extradata[21] & 3) + 1, 23, []
    for _ in range(extradata[22]):
        count, at = int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            nals.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    return length_bytes, nals


def read_vps_id(nal: bytes) -> int:
    """Id of the video parameter set in a NAL unit."""
    return nal[2] >> 4


def read_sps(nal: bytes) -> SequenceHeader:
    """The sequence parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16 + 4)
    sub_layers = r.bits(3)
    r.bits(1)
    r.bits(_PROFILE_BITS + _LEVEL_BITS)
    present = [(r.flag(), r.flag()) for _ in range(8 if sub_layers else 0)][:sub_layers]
    for profile, level in present:
        r.bits(_PROFILE_BITS * profile + _LEVEL_BITS * level)
    sps_id, chroma_format = r.unsigned(), r.unsigned()
    separate_planes = chroma_format == 3 and r.flag()
    width, height = r.unsigned(), r.unsigned()
    for _ in range(4 if r.flag() else 0):
        r.unsigned()
    r.unsigned()
    r.unsigned()
    order_count_bits = r.unsigned() + 4
    for _ in range(3 * (sub_layers + 1) if r.flag() else 3):
        r.unsigned()
    block_bits = r.unsigned() + 3
    block_bits += r.unsigned()
    for _ in range(4):
        r.unsigned()
    if r.flag() and r.flag():
        _skip_scaling_lists(r)
    r.bits(1)
    sao = r.flag()
    if r.flag():  # samples without transform
        r.bits(8)
        r.unsigned()
        r.unsigned()
        r.bits(1)
    picture_sets: list[PictureSet] = []
    count = r.unsigned()
    for _ in range(count):
        picture_sets.append(read_picture_set(r, picture_sets, count))
    long_term = r.flag()
    used = []
    for _ in range(r.unsigned() if long_term else 0):
        r.bits(order_count_bits)
        used.append(r.flag())
    size = 1 << block_bits
    return SequenceHeader(
        sps_id=sps_id,
        chroma_planes=chroma_format > 0 and not separate_planes,
        separate_planes=separate_planes,
        blocks=-(-width // size) * -(-height // size),
        order_count_bits=order_count_bits,
        sao=sao,
        picture_sets=tuple(picture_sets),
        long_term=long_term,
        long_term_used=tuple(used),
        temporal_vectors=r.flag(),
    )


def _skip_scaling_lists(r: BitReader) -> None:
    """Reads past scaling_list_data (7.3.4)."""
    for size in range(4):
        for _ in range(0, 6, 3 if size == 3 else 1):
            if not r.flag():
                r.unsigned()
                continue
            for _ in range(min(64, 1 << (4 + 2 * size)) + (size > 1)):
                r.signed()


def read_picture_set(r: BitReader, known: Sequence[PictureSet], count: int) -> PictureSet:
    """st_ref_pic_set (7.3.7) after `known` ones of `count` in the sequence's set; in a slice header all are known."""
    if known and r.flag():
        back = r.unsigned() + 1 if len(known) == count else 1
        if back > len(known):
            raise ValueError("a reference picture set refers to none")
        sign, size = r.bits(1), r.unsigned() + 1
        delta = -size if sign else size
        flags = []
        for _ in range(len(known[-back]) + 1):
            used = r.flag()
            flags.append((used, used or r.flag()))
        moved = [(distance + delta, *flag) for (distance, _), flag in zip([*known[-back], (0, False)], flags, strict=True)]
        kept = [(distance, used) for distance, used, kept in moved if kept and distance]
        # Nearest first on either side (7-61, 7-62).
        return sorted((one for one in kept if one[0] < 0), reverse=True) + sorted(one for one in kept if one[0] > 0)
    before, after = r.unsigned(), r.unsigned()
    if max(before, after) > _MOST_PICTURES:
        raise ValueError("a reference picture set is too large")
    found = []
    for number, step in ((before, -1), (after, 1)):
        distance = 0
        for _ in range(number):
            distance += step * (r.unsigned() + 1)
            found.append((distance, r.flag()))
    return found


def read_pps(nal: bytes) -> PictureHeader:
    """The picture parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16)
    pps_id, sps_id, dependent_slices, output_flag, extra_bits = r.unsigned(), r.unsigned(), r.flag(), r.flag(), r.bits(3)
    _, cabac_init, references = r.bits(1), r.flag(), (r.unsigned() + 1, r.unsigned() + 1)
    r.signed()
    _, transform_skip = r.bits(1), r.flag()
    if r.flag():
        r.unsigned()
    r.signed()
    r.signed()
    chroma_offsets, weights_at = r.flag(), r.position
    weighted_p, weighted_b, _, tiles, rows = r.flag(), r.flag(), r.bits(1), r.flag(), r.flag()
    if tiles:
        boundaries = r.unsigned() + r.unsigned()
        for _ in range(0 if r.flag() else boundaries):
            r.unsigned()
        r.bits(1)
    filter_across_slices, deblocking_override, deblocking_off = r.flag(), False, False
    if r.flag():
        deblocking_override, deblocking_off = r.flag(), r.flag()
        for _ in range(0 if deblocking_off else 2):
            r.signed()
    if r.flag():
        _skip_scaling_lists(r)
    lists_modification, _, header_extension = r.flag(), r.unsigned(), r.flag()
    chroma_offset_lists = other_extensions = False
    if r.flag():
        range_extension, other_extensions = r.flag(), r.bits(7) != 0
        if range_extension:
            if transform_skip:
                r.unsigned()
            r.bits(1)
            chroma_offset_lists = r.flag()
    return PictureHeader(
        pps_id=pps_id,
        sps_id=sps_id,
        dependent_slices=dependent_slices,
        output_flag=output_flag,
        extra_bits=extra_bits,
        cabac_init=cabac_init,
        references=references,
        chroma_offsets=chroma_offsets,
        weights_at=weights_at,
        weighted_p=weighted_p,
        weighted_b=weighted_b,
        entry_points=tiles or rows,
        filter_across_slices=filter_across_slices,
        deblocking_override=deblocking_override,
        deblocking_off=deblocking_off,
        lists_modification=lists_modification,
        header_extension=header_extension,
        chroma_offset_lists=chroma_offset_lists,
        other_extensions=other_extensions,
    )


def read_slice_pps_id(nal: bytes) -> int:
    """Id of the picture parameter set that a slice refers to."""
    r = BitReader(nal[:16], skip_bits=17)
    r.bits(1 if FIRST_IRAP <= kind(nal) <= LAST_IRAP else 0)
    return r.unsigned()
