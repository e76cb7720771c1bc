"""HEVC slice segment headers (7.3.6).

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from dataclasses import dataclass
from typing import NamedTuple

from ove.video.bitstream.hevc_pps import Pps
from ove.video.bitstream.hevc_syntax import Sps, StRefPicSet, nal_unit_type, read_st_ref_pic_set
from ove.video.bitstream.nal import BitReader

FIRST_IRAP, LAST_IRAP, IDR = 16, 23, (19, 20)
"""nal_unit_type of the pictures at which decoding may begin, and of those after which nothing refers back (table 7-1)."""
B, P, INTRA = range(3)
"""slice_type (table 7-7)."""
_MAX_REFERENCES, _MAX_LONG_TERM, _MAX_ENTRY_POINTS, _MAX_OFFSET_BITS = 16, 32, 1 << 16, 32


def read_slice_pps_id(nal: bytes) -> int:
    """Reads slice_pic_parameter_set_id (7.3.6.1)."""
    r = BitReader(nal[:16], skip_bits=17)
    r.bits(1 if FIRST_IRAP <= nal_unit_type(nal) <= LAST_IRAP else 0)
    return r.unsigned()


class LongTerm(NamedTuple):
    """A long-term reference picture (7.4.7.1)."""

    poc_lsb: int
    used: bool
    msb_cycles: int | None
    """DeltaPocMsbCycleLt; None: it is told by its least significant bits alone."""


class References(NamedTuple):
    """The fields of a slice header about the decoded picture buffer; of an IDR picture it is empty."""

    poc_lsb: int = 0
    short_term: StRefPicSet = ()
    long_term: tuple[LongTerm, ...] = ()
    temporal_mvp: bool = False

    @property
    def n_used(self) -> int:
        """Returns NumPicTotalCurr (7-55)."""
        return sum(used for _, used in self.short_term) + sum(picture.used for picture in self.long_term)


class Lists(NamedTuple):
    """The fields of the header of a P or B slice about its reference lists."""

    num_ref_idx: tuple[int, ...] = ()
    entries: tuple[tuple[int, ...] | None, ...] = ()
    """list_entry_l0 and list_entry_l1, where they are given."""
    mvd_l1_zero: bool = False
    cabac_init: bool = False
    collocated_from_l0: bool = True
    collocated_ref_idx: int = 0


_NONE, _NO_LISTS = References(), Lists()


@dataclass(frozen=True)
class SliceHeader:
    """A slice segment header; positions are in bits, without emulation prevention."""

    is_first: bool
    dependent: bool
    """Whether all but `address` and `end` is as in the segment before, and not known here."""
    address: int
    slice_type: int = INTRA
    references: References = _NONE
    sao: tuple[bool, bool] = (False, False)
    """Of luma, of chroma."""
    lists: Lists = _NO_LISTS
    weights: tuple[int, int] | None = None
    """Where pred_weight_table begins and ends."""
    max_merge: int = 5
    qp_delta: int = 0
    chroma_qp_offset: bool = False
    """cu_chroma_qp_offset_enabled_flag."""
    end: int = 0
    """Where the header ends, before byte_alignment."""


def read_slice(nal: bytes, payload: bytes, sps: Sps, pps: Pps) -> SliceHeader:
    """Reads the header of a slice segment; ValueError if it is invalid. `payload` is `nal` without emulation prevention."""
    r = BitReader(payload, skip_bits=16)
    kind, is_first = nal_unit_type(nal), r.flag()
    r.bits(1 if FIRST_IRAP <= kind <= LAST_IRAP else 0)
    r.unsigned()
    dependent = not is_first and pps.dependent_slice_segments and r.flag()
    address = r.bits(0 if is_first else (sps.num_ctbs - 1).bit_length())
    if address >= sps.num_ctbs:
        raise ValueError(f"a slice begins at block {address} of {sps.num_ctbs}")
    if dependent:
        _skip_end(r, pps)
        return SliceHeader(is_first, True, address, end=r.position)
    r.bits(pps.num_extra_slice_header_bits)
    slice_type = r.count(INTRA, "slice_type")
    r.bits(pps.output_flag_present + 2 * sps.separate_colour_plane)
    references = References() if kind in IDR else _read_references(r, sps)
    sao = (r.flag(), sps.chroma_array_type > 0 and r.flag()) if sps.sao else (False, False)
    lists, weights, max_merge = Lists(), None, 5
    if slice_type != INTRA:
        lists = _read_lists(r, slice_type, pps, references)
        if pps.weighted_pred if slice_type == P else pps.weighted_bipred:
            start = r.position
            _skip_weights(r, lists.num_ref_idx, sps.chroma_array_type > 0)
            weights = start, r.position
        max_merge = 5 - r.count(4, "five_minus_max_num_merge_cand")
    qp_delta = r.signed()
    for _ in range(2 if pps.slice_chroma_qp_offsets else 0):
        r.signed()
    chroma_qp_offset = pps.chroma_qp_offset_depth is not None and r.flag()
    deblocking_disabled = pps.deblocking_disabled
    if pps.deblocking_override and r.flag():
        deblocking_disabled = r.flag()
        for _ in range(0 if deblocking_disabled else 2):
            r.signed()
    if pps.loop_filter_across_slices and (any(sao) or not deblocking_disabled):
        r.bits(1)
    _skip_end(r, pps)
    return SliceHeader(
        is_first,
        False,
        address,
        slice_type,
        references,
        sao,
        lists,
        weights,
        max_merge,
        qp_delta,
        chroma_qp_offset,
        r.position,
    )


def _read_references(r: BitReader, sps: Sps) -> References:
    """Reads slice_pic_order_cnt_lsb … slice_temporal_mvp_enabled_flag."""
    poc_lsb, sets = r.bits(sps.poc_lsb_bits), sps.st_ref_pic_sets
    if not r.flag():
        short_term = read_st_ref_pic_set(r, sets, len(sets))
    else:
        index = r.bits((len(sets) - 1).bit_length() if sets else 0)
        if index >= len(sets):
            raise ValueError(f"reference picture set {index} of {len(sets)} is asked for")
        short_term = sets[index]
    long_term: list[LongTerm] = []
    if sps.long_term_ref_pics:
        listed = r.count(_MAX_LONG_TERM, "num_long_term_sps") if sps.lt_ref_pics else 0
        cycles = 0
        for i in range(listed + r.count(_MAX_LONG_TERM, "num_long_term_pics")):
            if i < listed:
                lsb, used = sps.lt_ref_pics[_index(r, len(sps.lt_ref_pics))]
            else:
                lsb, used = r.bits(sps.poc_lsb_bits), r.flag()
            has_msb = r.flag()
            cycles = (0 if i in (0, listed) else cycles) + (r.unsigned() if has_msb else 0)  # (7-52)
            long_term.append(LongTerm(lsb, used, cycles if has_msb else None))
    return References(poc_lsb, short_term, tuple(long_term), sps.temporal_mvp and r.flag())


def _index(r: BitReader, count: int) -> int:
    """Reads an index u(v) below `count`."""
    index = r.bits((count - 1).bit_length())
    if index >= count:
        raise ValueError(f"number {index} of {count} is asked for")
    return index


def _read_lists(r: BitReader, slice_type: int, pps: Pps, references: References) -> Lists:
    """Reads num_ref_idx_active_override_flag … collocated_ref_idx (7.3.6.1, 7.3.6.2)."""
    n_lists = 2 if slice_type == B else 1
    num_ref_idx = tuple(r.unsigned() + 1 for _ in range(n_lists)) if r.flag() else pps.num_ref_idx[:n_lists]
    if max(num_ref_idx) > _MAX_REFERENCES:
        raise ValueError(f"num_ref_idx = {max(num_ref_idx)} of a slice header is above {_MAX_REFERENCES}")
    entries: list[tuple[int, ...] | None] = [None] * n_lists
    if pps.lists_modification_present and references.n_used > 1:
        for which, number in enumerate(num_ref_idx):
            if r.flag():
                entries[which] = tuple(_index(r, references.n_used) for _ in range(number))
    mvd_l1_zero = slice_type == B and r.flag()
    cabac_init = pps.cabac_init_present and r.flag()
    from_l0, index = True, 0
    if references.temporal_mvp:
        from_l0 = slice_type == P or r.flag()
        number = num_ref_idx[0 if from_l0 else 1]
        index = r.count(number - 1, "collocated_ref_idx") if number > 1 else 0
    return Lists(num_ref_idx, tuple(entries), mvd_l1_zero, cabac_init, from_l0, index)


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


def _skip_end(r: BitReader, pps: Pps) -> None:
    """Reads past the entry points and the extension, which any slice segment may have."""
    if pps.tiles or pps.wavefront:
        number = r.count(_MAX_ENTRY_POINTS, "num_entry_point_offsets")
        if number:
            r.bits(number * (r.count(_MAX_OFFSET_BITS - 1, "offset_len_minus1") + 1))
    if pps.slice_header_extension:
        r.bits(8 * r.count(256, "slice_segment_header_extension_length"))
