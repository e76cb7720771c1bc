"""Random valid H.264 headers, most of them of kinds that no encoder at hand writes, against FFmpeg's reading of them."""

import random

import pytest
from header_traces import Field, HeaderWriter, Tracer, tracing
from video_files import moving_texture, write_file

from ove.video.bitstream import h264_syntax as h264
from ove.video.bitstream.h264 import slice_without_weights
from ove.video.bitstream.nal import clear_bits, unescaped

P, B, INTRA, SP, SI = range(5)


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    with tracing(write_file(tmp_path_factory.mktemp("h264") / "v.h264", moving_texture(2, 32))) as found:
        yield found


def values(fields: list[Field]) -> dict[str, int]:
    return {field.name: field.value for field in fields}


def write_scaling_lists(w: HeaderWriter, rng: random.Random, count: int) -> None:
    """7.3.2.1.1.1: each list ends where the next scale is 0."""
    for i in range(count):
        if not w.flag(rng.random() < 0.6):
            continue
        last, following = 8, 8
        stop = rng.randrange(0, 80)
        for j in range(16 if i < 6 else 64):
            if following:
                following = 0 if j == stop else rng.randrange(1, 256)
                w.signed((following - last + 128) % 256 - 128)
            last = following or last


def sps_of(rng: random.Random) -> bytes:
    w = HeaderWriter(0x67)
    profile = rng.choice([66, 77, 88, 100, 110, 122, 244, 244, 244])
    w.raw(f"{profile:08b}", "0" * 8, f"{51:08b}")
    w.unsigned(rng.randrange(4))
    if profile >= 100:
        chroma_format_idc = rng.randrange(4)
        w.unsigned(chroma_format_idc)
        if chroma_format_idc == 3:
            w.flag(rng.random() < 0.5)
        w.unsigned(rng.randrange(7))
        w.unsigned(rng.randrange(7))
        w.flag(rng.random() < 0.5)
        if w.flag(rng.random() < 0.7):
            write_scaling_lists(w, rng, 12 if chroma_format_idc == 3 else 8)
    w.unsigned(rng.randrange(13))
    order_type = rng.randrange(3)
    w.unsigned(order_type)
    if order_type == 0:
        w.unsigned(rng.randrange(13))
    elif order_type == 1:
        w.flag(rng.random() < 0.4)
        w.signed(rng.randrange(-9, 9))
        w.signed(rng.randrange(-9, 9))
        cycle = rng.randrange(4)
        w.unsigned(cycle)
        for _ in range(cycle):
            w.signed(rng.randrange(-99, 99))
    w.unsigned(16)
    w.flag(rng.random() < 0.5)
    w.unsigned(rng.randrange(6, 60))
    w.unsigned(rng.randrange(6, 60))
    if not w.flag(rng.random() < 0.5):
        w.flag(rng.random() < 0.5)
    w.flag(True)
    if w.flag(rng.random() < 0.5):
        for _ in range(4):
            w.unsigned(rng.randrange(9))
    w.flag(False)
    return w.nal()


def pps_of(rng: random.Random, sps_id: int) -> bytes:
    w = HeaderWriter(0x68)
    w.unsigned(rng.randrange(256))
    w.unsigned(sps_id)
    w.flag(rng.random() < 0.5)
    w.flag(rng.random() < 0.5)
    w.unsigned(0)
    w.unsigned(rng.randrange(4))
    w.unsigned(rng.randrange(4))
    w.flag(rng.random() < 0.8)
    w.number(rng.choice([0, 1, 1, 1, 2]), 2)
    w.signed(rng.randrange(-20, 20))
    w.signed(rng.randrange(-20, 20))
    w.signed(rng.randrange(-12, 13))
    for _ in range(3):
        w.flag(rng.random() < 0.5)
    if rng.random() < 0.3:
        w.flag(False)
        w.flag(False)
        w.signed(rng.randrange(-12, 13))
    return w.nal()


