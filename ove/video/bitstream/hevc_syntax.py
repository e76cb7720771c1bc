"""The HEVC headers that decoding single pictures needs: parameter sets, and slices up to their data.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ove.video.bitstream.nal import BitReader, unescaped

NAL_VPS, NAL_SPS, NAL_PPS = 32, 33, 34
FIRST_IRAP, LAST_IRAP, IDR = 16, 23, (19, 20)
"""nal_unit_type of the pictures at which decoding may begin, and of those after which nothing refers back (table 7-1)."""
_B, _P = 0, 1
"""slice_type (table 7-7)."""
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_MAX_REFERENCES = 16
_MAX_REF_PICS = 16

StRefPicSet = Sequence[tuple[int, bool]]
"""Short-term num_ref_idx (7.4.8), those before the picture first: distance in order of display, and whether it uses them."""


@dataclass(frozen=True)
class Sps:
    """Fields of the SPS (7.3.2.2) needed to read a slice header."""

    sps_id: int
    chroma_planes: bool
    """ChromaArrayType is not 0."""
    separate_colour_plane: bool
    num_ctbs: int
    """Coding tree num_ctbs of a picture."""
    poc_lsb_bits: int
    sao: bool
    st_ref_pic_sets: tuple[StRefPicSet, ...]
    long_term_ref_pics: bool
    lt_used_by_curr_pic: tuple[bool, ...]
    """Of the long-term num_ref_idx that the set lists: whether pictures use them."""
    temporal_mvp: bool


@dataclass(frozen=True)
class Pps:
    """Fields of the PPS (7.3.2.3) needed to read a slice header."""

    pps_id: int
    sps_id: int
    dependent_slice_segments: bool
    output_flag_present: bool
    num_extra_slice_header_bits: int
    cabac_init_present: bool
    num_ref_idx: tuple[int, int]
    """Active by default in list 0 and list 1."""
    slice_chroma_qp_offsets: bool
    weighted_pred_bit: int
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    weighted_pred: bool
    weighted_bipred: bool
    entry_points: bool
    """Tiles or rows that are decoded apart: slice headers tell where each begins."""
    loop_filter_across_slices: bool
    deblocking_override: bool
    deblocking_disabled: bool
    lists_modification_present: bool
    slice_header_extension: bool
    chroma_qp_offset_lists: bool = False
    other_extensions: bool = False
    """Layers, depth or screen content."""


def nal_unit_type(nal: bytes) -> int:
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


def read_sps(nal: bytes) -> Sps:
    """The sequence parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16 + 4)
    sub_layers = r.bits(3)
    r.bits(1)
    r.bits(_PROFILE_BITS + _LEVEL_BITS)
    present = [(r.flag(), r.flag()) for _ in range(8 if sub_layers else 0)][:sub_layers]
    for profile, level in present:
        r.bits(_PROFILE_BITS * profile + _LEVEL_BITS * level)
    sps_id, chroma_format = r.unsigned(), r.unsigned()
    separate_colour_plane = chroma_format == 3 and r.flag()
    width, height = r.unsigned(), r.unsigned()
    for _ in range(4 if r.flag() else 0):
        r.unsigned()
    r.unsigned()
    r.unsigned()
    poc_lsb_bits = r.unsigned() + 4
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
    st_ref_pic_sets: list[StRefPicSet] = []
    count = r.unsigned()
    for _ in range(count):
        st_ref_pic_sets.append(read_st_ref_pic_set(r, st_ref_pic_sets, count))
    long_term_ref_pics = r.flag()
    used = []
    for _ in range(r.unsigned() if long_term_ref_pics else 0):
        r.bits(poc_lsb_bits)
        used.append(r.flag())
    size = 1 << block_bits
    return Sps(
        sps_id=sps_id,
        chroma_planes=chroma_format > 0 and not separate_colour_plane,
        separate_colour_plane=separate_colour_plane,
        num_ctbs=-(-width // size) * -(-height // size),
        poc_lsb_bits=poc_lsb_bits,
        sao=sao,
        st_ref_pic_sets=tuple(st_ref_pic_sets),
        long_term_ref_pics=long_term_ref_pics,
        lt_used_by_curr_pic=tuple(used),
        temporal_mvp=r.flag(),
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


def read_st_ref_pic_set(r: BitReader, known: Sequence[StRefPicSet], count: int) -> StRefPicSet:
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
    if max(before, after) > _MAX_REF_PICS:
        raise ValueError("a reference picture set is too large")
    found = []
    for number, step in ((before, -1), (after, 1)):
        distance = 0
        for _ in range(number):
            distance += step * (r.unsigned() + 1)
            found.append((distance, r.flag()))
    return found


def read_pps(nal: bytes) -> Pps:
    """The picture parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16)
    pps_id, sps_id, dependent_slice_segments = r.unsigned(), r.unsigned(), r.flag()
    output_flag_present, num_extra_slice_header_bits = r.flag(), r.bits(3)
    _, cabac_init_present, num_ref_idx = r.bits(1), r.flag(), (r.unsigned() + 1, r.unsigned() + 1)
    r.signed()
    _, transform_skip = r.bits(1), r.flag()
    if r.flag():
        r.unsigned()
    r.signed()
    r.signed()
    slice_chroma_qp_offsets, weighted_pred_bit = r.flag(), r.position
    weighted_pred, weighted_bipred, _, tiles, rows = r.flag(), r.flag(), r.bits(1), r.flag(), r.flag()
    if tiles:
        boundaries = r.unsigned() + r.unsigned()
        for _ in range(0 if r.flag() else boundaries):
            r.unsigned()
        r.bits(1)
    loop_filter_across_slices, deblocking_override, deblocking_disabled = r.flag(), False, False
    if r.flag():
        deblocking_override, deblocking_disabled = r.flag(), r.flag()
        for _ in range(0 if deblocking_disabled else 2):
            r.signed()
    if r.flag():
        _skip_scaling_lists(r)
    lists_modification_present, _, slice_header_extension = r.flag(), r.unsigned(), r.flag()
    chroma_qp_offset_lists = other_extensions = False
    if r.flag():
        range_extension, other_extensions = r.flag(), r.bits(7) != 0
        if range_extension:
            if transform_skip:
                r.unsigned()
            r.bits(1)
            chroma_qp_offset_lists = r.flag()
    return Pps(
        pps_id=pps_id,
        sps_id=sps_id,
        dependent_slice_segments=dependent_slice_segments,
        output_flag_present=output_flag_present,
        num_extra_slice_header_bits=num_extra_slice_header_bits,
        cabac_init_present=cabac_init_present,
        num_ref_idx=num_ref_idx,
        slice_chroma_qp_offsets=slice_chroma_qp_offsets,
        weighted_pred_bit=weighted_pred_bit,
        weighted_pred=weighted_pred,
        weighted_bipred=weighted_bipred,
        entry_points=tiles or rows,
        loop_filter_across_slices=loop_filter_across_slices,
        deblocking_override=deblocking_override,
        deblocking_disabled=deblocking_disabled,
        lists_modification_present=lists_modification_present,
        slice_header_extension=slice_header_extension,
        chroma_qp_offset_lists=chroma_qp_offset_lists,
        other_extensions=other_extensions,
    )


def read_slice_pps_id(nal: bytes) -> int:
    """Id of the picture parameter set that a slice refers to."""
    r = BitReader(nal[:16], skip_bits=17)
    r.bits(1 if FIRST_IRAP <= nal_unit_type(nal) <= LAST_IRAP else 0)
    return r.unsigned()


@dataclass(frozen=True)
class SliceHeader:
    """Positions in bits of a slice header (7.3.6.1), without emulation prevention."""

    weights: tuple[int, int]
    """Where pred_weight_table begins and ends."""
    end: int
    """Where the header ends, before byte_alignment."""


def read_slice(nal: bytes, payload: bytes, sps: Sps, pps: Pps) -> SliceHeader | None:
    """The header of a slice with explicit weights, None for others; `payload` is `nal` without emulation prevention.

    ValueError if it makes no sense.
    """
    r = BitReader(payload[:4096], skip_bits=16)
    first = r.flag()
    r.bits(1 if FIRST_IRAP <= nal_unit_type(nal) <= LAST_IRAP else 0)
    r.unsigned()
    dependent = not first and pps.dependent_slice_segments and r.flag()
    r.bits(0 if first else (sps.num_ctbs - 1).bit_length())
    if dependent:
        return None
    r.bits(pps.num_extra_slice_header_bits)
    slice_type = r.unsigned()
    r.bits(pps.output_flag_present + 2 * sps.separate_colour_plane)
    n_pictures, temporal_mvp = (0, False) if nal_unit_type(nal) in IDR else _skip_references(r, sps)
    filtered = [r.flag() for _ in range(sps.sao * (1 + sps.chroma_planes))]
    if not ((slice_type == _P and pps.weighted_pred) or (slice_type == _B and pps.weighted_bipred)):
        return None
    num_ref_idx = _skip_lists(r, slice_type, pps, n_pictures, temporal_mvp)
    start = r.position
    _skip_weights(r, num_ref_idx, sps.chroma_planes)
    end = r.position
    _skip_rest(r, pps, any(filtered))
    return SliceHeader((start, end), r.position)


def _skip_references(r: BitReader, sps: Sps) -> tuple[int, bool]:
    """Reads past the pictures that may be referred to; how many are, and whether vectors are predicted from one."""
    r.bits(sps.poc_lsb_bits)
    sets = sps.st_ref_pic_sets
    if not r.flag():
        chosen = read_st_ref_pic_set(r, sets, len(sets))
    else:
        chosen = sets[r.bits((len(sets) - 1).bit_length())]
    n_pictures = sum(used for _, used in chosen)
    if sps.long_term_ref_pics:
        listed = r.unsigned() if sps.lt_used_by_curr_pic else 0
        for i in range(listed + r.unsigned()):
            if i < listed:
                n_pictures += sps.lt_used_by_curr_pic[r.bits((len(sps.lt_used_by_curr_pic) - 1).bit_length())]
            else:
                r.bits(sps.poc_lsb_bits)
                n_pictures += r.bits(1)
            if r.flag():
                r.unsigned()
    return n_pictures, sps.temporal_mvp and r.flag()


def _skip_lists(r: BitReader, slice_type: int, pps: Pps, n_pictures: int, temporal_mvp: bool) -> tuple[int, ...]:
    """Reads past what makes up the reference lists; their lengths (7.3.6.1, 7.3.6.2)."""
    lists = 2 if slice_type == _B else 1
    num_ref_idx = tuple(r.unsigned() + 1 for _ in range(lists)) if r.flag() else pps.num_ref_idx[:lists]
    if max(num_ref_idx) > _MAX_REFERENCES:
        raise ValueError("a slice header names too many num_ref_idx")
    if pps.lists_modification_present and n_pictures > 1:
        for number in num_ref_idx:
            if r.flag():
                r.bits(number * (n_pictures - 1).bit_length())
    r.bits((slice_type == _B) + pps.cabac_init_present)
    if temporal_mvp:
        from_first = lists == 1 or r.flag()
        if num_ref_idx[0 if from_first else 1] > 1:
            r.unsigned()
    return num_ref_idx


def _skip_weights(r: BitReader, num_ref_idx: tuple[int, ...], chroma: bool) -> None:
    """Reads past pred_weight_table (7.3.6.3)."""
    r.unsigned()
    if chroma:
        r.signed()
    for number in num_ref_idx:
        luma = [r.flag() for _ in range(number)]
        both = [r.flag() for _ in range(number)] if chroma else [False] * number
        for in_luma, in_chroma in zip(luma, both, strict=True):
            for _ in range(2 * in_luma + 4 * in_chroma):
                r.signed()


def _skip_rest(r: BitReader, pps: Pps, filtered: bool) -> None:
    """Reads past what follows the weights, up to the alignment (7.3.6.1)."""
    r.unsigned()
    for _ in range(3 if pps.slice_chroma_qp_offsets else 1):
        r.signed()
    r.bits(1 if pps.chroma_qp_offset_lists else 0)
    deblocking_disabled = pps.deblocking_disabled
    if pps.deblocking_override and r.flag():
        deblocking_disabled = r.flag()
        for _ in range(0 if deblocking_disabled else 2):
            r.signed()
    if pps.loop_filter_across_slices and (filtered or not deblocking_disabled):
        r.bits(1)
    if pps.entry_points:
        number = r.unsigned()
        if number:
            r.bits(number * (r.unsigned() + 1))
    if pps.slice_header_extension:
        r.bits(8 * r.unsigned())
