"""Random valid HEVC headers, most of them of kinds that no encoder at hand writes, against FFmpeg's reading of them."""

import random
from typing import NamedTuple

import pytest
from header_traces import Field, HeaderWriter, Tracer, tracing
from video_files import moving_texture, write_file

from ove.video.bitstream import hevc_syntax as hevc
from ove.video.bitstream.hevc import slice_without_weights
from ove.video.bitstream.hevc_pps import Pps, Tiles, read_pps
from ove.video.bitstream.hevc_slice_header import read_slice_pps_id
from ove.video.bitstream.nal import clear_bits, unescaped

B, P, INTRA = range(3)
KINDS = [0, 1, 2, 3, 6, 7, 8, 9, 16, 19, 20, 21]
"""nal_unit_type (table 7-1): trailing and leading pictures, and those at which decoding may begin."""


class Sps(NamedTuple):
    """What was written, as far as slices depend on it."""

    nal: bytes
    chroma_format: int
    separate: bool
    poc_lsb_bits: int
    sets: list
    long_term_ref_pics: bool
    listed: list
    sao: bool
    temporal_mvp: bool
    num_ctbs: int


@pytest.fixture(scope="module")
def tracer(tmp_path_factory):
    path = tmp_path_factory.mktemp("hevc") / "v.hevc"
    with tracing(write_file(path, moving_texture(2, 32), codec="libx265", x265_params="log-level=none")) as found:
        yield found


