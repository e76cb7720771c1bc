"""The HEVC parameter sets that decoding single pictures needs; slice headers are read in `hevc_slice_header`.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ove.video.bitstream.nal import BitReader, unescaped

NAL_VPS, NAL_SPS, NAL_PPS = 32, 33, 34
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_MAX_REF_PICS = 16
_MAX_SPS_ID, _MAX_PPS_ID, _MAX_SETS, _MAX_LONG_TERM, _MAX_TILES = 15, 63, 64, 32, 1024
"""Of sps_seq_parameter_set_id, pps_pic_parameter_set_id, num_short_term_ref_pic_sets, num_long_term_ref_pics_sps (7.4.3), and
far above the tiles across or down of any level (A.4.1)."""
_MAX_BLOCK_BITS = 6
"""Of a coding tree block: 64 pixels."""

StRefPicSet = Sequence[tuple[int, bool]]
"""Short-term reference pictures (7.4.8), the earlier ones first: difference in POC, and whether the picture uses each."""


@dataclass(frozen=True)
class Sps:
    """Fields of the SPS (7.3.2.2) needed to read a slice header."""

    sps_id: int
    chroma_planes: bool
    """ChromaArrayType is not 0."""
    separate_colour_plane: bool
    num_ctbs: int
    """Coding tree blocks of a picture."""
    poc_lsb_bits: int
    sao: bool
    st_ref_pic_sets: tuple[StRefPicSet, ...]
    long_term_ref_pics: bool
    lt_used_by_curr_pic: tuple[bool, ...]
    """used_by_curr_pic_lt_sps_flag of each long-term reference picture that the SPS lists."""
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
    """num_ref_idx_default_active of list 0 and list 1."""
    slice_chroma_qp_offsets: bool
    weighted_pred_bit: int
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    weighted_pred: bool
    weighted_bipred: bool
    entry_points: bool
    """Tiles or wavefronts: slice headers say where each substream begins."""
    loop_filter_across_slices: bool
    deblocking_override: bool
    deblocking_disabled: bool
    lists_modification_present: bool
    slice_header_extension: bool
    chroma_qp_offset_lists: bool = False
    other_extensions: bool = False
    """Layers, depth or screen content."""


def nal_unit_type(nal: bytes) -> int:
    """Returns nal_unit_type of a NAL unit of the base layer (7.3.1.2); −1 for other layers and empty units."""
    if len(nal) < 3 or nal[0] & 1 or nal[1] >> 3:
        return -1
    return nal[0] >> 1


def split_hvcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Returns the bytes of a length prefix, and the NAL units, of an MP4 `hvcC` record (ISO/IEC 14496-15, 8.3.3)."""
    length_bytes, at, nals = (extradata[21] & 3) + 1, 23, []
    for _ in range(extradata[22]):
        count, at = int.from_bytes(extradata[at + 1 : at + 3], "big"), at + 3
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            nals.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
            if at > len(extradata):
                raise ValueError("the stream header ends in the middle of a parameter set")
    return length_bytes, nals


def read_vps_id(nal: bytes) -> int:
    """Reads the id of the VPS in a NAL unit."""
    return nal[2] >> 4


def read_sps(nal: bytes) -> Sps:
    """Reads the SPS in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16 + 4)
    sub_layers = r.bits(3)
    r.bits(1)
    r.bits(_PROFILE_BITS + _LEVEL_BITS)
    present = [(r.flag(), r.flag()) for _ in range(8 if sub_layers else 0)][:sub_layers]
    for profile, level in present:
        r.bits(_PROFILE_BITS * profile + _LEVEL_BITS * level)
    sps_id, chroma_format = r.count(_MAX_SPS_ID, "sps_seq_parameter_set_id"), r.count(3, "chroma_format_idc")
    separate_colour_plane = chroma_format == 3 and r.flag()
    width, height = r.unsigned(), r.unsigned()
    for _ in range(4 if r.flag() else 0):
        r.unsigned()
    r.unsigned()
    r.unsigned()
    poc_lsb_bits = r.count(12, "log2_max_pic_order_cnt_lsb_minus4") + 4
    for _ in range(3 * (sub_layers + 1) if r.flag() else 3):
        r.unsigned()
    block_bits = r.unsigned() + 3
    block_bits += r.unsigned()
    if block_bits > _MAX_BLOCK_BITS:
        raise ValueError(f"coding tree blocks of 2 ** {block_bits} pixels are above 2 ** {_MAX_BLOCK_BITS}")
    for _ in range(4):
        r.unsigned()
    if r.flag() and r.flag():
        _skip_scaling_lists(r)
    r.bits(1)
    sao = r.flag()
    if r.flag():  # pcm_enabled_flag
        r.bits(8)
        r.unsigned()
        r.unsigned()
        r.bits(1)
    st_ref_pic_sets: list[StRefPicSet] = []
    count = r.count(_MAX_SETS, "num_short_term_ref_pic_sets")
    for _ in range(count):
        st_ref_pic_sets.append(read_st_ref_pic_set(r, st_ref_pic_sets, count))
    long_term_ref_pics = r.flag()
    used = []
    for _ in range(r.count(_MAX_LONG_TERM, "num_long_term_ref_pics_sps") if long_term_ref_pics else 0):
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
    """Reads st_ref_pic_set (7.3.7), after `known` of the `count` in the SPS; all of them in a slice header."""
    if known and r.flag():
        back = r.unsigned() + 1 if len(known) == count else 1
        if back > len(known):
            raise ValueError("a reference picture set is predicted from one that does not exist")
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
    """Reads the PPS in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal), skip_bits=16)
    pps_id, sps_id = r.count(_MAX_PPS_ID, "pps_pic_parameter_set_id"), r.count(_MAX_SPS_ID, "pps_seq_parameter_set_id")
    dependent_slice_segments = r.flag()
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
        boundaries = r.count(_MAX_TILES, "num_tile_columns_minus1") + r.count(_MAX_TILES, "num_tile_rows_minus1")
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