def slice_of(rng: random.Random, sps: dict[str, int], pps: dict[str, int]) -> bytes:
    """7.3.3, by the fields that FFmpeg read in the parameter sets."""
    slice_type = rng.choice([P, P, B, B, INTRA, SP, SI])
    idr = slice_type in (INTRA, SI) and rng.random() < 0.5
    ref_idc = 1 if idr else rng.randrange(4)
    w = HeaderWriter(ref_idc << 5 | (5 if idr else 1))
    w.unsigned(rng.randrange(40))
    w.unsigned(slice_type + 5 * rng.randrange(2))
    w.unsigned(pps["pic_parameter_set_id"])
    separate = sps.get("separate_colour_plane_flag", 0)
    if separate:
        w.number(rng.randrange(3), 2)
    frame_num_bits = sps["log2_max_frame_num_minus4"] + 4
    w.number(0 if idr else rng.randrange(1 << frame_num_bits), frame_num_bits)
    field = not sps["frame_mbs_only_flag"] and w.flag(rng.random() < 0.5)
    if field:
        w.flag(rng.random() < 0.5)
    if idr:
        w.unsigned(rng.randrange(65536))
    if sps["pic_order_cnt_type"] == 0:
        n = sps["log2_max_pic_order_cnt_lsb_minus4"] + 4
        w.number(rng.randrange(1 << n), n)
    both = pps["bottom_field_pic_order_in_frame_present_flag"] and not field
    if sps["pic_order_cnt_type"] == 0 and both:
        w.signed(rng.randrange(-9, 9))
    if sps["pic_order_cnt_type"] == 1 and not sps["delta_pic_order_always_zero_flag"]:
        for _ in range(2 if both else 1):
            w.signed(rng.randrange(-9, 9))
    if pps["redundant_pic_cnt_present_flag"]:
        w.unsigned(rng.randrange(1, 128))
    if slice_type == B:
        w.flag(rng.random() < 0.5)
    lists = {P: 1, SP: 1, B: 2}.get(slice_type, 0)
    num_ref_idx = [pps[f"num_ref_idx_l{i}_default_active_minus1"] + 1 for i in range(lists)]
    if lists and w.flag(rng.random() < 0.5):
        num_ref_idx = [rng.choice([*range(1, 7), 32]) for _ in range(lists)]  # 32 of fields (7.4.3)
        for number in num_ref_idx:
            w.unsigned(number - 1)
    for number in num_ref_idx:
        if w.flag(rng.random() < 0.5):
            for _ in range(rng.randrange(1, number + 1)):
                w.unsigned(rng.randrange(3))
                w.unsigned(rng.randrange(16))
            w.unsigned(3)
    explicit = (slice_type in (P, SP) and pps["weighted_pred_flag"]) or (slice_type == B and pps["weighted_bipred_idc"] == 1)
    if explicit:
        chroma = sps.get("chroma_format_idc", 1) and not separate
        w.unsigned(rng.randrange(8))
        if chroma:
            w.unsigned(rng.randrange(8))
        for _ in range(sum(num_ref_idx)):
            for numbers in (2, 4) if chroma else (2,):
                if w.flag(rng.random() < 0.5):
                    for _ in range(numbers):
                        w.signed(rng.randrange(-128, 128))
    if idr:
        w.number(rng.randrange(4), 2)
    elif ref_idc and w.flag(rng.random() < 0.5):
        for operation in rng.sample([1, 2, 3, 4, 6], rng.randrange(6)):
            w.unsigned(operation)
            for _ in range({3: 2}.get(operation, 1)):
                w.unsigned(rng.randrange(8))
        if rng.random() < 0.3:
            w.unsigned(5)
        w.unsigned(0)
    if pps["entropy_coding_mode_flag"] and lists:
        w.unsigned(rng.randrange(3))
    w.signed(rng.randrange(-9, 9))
    if slice_type == SP:
        w.flag(rng.random() < 0.5)
    if slice_type in (SP, SI):
        w.signed(rng.randrange(-9, 9))
    if pps["deblocking_filter_control_present_flag"]:
        off = rng.randrange(3)
        w.unsigned(off)
        if off != 1:
            w.signed(rng.randrange(-6, 7))
            w.signed(rng.randrange(-6, 7))
    if pps["entropy_coding_mode_flag"]:
        w.raw("1" * (-sum(map(len, w._bits)) % 8))
    for _ in range(rng.randrange(3, 12)):
        w.number(rng.choice([0, 0, rng.randrange(256)]), 8)
    w.number(rng.randrange(1, 1 << 5), rng.randrange(5, 9))
    return w.nal()


def sequence(traced: dict[str, int]) -> h264.Sps:
    """What our reader is to find, from FFmpeg's fields (table 6-1, 7-19 … 7-22 for the crop)."""
    chroma, frame_mbs_only = traced.get("chroma_format_idc", 1), bool(traced["frame_mbs_only_flag"])
    separate = bool(traced.get("separate_colour_plane_flag", 0))
    across, down = {0: (1, 1), 1: (2, 2), 2: (2, 1), 3: (1, 1)}[0 if separate else chroma]
    order_type = traced["pic_order_cnt_type"]
    fields = 1 if frame_mbs_only else 2
    return h264.Sps(
        sps_id=traced["seq_parameter_set_id"],
        chroma_format_idc=chroma,
        separate_colour_plane=separate,
        frame_num_bits=4 + traced["log2_max_frame_num_minus4"],
        poc_type=order_type,
        poc_lsb_bits=4 + traced["log2_max_pic_order_cnt_lsb_minus4"] if order_type == 0 else 0,
        delta_pic_order_always_zero=order_type == 1 and bool(traced["delta_pic_order_always_zero_flag"]),
        width_mbs=1 + traced["pic_width_in_mbs_minus1"],
        height_mbs=fields * (1 + traced["pic_height_in_map_units_minus1"]),
        frame_mbs_only=frame_mbs_only,
        mbaff=not frame_mbs_only and bool(traced["mb_adaptive_frame_field_flag"]),
        crop_right_px=across * traced.get("frame_crop_right_offset", 0),
        crop_bottom_px=fields * down * traced.get("frame_crop_bottom_offset", 0),
    )


