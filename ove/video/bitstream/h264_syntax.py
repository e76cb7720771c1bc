"""The H.264 headers that gray decoding needs: parameter sets, and slices up to their data.

Clause numbers are those of ITU-T H.264 (08/2021).
"""

from dataclasses import dataclass

from ove.video.bitstream.nal import BitReader, unescaped

NAL_SLICE, NAL_IDR, NAL_SEI, NAL_SPS, NAL_PPS = 1, 5, 6, 7, 8
_PROFILES_WITH_CHROMA_FORMAT = {100, 110, 122, 244, 44, 83, 86, 118, 128, 138, 139, 134, 135}
_P, _B, _I, _SP, _SI = range(5)
"""slice_type modulo 5 (table 7-6)."""
_MAX_REFERENCES = 32
_MAX_SPS_ID, _MAX_PPS_ID, _MAX_CYCLE = 31, 255, 255
"""Of seq_parameter_set_id, pic_parameter_set_id and num_ref_frames_in_pic_order_cnt_cycle (7.4.2.1.1, 7.4.2.2)."""
_MAX_NUM_BITS = 16
"""Of frame_num and pic_order_cnt_lsb."""


@dataclass(frozen=True)
class Sps:
    """Fields of the SPS (7.3.2.1.1) needed to decode a picture."""

    sps_id: int
    chroma_format_idc: int
    """0 monochrome, 1 4:2:0, 2 4:2:2, 3 4:4:4."""
    separate_colour_plane: bool
    frame_num_bits: int
    poc_type: int
    poc_lsb_bits: int
    """Of pic_order_cnt_lsb; 0 unless poc_type is 0."""
    delta_pic_order_always_zero: bool
    width_mbs: int
    height_mbs: int
    """Macroblocks of a frame, across and down."""
    frame_mbs_only: bool
    """False if there may be interlaced pictures."""
    mbaff: bool
    """mb_adaptive_frame_field_flag: each pair of macroblocks is coded frame- or field-wise."""
    crop_right_px: int
    crop_bottom_px: int


@dataclass(frozen=True)
class Pps:
    """Fields of the PPS (7.3.2.2) needed to read slice headers."""

    pps_id: int
    sps_id: int
    cabac: bool
    bottom_field_pic_order: bool
    """bottom_field_pic_order_in_frame_present_flag."""
    num_slice_groups: int
    num_ref_idx: tuple[int, int] = (1, 1)
    """num_ref_idx_default_active of list 0 and list 1."""
    weighted_pred: bool = False
    weighted_bipred_idc: int = 0
    """0: mean, 1: explicit weights in slice headers, 2: weights implied by POC distances, which keep a uniform gray."""
    weighted_pred_bit: int = 0
    """Bits before weighted_pred_flag, counted without emulation prevention."""
    deblocking_control: bool = False
    redundant_pic_cnt: bool = False


@dataclass(frozen=True)
class SliceHeader:
    """Fields of a slice header (7.3.3); positions are bits without emulation prevention."""

    pps_id: int
    field: bool
    """Whether it belongs to a picture of one field (PAFF)."""
    weights: tuple[int, int] = (0, 0)
    """Where the table of explicit weights (7.3.3.2) begins and ends; both 0 without one."""
    end: int = 0
    """Where the header ends; 0 unless there is a table."""


def split_avcc(extradata: bytes) -> tuple[int, list[bytes]]:
    """Returns the bytes of a length prefix, and the parameter sets, of an MP4 `avcC` record (ISO/IEC 14496-15, 5.3.3)."""
    length_bytes, at, nals = (extradata[4] & 3) + 1, 5, []
    for mask in (31, 255):  # first the sequence, then the picture parameter sets
        count, at = extradata[at] & mask, at + 1
        for _ in range(count):
            size = int.from_bytes(extradata[at : at + 2], "big")
            nals.append(extradata[at + 2 : at + 2 + size])
            at += 2 + size
    if at > len(extradata):
        raise ValueError("the stream header ends in the middle of a parameter set")
    return length_bytes, nals


