"""HEVC without its explicit prediction weights, which would turn a uniform gray reference into another gray.

The flags in a picture parameter set are cleared and the tables cut out of the slice headers; the data of a slice begin at a
whole byte and stay as they are. Clause numbers are those of ITU-T H.265 (08/2021).
"""

from ove.video.bitstream.hevc_syntax import FIRST_IRAP, IDR, LAST_IRAP, PictureHeader, SequenceHeader, kind, read_picture_set
from ove.video.bitstream.nal import BitReader, BitWriter, escaped, unescaped

_B, _P = 0, 1
"""slice_type (table 7-7)."""
_MOST_REFERENCES = 16


def pps_without_weights(nal: bytes, pps: PictureHeader) -> bytes:
    """The parameter set's NAL unit with weighted_pred_flag and weighted_bipred_flag 0 (7.3.2.3)."""
    payload = unescaped(nal)
    cleared = int.from_bytes(payload, "big") & ~(0b11 << (8 * len(payload) - pps.weights_at - 2))
    return escaped(cleared.to_bytes(len(payload), "big"))


def slice_without_weights(nal: bytes, sps: SequenceHeader, pps: PictureHeader) -> bytes:
    """A slice's NAL unit without its table of weights; ValueError if its header makes no sense."""
    payload = unescaped(nal)
    r = BitReader(payload[:4096], skip_bits=16)
    first = r.flag()
    r.bits(1 if FIRST_IRAP <= kind(nal) <= LAST_IRAP else 0)
    r.unsigned()
    dependent = not first and pps.dependent_slices and r.flag()
    r.bits(0 if first else (sps.blocks - 1).bit_length())
    if dependent:
        return nal
    r.bits(pps.extra_bits)
    slice_type = r.unsigned()
    r.bits(pps.output_flag + 2 * sps.separate_planes)
    n_pictures, temporal_vectors = (0, False) if kind(nal) in IDR else _skip_references(r, sps)
    filtered = [r.flag() for _ in range(sps.sao * (1 + sps.chroma_planes))]
    if not ((slice_type == _P and pps.weighted_p) or (slice_type == _B and pps.weighted_b)):
        return nal
    references = _skip_lists(r, slice_type, pps, n_pictures, temporal_vectors)
    start = r.position
    _skip_weights(r, references, sps.chroma_planes)
    end = r.position
    _skip_rest(r, pps, any(filtered))
    before, total, after = int.from_bytes(payload[: -(-r.position // 8)], "big"), -(-r.position // 8) * 8, r.position - end
    header = BitWriter()
    header.number(before >> (total - start), start)
    header.number((before >> (total - r.position)) & ((1 << after) - 1), after)
    # byte_alignment (7.3.2.12) is a one and zeros: where the header ended a byte, it filled one of its own.
    return escaped(header.aligned() + payload[r.position // 8 + 1 :])


def _skip_references(r: BitReader, sps: SequenceHeader) -> tuple[int, bool]:
    """Reads past the pictures that may be referred to; how many are, and whether vectors are predicted from one."""
    r.bits(sps.order_count_bits)
    sets = sps.picture_sets
    if not r.flag():
        chosen = read_picture_set(r, sets, len(sets))
    else:
        chosen = sets[r.bits((len(sets) - 1).bit_length())]
    n_pictures = sum(used for _, used in chosen)
    if sps.long_term:
        listed = r.unsigned() if sps.long_term_used else 0
        for i in range(listed + r.unsigned()):
            if i < listed:
                n_pictures += sps.long_term_used[r.bits((len(sps.long_term_used) - 1).bit_length())]
            else:
                r.bits(sps.order_count_bits)
                n_pictures += r.bits(1)
            if r.flag():
                r.unsigned()
    return n_pictures, sps.temporal_vectors and r.flag()


def _skip_lists(r: BitReader, slice_type: int, pps: PictureHeader, n_pictures: int, temporal_vectors: bool) -> tuple[int, ...]:
    """Reads past what makes up the reference lists; their lengths (7.3.6.1, 7.3.6.2)."""
    lists = 2 if slice_type == _B else 1
    references = tuple(r.unsigned() + 1 for _ in range(lists)) if r.flag() else pps.references[:lists]
    if max(references) > _MOST_REFERENCES:
        raise ValueError("a slice header names too many references")
    if pps.lists_modification and n_pictures > 1:
        for number in references:
            if r.flag():
                r.bits(number * (n_pictures - 1).bit_length())
    r.bits((slice_type == _B) + pps.cabac_init)
    if temporal_vectors:
        from_first = lists == 1 or r.flag()
        if references[0 if from_first else 1] > 1:
            r.unsigned()
    return references


def _skip_weights(r: BitReader, references: tuple[int, ...], chroma: bool) -> None:
    """Reads past pred_weight_table (7.3.6.3)."""
    r.unsigned()
    if chroma:
        r.signed()
    for number in references:
        luma = [r.flag() for _ in range(number)]
        both = [r.flag() for _ in range(number)] if chroma else [False] * number
        for in_luma, in_chroma in zip(luma, both, strict=True):
            for _ in range(2 * in_luma + 4 * in_chroma):
                r.signed()


def _skip_rest(r: BitReader, pps: PictureHeader, filtered: bool) -> None:
    """Reads past what follows the weights, up to the alignment (7.3.6.1)."""
    r.unsigned()
    for _ in range(3 if pps.chroma_offsets else 1):
        r.signed()
    r.bits(1 if pps.chroma_offset_lists else 0)
    deblocking_off = pps.deblocking_off
    if pps.deblocking_override and r.flag():
        deblocking_off = r.flag()
        for _ in range(0 if deblocking_off else 2):
            r.signed()
    if pps.filter_across_slices and (filtered or not deblocking_off):
        r.bits(1)
    if pps.entry_points:
        number = r.unsigned()
        if number:
            r.bits(number * (r.unsigned() + 1))
    if pps.header_extension:
        r.bits(8 * r.unsigned())