def picture(fields: list[Field]) -> h264.Pps:
    traced = values(fields)
    return h264.Pps(
        pps_id=traced["pic_parameter_set_id"],
        sps_id=traced["seq_parameter_set_id"],
        cabac=bool(traced["entropy_coding_mode_flag"]),
        bottom_field_pic_order=bool(traced["bottom_field_pic_order_in_frame_present_flag"]),
        num_slice_groups=1,
        num_ref_idx=tuple(traced[f"num_ref_idx_l{i}_default_active_minus1"] + 1 for i in (0, 1)),
        weighted_pred=bool(traced["weighted_pred_flag"]),
        weighted_bipred_idc=traced["weighted_bipred_idc"],
        weighted_pred_bit=next(field.at for field in fields if field.name == "weighted_pred_flag"),
        deblocking_control=bool(traced["deblocking_filter_control_present_flag"]),
        redundant_pic_cnt=bool(traced["redundant_pic_cnt_present_flag"]),
    )


def is_weight(name: str) -> bool:
    return "weight" in name or name.startswith(("luma_offset_l", "chroma_offset_l"))


def bits_of(payload: bytes) -> str:
    return "".join(f"{byte:08b}" for byte in payload)


def header_of(fields: list[Field]) -> list[Field]:
    return [field for field in fields if field.name != "cabac_alignment_one_bit"]


def check_slice(nal: bytes, pps_nal: bytes, sps: h264.Sps, pps: h264.Pps, tracer: Tracer) -> bool:
    """Whether it has weights; then they are cut out as FFmpeg would read the slice without them."""
    fields = header_of(tracer.read(nal))
    traced, payload = values(fields), unescaped(nal)
    header = h264.read_slice(payload, sps, pps)
    assert h264.read_slice_pps_id(payload) == header.pps_id == traced["pic_parameter_set_id"]
    assert header.field == bool(traced.get("field_pic_flag", 0))
    weights = [field for field in fields if is_weight(field.name)]
    if not weights:
        assert (header.weights, header.end) == ((0, 0), 0)
        return False
    end = fields[-1].at + fields[-1].length
    assert header.weights == (weights[0].at, weights[-1].at + weights[-1].length)
    assert header.end == end
    tracer.read(clear_bits(pps_nal, pps.weighted_pred_bit, 3))
    cut = slice_without_weights(payload, header, pps.cabac)
    left = header_of(tracer.read(cut))
    assert [(f.name, f.value) for f in left] == [(f.name, f.value) for f in fields if not is_weight(f.name)]
    step = 8 if pps.cabac else 1  # where the data begin
    starts = -(-end // step) * step, -(-(left[-1].at + left[-1].length) // step) * step
    data, found = (bits_of(x)[at:].rstrip("0") for x, at in zip((payload, unescaped(cut)), starts, strict=True))
    assert data == found
    return True


def test_headers_are_read_as_ffmpeg_reads_them(tracer):
    weighted = 0
    for seed in range(80):
        rng = random.Random(seed)
        sps_nal = sps_of(rng)
        sps_fields = values(tracer.read(sps_nal))
        sps = h264.read_sps(sps_nal)
        assert sps == sequence(sps_fields), seed
        for _ in range(2):
            pps_nal = pps_of(rng, sps.sps_id)
            pps_fields = tracer.read(pps_nal)
            pps = h264.read_pps(pps_nal)
            assert pps == picture(pps_fields), seed
            for _ in range(4):
                tracer.read(pps_nal)
                weighted += check_slice(slice_of(rng, sps_fields, values(pps_fields)), pps_nal, sps, pps, tracer)
    assert weighted > 150


@pytest.mark.parametrize(("value", "is_valid"), [(12, True), (13, False), (20, False)])
def test_numbers_of_more_than_sixteen_bits_are_refused(value, is_valid):
    """log2_max_pic_order_cnt_lsb_minus4 is 0 to 12 (7.4.2.1.1)."""
    w = HeaderWriter(0x67, 66, 0, 30)
    w.unsigned(0)
    w.unsigned(0)
    w.unsigned(0)
    w.unsigned(value)
    w.unsigned(1)
    w.flag(False)
    w.unsigned(3)
    w.unsigned(3)
    w.raw("1000")
    if is_valid:
        assert h264.read_sps(w.nal()).poc_lsb_bits == 16
    else:
        with pytest.raises(ValueError, match=f"log2_max_pic_order_cnt_lsb_minus4 = {value} of a header is above 12"):
            h264.read_sps(w.nal())