def read_sps(nal: bytes) -> Sps:
    """Reads the SPS in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal))
    r.bits(8)
    profile = r.bits(8)
    r.bits(16)
    sps_id, chroma_format_idc, separate_colour_plane = r.count(_MAX_SPS_ID, "seq_parameter_set_id"), 1, False
    if profile in _PROFILES_WITH_CHROMA_FORMAT:
        chroma_format_idc = r.count(3, "chroma_format_idc")
        separate_colour_plane = chroma_format_idc == 3 and r.flag()
        r.unsigned()
        r.unsigned()
        r.bits(1)
        if r.flag():
            _skip_scaling_lists(r, 8 if chroma_format_idc != 3 else 12)
    frame_num_bits, poc_type = r.count(_MAX_NUM_BITS - 4, "log2_max_frame_num_minus4") + 4, r.count(2, "pic_order_cnt_type")
    poc_lsb_bits = r.count(_MAX_NUM_BITS - 4, "log2_max_pic_order_cnt_lsb_minus4") + 4 if poc_type == 0 else 0
    delta_pic_order_always_zero = False
    if poc_type == 1:
        delta_pic_order_always_zero = r.flag()
        r.signed()
        r.signed()
        for _ in range(r.count(_MAX_CYCLE, "num_ref_frames_in_pic_order_cnt_cycle")):
            r.signed()
    r.unsigned()
    r.bits(1)
    width_mbs, map_rows, frame_mbs_only = r.unsigned() + 1, r.unsigned() + 1, r.flag()
    mbaff = not frame_mbs_only and r.flag()
    r.bits(1)
    _, right, _, bottom = (r.unsigned() for _ in range(4)) if r.flag() else (0, 0, 0, 0)
    # Crop units (table 6-1, 7-19 … 7-22): chroma samples, and of one field where there may be fields.
    unit_x = 2 if chroma_format_idc in (1, 2) else 1
    unit_y = (2 if chroma_format_idc == 1 else 1) * (1 if frame_mbs_only else 2)
    return Sps(
        sps_id=sps_id,
        chroma_format_idc=chroma_format_idc,
        separate_colour_plane=separate_colour_plane,
        frame_num_bits=frame_num_bits,
        poc_type=poc_type,
        poc_lsb_bits=poc_lsb_bits,
        delta_pic_order_always_zero=delta_pic_order_always_zero,
        width_mbs=width_mbs,
        height_mbs=map_rows * (1 if frame_mbs_only else 2),
        frame_mbs_only=frame_mbs_only,
        mbaff=mbaff,
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


def read_pps(nal: bytes) -> Pps:
    """Reads the PPS in a NAL unit; ValueError if it ends too early."""
    r = BitReader(unescaped(nal))
    r.bits(8)
    pps_id, sps_id = r.count(_MAX_PPS_ID, "pic_parameter_set_id"), r.count(_MAX_SPS_ID, "seq_parameter_set_id")
    cabac, bottom_field_pic_order = r.flag(), r.flag()
    num_slice_groups = r.unsigned() + 1
    if num_slice_groups > 1:
        return Pps(pps_id, sps_id, cabac, bottom_field_pic_order, num_slice_groups)
    num_ref_idx, weighted_pred_bit = (r.unsigned() + 1, r.unsigned() + 1), r.position
    weighted_pred, weighted_bipred_idc = r.flag(), r.bits(2)
    for _ in range(3):
        r.signed()
    deblocking_control, _, redundant_pic_cnt = r.flag(), r.flag(), r.flag()
    return Pps(
        pps_id=pps_id,
        sps_id=sps_id,
        cabac=cabac,
        bottom_field_pic_order=bottom_field_pic_order,
        num_slice_groups=num_slice_groups,
        num_ref_idx=num_ref_idx,
        weighted_pred=weighted_pred,
        weighted_bipred_idc=weighted_bipred_idc,
        weighted_pred_bit=weighted_pred_bit,
        deblocking_control=deblocking_control,
        redundant_pic_cnt=redundant_pic_cnt,
    )


def read_slice_pps_id(payload: bytes) -> int:
    """Reads the id of the PPS that a slice refers to (7.3.3)."""
    r = BitReader(payload[:16], skip_bits=8)
    r.unsigned()
    r.unsigned()
    return r.unsigned()


def read_slice(payload: bytes, sps: Sps, pps: Pps) -> SliceHeader:
    """Reads the header of a slice's NAL unit without emulation prevention; ValueError if it is invalid."""
    r = BitReader(payload[:4096])
    nal_ref_idc, nal_type = (r.bits(8) >> 5) & 3, payload[0] & 31
    r.unsigned()
    slice_type, pps_id = r.unsigned() % 5, r.unsigned()
    r.bits((2 if sps.separate_colour_plane else 0) + sps.frame_num_bits)
    field = not sps.frame_mbs_only and r.flag()
    if field:
        r.bits(1)
    explicit = (slice_type in (_P, _SP) and pps.weighted_pred) or (slice_type == _B and pps.weighted_bipred_idc == 1)
    if not explicit:
        return SliceHeader(pps_id, field)
    if nal_type == NAL_IDR:
        r.unsigned()
    r.bits(sps.poc_lsb_bits)
    if sps.poc_type == 0 and pps.bottom_field_pic_order and not field:
        r.signed()
    if sps.poc_type == 1 and not sps.delta_pic_order_always_zero:
        for _ in range(2 if pps.bottom_field_pic_order and not field else 1):
            r.signed()
    if pps.redundant_pic_cnt:
        r.unsigned()
    lists = 2 if slice_type == _B else 1
    r.bits(lists - 1)  # direct_spatial_mv_pred_flag
    num_ref_idx = list(pps.num_ref_idx)
    if r.flag():
        num_ref_idx[:lists] = [r.unsigned() + 1 for _ in range(lists)]
    if max(num_ref_idx) > _MAX_REFERENCES:
        raise ValueError(f"num_ref_idx = {max(num_ref_idx)} of a slice header is above {_MAX_REFERENCES}")
    for _ in range(lists):  # ref_pic_list_modification (7.3.3.1)
        if r.flag():
            while r.unsigned() != 3:
                r.unsigned()
    start = r.position
    _skip_weights(r, num_ref_idx[:lists], chroma=sps.chroma_format_idc > 0 and not sps.separate_colour_plane)
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


def _skip_weights(r: BitReader, num_ref_idx: list[int], chroma: bool) -> None:
    """Reads past pred_weight_table (7.3.3.2)."""
    r.unsigned()
    if chroma:
        r.unsigned()
    for _ in range(sum(num_ref_idx)):
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
