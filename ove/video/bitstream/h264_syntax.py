"""The H.264 headers that gray-reference decoding needs: parameter sets, and slices up to their data.

Clause numbers are those of ITU-T H.264 (08/2021).
"""

from dataclasses import dataclass

from ove.video.bitstream.nal import BitReader, unescaped

NAL_SLICE, NAL_IDR, NAL_SEI, NAL_SPS, NAL_PPS = 1, 5, 6, 7, 8
_PROFILES_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_P, _B, _I, _SP, _SI = range(5)
"""slice_type modulo 5 (table 7-6)."""
_MOST_REFERENCES = 32


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
    columns: int
    rows: int
    """Macroblocks of a frame, across and down."""
    frames_only: bool
    """False for streams that may hold interlaced pictures."""
    pairs: bool
    """Frames are coded in pairs of macroblocks, each frame- or field-wise (MBAFF)."""
    crop_right_px: int
    crop_bottom_px: int


@dataclass(frozen=True)
class PictureHeader:
    """What of a picture parameter set (7.3.2.2) matters here."""

    pps_id: int
    sps_id: int
    cabac: bool
    order_count_in_frame: bool
    """bottom_field_pic_order_in_frame_present_flag."""
    slice_groups: int
    references: tuple[int, int] = (1, 1)
    """Active by default in list 0 and list 1."""
    weighted_p: bool = False
    weighted_b: int = 0
    """0: plain mean, 1: explicit weights in slice headers, 2: weights implied by distances, which keep a uniform gray."""
    weights_at: int = 0
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    deblocking_control: bool = False
    redundant_pictures: bool = False


@dataclass(frozen=True)
class SliceHeader:
    """What of a slice header (7.3.3) matters here; positions are bits without emulation prevention."""

    pps_id: int
    field: bool
    """It belongs to a picture of one field (PAFF)."""
    weights: tuple[int, int] = (0, 0)
    """Where the table of explicit weights (7.3.3.2) begins and ends; both 0 without one."""
    end: int = 0
    """Where the header ends; 0 unless there is a table."""


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
    r = BitReader(unescaped(nal))
    r.bits(8)
    profile = r.bits(8)
    r.bits(16)
    sps_id, chroma_format, separate_planes, luma_bits = r.unsigned(), 1, False, 8
    if profile in _PROFILES_WITH_CHROMA_FORMAT:
        chroma_format = r.unsigned()
        separate_planes = chroma_format == 3 and r.flag()
        luma_bits = 8 + r.unsigned()
        r.unsigned()
        r.bits(1)
        if r.flag():
            _skip_scaling_lists(r, 8 if chroma_format != 3 else 12)
    frame_num_bits, order_count_type = r.unsigned() + 4, r.unsigned()
    order_count_bits = r.unsigned() + 4 if order_count_type == 0 else 0
    delta_always_zero = False
    if order_count_type == 1:
        delta_always_zero = r.flag()
        r.signed()
        r.signed()
        for _ in range(r.unsigned()):
            r.signed()
    r.unsigned()
    r.bits(1)
    columns, map_rows, frames_only = r.unsigned() + 1, r.unsigned() + 1, r.flag()
    pairs = not frames_only and r.flag()
    r.bits(1)
    _, right, _, bottom = (r.unsigned() for _ in range(4)) if r.flag() else (0, 0, 0, 0)
    # Crop units (table 6-1, 7-19 … 7-22): chroma samples, and of one field where there may be fields.
    unit_x = 2 if chroma_format in (1, 2) else 1
    unit_y = (2 if chroma_format == 1 else 1) * (1 if frames_only else 2)
    return SequenceHeader(
        sps_id=sps_id,
        chroma_format=chroma_format,
        separate_planes=separate_planes,
        luma_bits=luma_bits,
        frame_num_bits=frame_num_bits,
        order_count_type=order_count_type,
        order_count_bits=order_count_bits,
        order_delta_always_zero=delta_always_zero,
        columns=columns,
        rows=map_rows * (1 if frames_only else 2),
        frames_only=frames_only,
        pairs=pairs,
        crop_right_px=right * unit_x,
        crop_bottom_px=bottom * unit_y,
    )


def _skip_scaling_lists(r: BitReader, count: int) -> None:
    """Reads past the scaling lists of a parameter set (7.3.2.1.1.1)."""
    for i in range(count):
        if not r.flag():
            continue
        last, following = 8, 8
        for _ in range(16 if i < 6 else 64):
            if following:
                following = (last + r.signed()) % 256
            last = following or last


