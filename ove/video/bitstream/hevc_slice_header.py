"""HEVC slice headers (7.3.6), as far as removing their table of explicit weights needs.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from dataclasses import dataclass

from ove.video.bitstream.hevc_syntax import Pps, Sps, nal_unit_type, read_st_ref_pic_set
from ove.video.bitstream.nal import BitReader

FIRST_IRAP, LAST_IRAP, IDR = 16, 23, (19, 20)
"""nal_unit_type of the pictures at which decoding may begin, and of those after which nothing refers back (table 7-1)."""
_B, _P = 0, 1
"""slice_type (table 7-7)."""
_MAX_REFERENCES, _MAX_LONG_TERM = 16, 32


def read_slice_pps_id(nal: bytes) -> int:
    """Reads slice_pic_parameter_set_id (7.3.6.1)."""
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
    """Reads the header of a slice with explicit weights, None for others; ValueError if it is invalid.

    `payload` is `nal` without emulation prevention.
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
    """Reads past the reference picture sets; returns NumPicTotalCurr and slice_temporal_mvp_enabled_flag."""
    r.bits(sps.poc_lsb_bits)
    sets = sps.st_ref_pic_sets
    if not r.flag():
        chosen = read_st_ref_pic_set(r, sets, len(sets))
    else:
        chosen = sets[r.bits((len(sets) - 1).bit_length())]
    n_pictures = sum(used for _, used in chosen)
    if sps.long_term_ref_pics:
        listed = r.count(_MAX_LONG_TERM, "num_long_term_sps") if sps.lt_used_by_curr_pic else 0
        for i in range(listed + r.count(_MAX_LONG_TERM, "num_long_term_pics")):
            if i < listed:
                n_pictures += sps.lt_used_by_curr_pic[r.bits((len(sps.lt_used_by_curr_pic) - 1).bit_length())]
            else:
                r.bits(sps.poc_lsb_bits)
                n_pictures += r.bits(1)
            if r.flag():
                r.unsigned()
    return n_pictures, sps.temporal_mvp and r.flag()


def _skip_lists(r: BitReader, slice_type: int, pps: Pps, n_pictures: int, temporal_mvp: bool) -> tuple[int, ...]:
    """Reads past the fields of the reference lists; returns num_ref_idx of each (7.3.6.1, 7.3.6.2)."""
    lists = 2 if slice_type == _B else 1
    num_ref_idx = tuple(r.unsigned() + 1 for _ in range(lists)) if r.flag() else pps.num_ref_idx[:lists]
    if max(num_ref_idx) > _MAX_REFERENCES:
        raise ValueError(f"num_ref_idx = {max(num_ref_idx)} of a slice header is above {_MAX_REFERENCES}")
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
    """Reads past the fields between the weights and byte_alignment (7.3.6.1)."""
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
