"""The HEVC sequence parameter set, and what all headers have in common; `hevc_pps` and `hevc_slice_header` have the others.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from collections.abc import Sequence
from dataclasses import dataclass

from ove.video.bitstream.hevc_vui import skip_vui
from ove.video.bitstream.nal import BitReader, unescaped

NAL_VPS, NAL_SPS, NAL_PPS = 32, 33, 34
_PROFILE_BITS, _LEVEL_BITS = 88, 8
_MAX_REF_PICS = 16
MAX_SPS_ID = 15
_MAX_SETS, _MAX_LONG_TERM = 64, 32
"""num_short_term_ref_pic_sets, num_long_term_ref_pics_sps (7.4.3)."""
_MAX_BLOCK_BITS = 6
"""Of a coding tree block: 64 pixels."""

StRefPicSet = Sequence[tuple[int, bool]]
"""Short-term reference pictures (7.4.8), the earlier ones first: difference in POC, and whether the picture uses each."""


@dataclass(frozen=True)
class Pcm:
    """Bits of the samples that are coded as such, and log2 of their blocks' sides."""

    luma_bits: int
    chroma_bits: int
    min_size_bits: int
    max_size_bits: int


@dataclass(frozen=True)
class Sps:
    """Fields of the SPS (7.3.2.2); `_size_bits` are log2 of pixels."""

    sps_id: int
    chroma_array_type: int
    separate_colour_plane: bool
    width: int
    height: int
    crop_end_px: tuple[int, int]
    """Rows and columns of the coded picture below and to the right of the one that is shown."""
    bit_depth_luma: int
    bit_depth_chroma: int
    poc_lsb_bits: int
    min_cb_size_bits: int
    ctb_size_bits: int
    min_tb_size_bits: int
    max_tb_size_bits: int
    max_depth_inter: int
    max_depth_intra: int
    amp: bool
    sao: bool
    pcm: Pcm | None
    st_ref_pic_sets: tuple[StRefPicSet, ...]
    long_term_ref_pics: bool
    lt_ref_pics: tuple[tuple[int, bool], ...]
    """lt_ref_pic_poc_lsb_sps and used_by_curr_pic_lt_sps_flag of each long-term reference picture that the SPS lists."""
    temporal_mvp: bool
    range_extension: tuple[bool, ...]
    """The nine flags of sps_range_extension (7.3.2.2.2), in their order."""
    unreadable: str
    """Why what follows the fields above `range_extension` is not known; else empty."""

    @property
    def num_ctbs(self) -> int:
        """Returns the coding tree blocks of a picture."""
        return -(-self.width >> self.ctb_size_bits) * -(-self.height >> self.ctb_size_bits)


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
    sps_id, chroma_format = r.count(MAX_SPS_ID, "sps_seq_parameter_set_id"), r.count(3, "chroma_format_idc")
    separate_colour_plane = chroma_format == 3 and r.flag()
    width, height = r.unsigned(), r.unsigned()
    crop_right, crop_bottom = _read_window(r) if r.flag() else (0, 0)
    bit_depth_luma, bit_depth_chroma = r.unsigned() + 8, r.unsigned() + 8
    poc_lsb_bits = r.count(12, "log2_max_pic_order_cnt_lsb_minus4") + 4
    for _ in range(3 * (sub_layers + 1) if r.flag() else 3):
        r.unsigned()
    min_cb = r.unsigned() + 3
    ctb = min_cb + r.unsigned()
    if ctb > _MAX_BLOCK_BITS:
        raise ValueError(f"coding tree blocks of 2 ** {ctb} pixels are above 2 ** {_MAX_BLOCK_BITS}")
    min_tb = r.unsigned() + 2
    max_tb = min_tb + r.unsigned()
    max_depth_inter, max_depth_intra = r.unsigned(), r.unsigned()
    if r.flag() and r.flag():
        skip_scaling_lists(r)
    amp, sao, pcm = r.flag(), r.flag(), _read_pcm(r) if r.flag() else None
    st_ref_pic_sets: list[StRefPicSet] = []
    count = r.count(_MAX_SETS, "num_short_term_ref_pic_sets")
    for _ in range(count):
        st_ref_pic_sets.append(read_st_ref_pic_set(r, st_ref_pic_sets, count))
    long_term_ref_pics = r.flag()
    n_listed = r.count(_MAX_LONG_TERM, "num_long_term_ref_pics_sps") if long_term_ref_pics else 0
    listed = tuple((r.bits(poc_lsb_bits), r.flag()) for _ in range(n_listed))
    temporal_mvp = r.flag()
    range_extension, unreadable = _read_end(r, sub_layers)
    return Sps(
        sps_id=sps_id,
        chroma_array_type=0 if separate_colour_plane else chroma_format,
        separate_colour_plane=separate_colour_plane,
        width=width,
        height=height,
        crop_end_px=(crop_bottom << (chroma_format == 1), crop_right << (chroma_format in (1, 2))),
        bit_depth_luma=bit_depth_luma,
        bit_depth_chroma=bit_depth_chroma,
        poc_lsb_bits=poc_lsb_bits,
        min_cb_size_bits=min_cb,
        ctb_size_bits=ctb,
        min_tb_size_bits=min_tb,
        max_tb_size_bits=max_tb,
        max_depth_inter=max_depth_inter,
        max_depth_intra=max_depth_intra,
        amp=amp,
        sao=sao,
        pcm=pcm,
        st_ref_pic_sets=tuple(st_ref_pic_sets),
        long_term_ref_pics=long_term_ref_pics,
        lt_ref_pics=listed,
        temporal_mvp=temporal_mvp,
        range_extension=range_extension,
        unreadable=unreadable,
    )


def _read_window(r: BitReader) -> tuple[int, int]:
    """Reads the conformance window; returns its offsets from the right and from below, in units of chroma samples."""
    _, right, _, below = (r.unsigned() for _ in range(4))
    return right, below


def _read_pcm(r: BitReader) -> Pcm:
    """Reads the fields of the SPS after pcm_enabled_flag."""
    luma, chroma = r.bits(4) + 1, r.bits(4) + 1
    smallest = r.unsigned() + 3
    largest = smallest + r.unsigned()
    r.bits(1)
    return Pcm(luma, chroma, smallest, largest)


def _read_end(r: BitReader, sub_layers: int) -> tuple[tuple[bool, ...], str]:
    """Reads what follows sps_temporal_mvp_enabled_flag; returns the range extension's flags, and why they are not known."""
    flags: tuple[bool, ...] = (False,) * 9
    try:
        r.bits(1)
        if r.flag():
            skip_vui(r, sub_layers)
        if r.flag():
            in_range, others = r.flag(), r.bits(7)
            if in_range:
                flags = tuple(r.flag() for _ in range(9))
            if others:
                return flags, "it uses extensions for layers, depth or screen content"
    except ValueError as error:  # decoders forgive what follows
        return flags, f"a header cannot be read ({error})"
    return flags, ""


def skip_scaling_lists(r: BitReader) -> None:
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