def write_scaling_lists(w: HeaderWriter, rng: random.Random) -> None:
    """7.3.4."""
    for size in range(4):
        for matrix in range(0, 6, 3 if size == 3 else 1):
            if not w.flag(rng.random() < 0.5):
                w.unsigned(rng.randrange(matrix // (3 if size == 3 else 1) + 1))
                continue
            if size > 1:
                w.signed(rng.randrange(-7, 248))
            for _ in range(min(64, 1 << (4 + 2 * size))):
                w.signed(rng.randrange(-128, 128))


def write_vui(w: HeaderWriter, rng: random.Random, layers: int) -> None:
    """E.2.1 … E.2.3."""

    def maybe() -> bool:
        return w.flag(rng.random() < 0.5)

    if maybe():
        aspect = rng.choice([1, 255])
        w.number(aspect, 8)
        if aspect == 255:
            w.number(rng.randrange(1, 1 << 32), 32)
    if maybe():
        maybe()
    if maybe():
        w.number(rng.randrange(6), 3)
        maybe()
        if maybe():
            w.number(1, 8)
            w.number(1, 8)
            w.number(1, 8)
    if maybe():
        w.unsigned(rng.randrange(6))
        w.unsigned(rng.randrange(6))
    w.raw("0", "0", "0")
    if maybe():
        for _ in range(4):
            w.unsigned(rng.randrange(4))
    if maybe():
        w.number(1001, 32)
        w.number(30000, 32)
        if maybe():
            w.unsigned(rng.randrange(9))
        if maybe():
            write_hrd(w, rng, layers)
    if maybe():
        w.raw("0", "1", "0")
        for _ in range(5):
            w.unsigned(rng.randrange(9))


def write_hrd(w: HeaderWriter, rng: random.Random, layers: int) -> None:
    """E.2.2, E.2.3."""
    nal, vcl = w.flag(rng.random() < 0.6), w.flag(rng.random() < 0.6)
    sub_pictures = False
    if nal or vcl:
        sub_pictures = w.flag(rng.random() < 0.5)
        if sub_pictures:
            w.number(rng.randrange(1 << 19), 19)
        w.number(rng.randrange(1 << 8), 8)
        if sub_pictures:
            w.number(rng.randrange(16), 4)
        w.number(rng.randrange(1 << 15), 15)
    for _ in range(layers + 1):
        fixed, low_delay, count = w.flag(rng.random() < 0.5), False, 1
        if fixed or w.flag(rng.random() < 0.5):
            w.unsigned(rng.randrange(99))
        else:
            low_delay = w.flag(rng.random() < 0.5)
        if not low_delay:
            count = rng.randrange(1, 4)
            w.unsigned(count - 1)
        for _ in range(count * (nal + vcl)):
            for _ in range(4 if sub_pictures else 2):
                w.unsigned(rng.randrange(1000))
            w.flag(rng.random() < 0.5)


def write_set(w: HeaderWriter, rng: random.Random, known: list, count: int) -> list:
    """st_ref_pic_set (7.3.7); returns distances and whether they are used, nearest first, those before the picture first."""
    number = len(known)
    if number and w.flag(rng.random() < 0.5):
        back = 1
        if number == count:
            back = rng.randrange(1, number + 1)
            w.unsigned(back - 1)
        delta = rng.choice([-3, -2, -1, 1, 2, 3])
        w.flag(delta < 0)
        w.unsigned(abs(delta) - 1)
        found = []
        for distance in [*(d for d, _ in known[-back]), 0]:
            used = w.flag(rng.random() < 0.6)
            kept = used or w.flag(rng.random() < 0.5)
            if kept and distance + delta:
                found.append((distance + delta, used))
        return sorted((x for x in found if x[0] < 0), reverse=True) + sorted(x for x in found if x[0] > 0)
    before, after = rng.randrange(4), rng.randrange(3)
    w.unsigned(before)
    w.unsigned(after)
    found = []
    for many, sign in ((before, -1), (after, 1)):
        distance = 0
        for _ in range(many):
            step = rng.randrange(1, 4)
            distance += sign * step
            w.unsigned(step - 1)
            found.append((distance, w.flag(rng.random() < 0.7)))
    return found


PROFILE = "00" + "0" + "00100" + "0" * 4 + "1" + "0" * 27 + "1001" + "0" * 43 + "0"
"""general_profile_space … general_inbld_flag (7.3.3): format range extensions."""


def write_profiles(w: HeaderWriter, rng: random.Random, layers: int) -> None:
    """profile_tier_level (7.3.3)."""
    w.raw(PROFILE, f"{120:08b}")
    present = [(rng.random() < 0.5, rng.random() < 0.5) for _ in range(layers)]
    for one in present:
        w.raw(*("01"[x] for x in one))
    w.raw("00" * (8 - layers if layers else 0))
    for has_profile, has_level in present:
        w.raw(PROFILE if has_profile else "", f"{90:08b}" if has_level else "")


def vps_of(rng: random.Random) -> bytes:
    """7.3.2.1, with as many sub-layers as there may be."""
    w = HeaderWriter(0x40, 0x01)
    w.raw("0000", "11", "000000", "110", "1", "1" * 16)
    write_profiles(w, rng, 6)
    w.flag(False)
    for value in (6, 0, 0):
        w.unsigned(value)
    w.number(0, 6)
    w.unsigned(0)
    w.raw("0", "0")
    return w.nal()


def sps_of(rng: random.Random) -> Sps:
    """7.3.2.2.1."""
    w = HeaderWriter(0x42, 0x01)
    w.number(0, 4)
    layers = rng.choice([0, 0, 1, 3, 6])
    w.number(layers, 3)
    w.flag(True)
    write_profiles(w, rng, layers)
    w.unsigned(rng.randrange(16))
    chroma_format = rng.randrange(4)
    w.unsigned(chroma_format)
    separate = chroma_format == 3 and w.flag(rng.random() < 0.5)
    width, height = 8 * rng.randrange(20, 90), 8 * rng.randrange(20, 90)
    w.unsigned(width)
    w.unsigned(height)
    if w.flag(rng.random() < 0.5):
        for _ in range(4):
            w.unsigned(rng.randrange(4))
    w.unsigned(rng.randrange(5))
    w.unsigned(rng.randrange(5))
    poc_lsb_bits = rng.randrange(4, 17)
    w.unsigned(poc_lsb_bits - 4)
    for _ in range(layers + 1 if w.flag(rng.random() < 0.5) else 1):
        w.unsigned(6)
        w.unsigned(0)
        w.unsigned(0)
    bigger = rng.randrange(1, 4)  # num_ctbs of 16, 32 or 64
    for value in (0, bigger, 0, rng.randrange(1, min(bigger + 1, 3) + 1), rng.randrange(3), rng.randrange(3)):
        w.unsigned(value)
    if w.flag(rng.random() < 0.6) and w.flag(rng.random() < 0.7):
        write_scaling_lists(w, rng)
    w.flag(rng.random() < 0.5)
    sao = w.flag(rng.random() < 0.5)
    if w.flag(rng.random() < 0.3):
        w.raw("0111", "0111")
        w.unsigned(0)
        w.unsigned(rng.randrange(2))
        w.flag(rng.random() < 0.5)
    count, sets = rng.randrange(6), []
    w.unsigned(count)
    for _ in range(count):
        sets.append(write_set(w, rng, sets, count))
    long_term_ref_pics, listed = w.flag(rng.random() < 0.5), []
    if long_term_ref_pics:
        many = rng.randrange(5)
        w.unsigned(many)
        for _ in range(many):
            lsb = rng.randrange(1 << poc_lsb_bits)
            w.number(lsb, poc_lsb_bits)
            listed.append((lsb, w.flag(rng.random() < 0.6)))
    temporal_mvp = w.flag(rng.random() < 0.6)
    w.raw("0")  # no strong smoothing
    if w.flag(rng.random() < 0.5):
        write_vui(w, rng, layers)
    if w.flag(rng.random() < 0.4):
        w.raw("1", "0000000", *(rng.choice("01") for _ in range(9)))
    side = 8 << bigger
    num_ctbs = -(-width // side) * -(-height // side)
    return Sps(w.nal(), chroma_format, separate, poc_lsb_bits, sets, long_term_ref_pics, listed, sao, temporal_mvp, num_ctbs)


def pps_of(rng: random.Random, sps_id: int) -> bytes:
    """7.3.2.3.1, with the range extension (7.3.2.3.2)."""
    w = HeaderWriter(0x44, 0x01)
    w.unsigned(rng.randrange(64))
    w.unsigned(sps_id)
    w.flag(rng.random() < 0.5)
    w.flag(rng.random() < 0.5)
    w.number(rng.randrange(3), 3)
    w.flag(rng.random() < 0.5)
    w.flag(rng.random() < 0.5)
    w.unsigned(rng.randrange(4))
    w.unsigned(rng.randrange(4))
    w.signed(rng.randrange(-10, 11))
    w.flag(rng.random() < 0.5)
    transform_skip = w.flag(rng.random() < 0.5)
    if w.flag(rng.random() < 0.5):
        w.unsigned(rng.randrange(2))
    w.signed(rng.randrange(-12, 13))
    w.signed(rng.randrange(-12, 13))
    w.flag(rng.random() < 0.5)
    w.flag(rng.random() < 0.8)
    w.flag(rng.random() < 0.8)
    w.flag(rng.random() < 0.5)
    tiles = w.flag(rng.random() < 0.4)
    w.flag(rng.random() < 0.4)
    if tiles:
        columns, rows = rng.choice([(1, 0), (0, 1), (1, 1)])
        w.unsigned(columns)
        w.unsigned(rows)
        if not w.flag(rng.random() < 0.5):
            for _ in range(columns + rows):
                w.unsigned(0)
        w.flag(rng.random() < 0.5)
    w.flag(rng.random() < 0.5)
    if w.flag(rng.random() < 0.6):
        w.flag(rng.random() < 0.5)
        if not w.flag(rng.random() < 0.5):
            w.signed(rng.randrange(-6, 7))
            w.signed(rng.randrange(-6, 7))
    if w.flag(rng.random() < 0.4):
        write_scaling_lists(w, rng)
    w.flag(rng.random() < 0.6)
    w.unsigned(rng.randrange(2))
    w.flag(rng.random() < 0.4)
    if w.flag(rng.random() < 0.6):
        w.raw("1" + "0" * 7)
        if transform_skip:
            w.unsigned(rng.randrange(3))
        w.flag(False)
        if w.flag(rng.random() < 0.6):
            w.unsigned(0)
            many = rng.randrange(3)
            w.unsigned(many)
            for _ in range(2 * (many + 1)):
                w.signed(rng.randrange(-12, 13))
        w.unsigned(0)
        w.unsigned(0)
    return w.nal()


def write_references(w: HeaderWriter, rng: random.Random, sps: Sps) -> int:
    """The pictures that a slice may refer to (7.3.6.1); how many it does."""
    w.number(rng.randrange(1 << sps.poc_lsb_bits), sps.poc_lsb_bits)
    if not sps.sets or not w.flag(rng.random() < 0.6):
        if not sps.sets:
            w.flag(False)
        chosen = write_set(w, rng, sps.sets, len(sps.sets))
    else:
        bits = (len(sps.sets) - 1).bit_length()
        number = rng.randrange(len(sps.sets))
        w.number(number, bits)
        chosen = sps.sets[number]
    used = sum(is_used for _, is_used in chosen)
    if sps.long_term_ref_pics:
        listed = rng.randrange(min(len(sps.listed), 2) + 1) if sps.listed else 0
        if sps.listed:
            w.unsigned(listed)
        more = rng.randrange(3)
        w.unsigned(more)
        for i in range(listed + more):
            if i < listed:
                number = rng.randrange(len(sps.listed))
                w.number(number, (len(sps.listed) - 1).bit_length())
                used += sps.listed[number][1]
            else:
                w.number(rng.randrange(1 << sps.poc_lsb_bits), sps.poc_lsb_bits)
                used += w.flag(rng.random() < 0.6)
            if w.flag(rng.random() < 0.4):
                w.unsigned(rng.randrange(4))
    return used


def slice_of(rng: random.Random, sps: Sps, pps: dict[str, int]) -> bytes:
    """7.3.6.1, by the fields that FFmpeg read in the picture parameter set."""
    kind = rng.choice(KINDS)
    w = HeaderWriter(kind << 1, 0x01)
    first = w.flag(rng.random() < 0.5)
    if kind >= 16:
        w.flag(rng.random() < 0.5)
    w.unsigned(pps["pps_pic_parameter_set_id"])
    dependent = not first and pps["dependent_slice_segments_enabled_flag"] and w.flag(rng.random() < 0.3)
    if not first:
        w.number(rng.randrange(1, sps.num_ctbs), (sps.num_ctbs - 1).bit_length())
    if not dependent:
        write_independent(w, rng, sps, pps, kind)
    if pps["tiles_enabled_flag"] or pps["entropy_coding_sync_enabled_flag"]:
        entries = rng.randrange(3)
        w.unsigned(entries)
        if entries:
            length = rng.randrange(1, 33)
            w.unsigned(length - 1)
            for _ in range(entries):
                w.number(rng.randrange(1 << length), length)
    if pps["slice_segment_header_extension_present_flag"]:
        many = rng.randrange(4)
        w.unsigned(many)
        for _ in range(many):
            w.number(rng.randrange(256), 8)
    w.raw("1")
    w.raw("0" * (-sum(map(len, w._bits)) % 8))
    for _ in range(rng.randrange(3, 12)):
        w.number(rng.choice([0, 0, rng.randrange(256)]), 8)
    return w.nal()


def write_independent(w: HeaderWriter, rng: random.Random, sps: Sps, pps: dict[str, int], kind: int) -> None:
    idr, has_chroma = kind in (19, 20), sps.chroma_format > 0 and not sps.separate
    w.number(rng.randrange(1 << pps["num_extra_slice_header_bits"]), pps["num_extra_slice_header_bits"])
    # The type stands before the num_ref_idx, and may only be P or B where there are some: tried until they agree.
    bits = list(w._bits)
    while True:
        w._bits = list(bits)
        slice_type = INTRA if kind >= 16 else rng.choice([B, B, P, P, INTRA])
        w.unsigned(slice_type)
        if pps["output_flag_present_flag"]:
            w.flag(rng.random() < 0.5)
        if sps.separate:
            w.number(rng.randrange(3), 2)
        used = 0 if idr else write_references(w, rng, sps)
        if slice_type == INTRA or used:
            break
    temporal = not idr and sps.temporal_mvp and w.flag(rng.random() < 0.5)
    filtered = [w.flag(rng.random() < 0.4) for _ in range(sps.sao * (1 + has_chroma))]
    if slice_type != INTRA:
        write_lists(w, rng, pps, slice_type, used, temporal, has_chroma)
    w.signed(rng.randrange(-9, 9))
    if pps["pps_slice_chroma_qp_offsets_present_flag"]:
        w.signed(rng.randrange(-12, 13))
        w.signed(rng.randrange(-12, 13))
    if pps.get("chroma_qp_offset_list_enabled_flag"):
        w.flag(rng.random() < 0.5)
    off = pps.get("pps_deblocking_filter_disabled_flag", 0)
    if pps.get("deblocking_filter_override_enabled_flag") and w.flag(rng.random() < 0.5):
        off = w.flag(rng.random() < 0.5)
        if not off:
            w.signed(rng.randrange(-6, 7))
            w.signed(rng.randrange(-6, 7))
    if pps["pps_loop_filter_across_slices_enabled_flag"] and (any(filtered) or not off):
        w.flag(rng.random() < 0.5)


def write_lists(
    w: HeaderWriter, rng: random.Random, pps: dict[str, int], slice_type: int, used: int, temporal: bool, has_chroma: bool
) -> None:
    lists = 2 if slice_type == B else 1
    num_ref_idx = [pps[f"num_ref_idx_l{i}_default_active_minus1"] + 1 for i in range(lists)]
    if w.flag(rng.random() < 0.5):
        num_ref_idx = [rng.randrange(1, 6) for _ in range(lists)]
        for number in num_ref_idx:
            w.unsigned(number - 1)
    if pps["lists_modification_present_flag"] and used > 1:
        for number in num_ref_idx:
            if w.flag(rng.random() < 0.5):
                for _ in range(number):
                    w.number(rng.randrange(used), (used - 1).bit_length())
    if slice_type == B:
        w.flag(rng.random() < 0.5)
    if pps["cabac_init_present_flag"]:
        w.flag(rng.random() < 0.5)
    if temporal:
        from_first = slice_type == P or w.flag(rng.random() < 0.5)
        number = num_ref_idx[0 if from_first else 1]
        if number > 1:
            w.unsigned(rng.randrange(number))
    if pps["weighted_pred_flag" if slice_type == P else "weighted_bipred_flag"]:
        luma_bits = rng.randrange(8)
        w.unsigned(luma_bits)
        if has_chroma:
            w.signed(rng.randrange(8) - luma_bits)
        for number in num_ref_idx:
            luma = [w.flag(rng.random() < 0.5) for _ in range(number)]
            chroma = [w.flag(rng.random() < 0.5) if has_chroma else False for _ in range(number)]
            for in_luma, in_chroma in zip(luma, chroma, strict=True):
                for _ in range(2 * in_luma):
                    w.signed(rng.randrange(-128, 128))
                for _ in range(4 * in_chroma):
                    w.signed(rng.randrange(-128, 128))
    w.unsigned(rng.randrange(5))


def values(fields: list[Field]) -> dict[str, int]:
    return {field.name: field.value for field in fields}


def sequence(sps: Sps, traced: dict[str, int]) -> hevc.Sps:
    """What our reader is to find: FFmpeg's fields, and the reference sets that were meant."""
    separate, chroma_format = bool(traced.get("separate_colour_plane_flag", 0)), traced["chroma_format_idc"]
    smallest = 3 + traced["log2_min_luma_coding_block_size_minus3"]
    transform = 2 + traced["log2_min_luma_transform_block_size_minus2"]
    pcm = None
    if traced["pcm_enabled_flag"]:
        pcm_size = 3 + traced["log2_min_pcm_luma_coding_block_size_minus3"]
        largest = pcm_size + traced["log2_diff_max_min_pcm_luma_coding_block_size"]
        bits = (1 + traced[f"pcm_sample_bit_depth_{plane}_minus1"] for plane in ("luma", "chroma"))
        pcm = hevc.Pcm(*bits, pcm_size, largest)
    return hevc.Sps(
        sps_id=traced["sps_seq_parameter_set_id"],
        chroma_array_type=0 if separate else chroma_format,
        separate_colour_plane=separate,
        width=traced["pic_width_in_luma_samples"],
        height=traced["pic_height_in_luma_samples"],
        crop_end_px=(
            traced.get("conf_win_bottom_offset", 0) * (2 if chroma_format == 1 else 1),
            traced.get("conf_win_right_offset", 0) * (2 if chroma_format in (1, 2) else 1),
        ),
        bit_depth_luma=8 + traced["bit_depth_luma_minus8"],
        bit_depth_chroma=8 + traced["bit_depth_chroma_minus8"],
        poc_lsb_bits=4 + traced["log2_max_pic_order_cnt_lsb_minus4"],
        min_cb_size_bits=smallest,
        ctb_size_bits=smallest + traced["log2_diff_max_min_luma_coding_block_size"],
        min_tb_size_bits=transform,
        max_tb_size_bits=transform + traced["log2_diff_max_min_luma_transform_block_size"],
        max_depth_inter=traced["max_transform_hierarchy_depth_inter"],
        max_depth_intra=traced["max_transform_hierarchy_depth_intra"],
        amp=bool(traced["amp_enabled_flag"]),
        sao=bool(traced["sample_adaptive_offset_enabled_flag"]),
        pcm=pcm,
        st_ref_pic_sets=tuple(map(tuple, sps.sets)),
        long_term_ref_pics=bool(traced["long_term_ref_pics_present_flag"]),
        lt_ref_pics=tuple(sps.listed),
        temporal_mvp=bool(traced["sps_temporal_mvp_enabled_flag"]),
        range_extension=tuple(bool(traced.get(name, 0)) for name in RANGE_FLAGS),
        unreadable="",
    )


RANGE_FLAGS = [
    "transform_skip_rotation_enabled_flag",
    "transform_skip_context_enabled_flag",
    "implicit_rdpcm_enabled_flag",
    "explicit_rdpcm_enabled_flag",
    "extended_precision_processing_flag",
    "intra_smoothing_disabled_flag",
    "high_precision_offsets_enabled_flag",
    "persistent_rice_adaptation_enabled_flag",
    "cabac_bypass_alignment_enabled_flag",
]


def tiles_of(traced: dict[str, int]) -> Tiles | None:
    if not traced["tiles_enabled_flag"]:
        return None
    columns, rows = traced["num_tile_columns_minus1"] + 1, traced["num_tile_rows_minus1"] + 1
    if traced["uniform_spacing_flag"]:
        return Tiles(columns, rows, None, None)
    widths, heights = (
        tuple(traced[f"{name}_minus1[{i}]"] + 1 for i in range(n - 1))
        for name, n in (("column_width", columns), ("row_height", rows))
    )
    return Tiles(columns, rows, widths, heights)


def picture(fields: list[Field]) -> Pps:
    traced = values(fields)

    def flag(name: str) -> bool:
        return bool(traced.get(name, 0))

    offsets = flag("chroma_qp_offset_list_enabled_flag")
    return Pps(
        pps_id=traced["pps_pic_parameter_set_id"],
        sps_id=traced["pps_seq_parameter_set_id"],
        dependent_slice_segments=flag("dependent_slice_segments_enabled_flag"),
        output_flag_present=flag("output_flag_present_flag"),
        num_extra_slice_header_bits=traced["num_extra_slice_header_bits"],
        sign_data_hiding=flag("sign_data_hiding_enabled_flag"),
        cabac_init_present=flag("cabac_init_present_flag"),
        num_ref_idx=tuple(traced[f"num_ref_idx_l{i}_default_active_minus1"] + 1 for i in (0, 1)),
        init_qp=26 + traced["init_qp_minus26"],
        transform_skip=flag("transform_skip_enabled_flag"),
        cu_qp_delta_depth=traced["diff_cu_qp_delta_depth"] if flag("cu_qp_delta_enabled_flag") else None,
        slice_chroma_qp_offsets=flag("pps_slice_chroma_qp_offsets_present_flag"),
        weighted_pred_bit=next(field.at for field in fields if field.name == "weighted_pred_flag"),
        weighted_pred=flag("weighted_pred_flag"),
        weighted_bipred=flag("weighted_bipred_flag"),
        transquant_bypass=flag("transquant_bypass_enabled_flag"),
        tiles=tiles_of(traced),
        wavefront=flag("entropy_coding_sync_enabled_flag"),
        loop_filter_across_slices=flag("pps_loop_filter_across_slices_enabled_flag"),
        deblocking_override=flag("deblocking_filter_override_enabled_flag"),
        deblocking_disabled=flag("pps_deblocking_filter_disabled_flag"),
        lists_modification_present=flag("lists_modification_present_flag"),
        parallel_merge_bits=2 + traced["log2_parallel_merge_level_minus2"],
        slice_header_extension=flag("slice_segment_header_extension_present_flag"),
        max_transform_skip_size_bits=2 + traced.get("log2_max_transform_skip_block_size_minus2", 0),
        cross_component_prediction=flag("cross_component_prediction_enabled_flag"),
        chroma_qp_offset_depth=traced["diff_cu_chroma_qp_offset_depth"] if offsets else None,
        num_chroma_qp_offsets=traced.get("chroma_qp_offset_list_len_minus1", 0),
    )


def is_weight(name: str) -> bool:
    return "weight" in name or name.startswith(("luma_offset_l", "chroma_offset_l"))


def header_of(nal: bytes, tracer: Tracer) -> tuple[list[Field], bytes]:
    """The fields of a slice's header, and the data behind it."""
    fields = [field for field in tracer.read(nal) if not field.name.startswith("alignment_bit")]
    end = fields[-1].at + fields[-1].length
    return fields, unescaped(nal)[end // 8 + 1 :]  # a one, and zeros to the end of its byte


def check_slice(nal: bytes, pps_nal: bytes, sps: hevc.Sps, pps: Pps, tracer: Tracer) -> bool:
    """Whether it has weights; then they are cut out as FFmpeg would read the slice without them."""
    fields, data = header_of(nal, tracer)
    assert read_slice_pps_id(nal) == values(fields)["slice_pic_parameter_set_id"]
    cut = slice_without_weights(nal, sps, pps)
    if not any(is_weight(field.name) for field in fields):
        assert cut == nal
        return False
    tracer.read(clear_bits(pps_nal, pps.weighted_pred_bit, 2))
    left, found = header_of(cut, tracer)
    assert [(f.name, f.value) for f in left] == [(f.name, f.value) for f in fields if not is_weight(f.name)]
    assert found == data
    return True


def test_headers_are_read_as_ffmpeg_reads_them(tracer):
    weighted = 0
    for seed in range(45):
        rng = random.Random(seed)
        tracer.read(vps_of(rng))
        written = sps_of(rng)
        traced = values(tracer.read(written.nal))
        sps = hevc.read_sps(written.nal)
        assert [list(one) for one in sps.st_ref_pic_sets] == written.sets, seed
        assert hevc.Sps(**{**vars(sps), "st_ref_pic_sets": tuple(map(tuple, sps.st_ref_pic_sets))}) == sequence(
            written, traced
        ), seed
        for _ in range(2):
            pps_nal = pps_of(rng, sps.sps_id)
            pps_fields = tracer.read(pps_nal)
            pps = read_pps(pps_nal)
            assert pps == picture(pps_fields), seed
            for _ in range(6):
                tracer.read(pps_nal)
                weighted += check_slice(slice_of(rng, written, values(pps_fields)), pps_nal, sps, pps, tracer)
    assert weighted > 80