def read_pps(nal: bytes) -> PictureHeader:
    """The picture parameter set in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal))
    r.bits(8)
    pps_id, sps_id, cabac, order_count_in_frame = r.unsigned(), r.unsigned(), r.flag(), r.flag()
    slice_groups = r.unsigned() + 1
    if slice_groups > 1:
        return PictureHeader(pps_id, sps_id, cabac, order_count_in_frame, slice_groups)
    references, weights_at = (r.unsigned() + 1, r.unsigned() + 1), r.position
    weighted_p, weighted_b = r.flag(), r.bits(2)
    for _ in range(3):
        r.signed()
    deblocking_control, _, redundant_pictures = r.flag(), r.flag(), r.flag()
    return PictureHeader(
        pps_id=pps_id,
        sps_id=sps_id,
        cabac=cabac,
        order_count_in_frame=order_count_in_frame,
        slice_groups=slice_groups,
        references=references,
        weighted_p=weighted_p,
        weighted_b=weighted_b,
        weights_at=weights_at,
        deblocking_control=deblocking_control,
        redundant_pictures=redundant_pictures,
    )


def read_slice_pps_id(payload: bytes) -> int:
    """Id of the picture parameter set that a slice refers to (7.3.3)."""
    r = BitReader(payload[:16], skip_bits=8)
    r.unsigned()
    r.unsigned()
    return r.unsigned()


def read_slice(payload: bytes, sps: SequenceHeader, pps: PictureHeader) -> SliceHeader:
    """The header of a slice's NAL unit without emulation prevention; ValueError if it makes no sense."""
    r = BitReader(payload[:4096])
    nal_ref_idc, nal_type = (r.bits(8) >> 5) & 3, payload[0] & 31
    r.unsigned()
    slice_type, pps_id = r.unsigned() % 5, r.unsigned()
    r.bits((2 if sps.separate_planes else 0) + sps.frame_num_bits)
    field = not sps.frames_only and r.flag()
    if field:
        r.bits(1)
    explicit = (slice_type in (_P, _SP) and pps.weighted_p) or (slice_type == _B and pps.weighted_b == 1)
    if not explicit:
        return SliceHeader(pps_id, field)
    if nal_type == NAL_IDR:
        r.unsigned()
    r.bits(sps.order_count_bits)
    if sps.order_count_type == 0 and pps.order_count_in_frame and not field:
        r.signed()
    if sps.order_count_type == 1 and not sps.order_delta_always_zero:
        for _ in range(2 if pps.order_count_in_frame and not field else 1):
            r.signed()
    if pps.redundant_pictures:
        r.unsigned()
    lists = 2 if slice_type == _B else 1
    r.bits(lists - 1)  # direct_spatial_mv_pred_flag
    references = list(pps.references)
    if r.flag():
        references[:lists] = [r.unsigned() + 1 for _ in range(lists)]
    if max(references) > _MOST_REFERENCES:
        raise ValueError("a slice header names too many references")
    for _ in range(lists):  # ref_pic_list_modification (7.3.3.1)
        if r.flag():
            while r.unsigned() != 3:
                r.unsigned()
    start = r.position
    _skip_weights(r, references[:lists], chroma=sps.chroma_format > 0 and not sps.separate_planes)
    end = r.position
    if nal_ref_idc:
        _skip_marking(r, nal_type == NAL_IDR)
    if pps.cabac:
        r.unsigned()
    r.signed()
    if slice_type == _SP:
        r.bits(1)
        r.signed()
    if pps.deblocking_control and r.unsigned() != 1:
        r.signed()
        r.signed()
    return SliceHeader(pps_id, field, (start, end), r.position)


def _skip_weights(r: BitReader, references: list[int], chroma: bool) -> None:
    """Reads past pred_weight_table (7.3.3.2)."""
    r.unsigned()
    if chroma:
        r.unsigned()
    for _ in range(sum(references)):
        for numbers in (2, 4) if chroma else (2,):
            if r.flag():
                for _ in range(numbers):
                    r.signed()


def _skip_marking(r: BitReader, idr: bool) -> None:
    """Reads past dec_ref_pic_marking (7.3.3.3)."""
    if idr:
        r.bits(2)
    elif r.flag():
        while operation := r.unsigned():
            for _ in range({1: 1, 2: 1, 3: 2, 4: 1, 6: 1}.get(operation, 0)):
                r.unsigned()
