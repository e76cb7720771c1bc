"""The transform tree of a coding unit and its transform units (7.3.8.8 … 7.3.8.12)."""

from ove.video.bitstream.hevc_slices.cabac import charge, read_bin, read_bypass, read_exp_golomb
from ove.video.bitstream.hevc_slices.coefficients import read_coefficients
from ove.video.bitstream.hevc_slices.kernel import Coder, Contexts, Params, Picture, Scratch, Words, compiled, to_int
from ove.video.bitstream.hevc_slices.tables import (
    CBF_CHROMA,
    CBF_LUMA,
    CU_CHROMA_QP_OFFSET,
    CU_CHROMA_QP_OFFSET_IDX,
    CU_QP_DELTA,
    MODE_422,
    RES_SCALE_ABS,
    RES_SCALE_SIGN,
    SPLIT_TRANSFORM,
)

_PLANAR, _DC, _HORIZONTAL, _VERTICAL, _DIAGONAL = 0, 1, 10, 26, 34
_FROM_LUMA = 4


@compiled(inline=True)
def scan_of(mode: int) -> int:
    """Returns scanIdx of a small intra block (7.4.9.11)."""
    return 2 if 6 <= mode <= 14 else 1 if 22 <= mode <= 30 else 0


@compiled(inline=True)
def chroma_mode(coded: int, luma: int, chroma_format: int) -> int:
    """Returns IntraPredModeC (8.4.3)."""
    mode = luma
    if coded != _FROM_LUMA:
        mode = _PLANAR if coded == 0 else _VERTICAL if coded == 1 else _HORIZONTAL if coded == 2 else _DC
        if mode == luma:
            mode = _DIAGONAL
    return MODE_422[mode] if chroma_format == 2 else mode


@compiled()
def read_qp_changes(words: Words, coder: Coder, contexts: Contexts, p: Params, chroma_coded: int) -> None:
    """Reads delta_qp and chroma_qp_offset of a quantization group, in its first unit with coefficients (7.3.8.10)."""
    if p.qp_delta and not p.qp_delta_done:
        p.qp_delta_done = 1
        size = 0
        while size < 5 and read_bin(words, coder, contexts, CU_QP_DELTA + (1 if size else 0)):
            size += 1
        if size == 5:
            size += read_exp_golomb(words, coder, 0)
        if size and read_bypass(words, coder):
            size = -size
        p.qp_delta_value = size
    if p.chroma_qp_offset and chroma_coded and not p.bypass and not p.chroma_qp_done:
        p.chroma_qp_done = 1
        if read_bin(words, coder, contexts, CU_CHROMA_QP_OFFSET):
            index = 0
            while index < p.chroma_qp_offsets and read_bin(words, coder, contexts, CU_CHROMA_QP_OFFSET_IDX):
                index += 1


@compiled()
def read_chroma(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    bits: int,
    coded: int,
    luma_coded: int,
    coded_mode: int,
    luma_mode: int,
) -> None:
    """Reads the chroma blocks of 2^bits pixels of a transform unit. `coded`: cbf_cb 1, of the second block 2, cbf_cr 4, 8."""
    scan = 0
    predicted = 1
    if p.intra:
        predicted = 1 if coded_mode == _FROM_LUMA else 0
        mode = chroma_mode(coded_mode, luma_mode, p.chroma_format)
        if bits == 2 or (bits == 3 and p.chroma_format == 3):
            scan = scan_of(mode)
        if mode in (_HORIZONTAL, _VERTICAL):
            scan += 4
    for component in range(2):
        if p.cross_component and luma_coded and predicted:
            size = 0
            while size < 4 and read_bin(words, coder, contexts, RES_SCALE_ABS + 4 * component + size):
                size += 1
            if size:
                read_bin(words, coder, contexts, RES_SCALE_SIGN + component)
        for half in range(2):
            if coded & (1 << (2 * component + half)):
                read_coefficients(words, coder, contexts, p, bits, 1, scan)


@compiled()
def read_unit(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    x: int,
    y: int,
    bits: int,
    luma_coded: int,
    chroma_coded: int,
    number: int,
    quarter: int,
) -> None:
    """Reads a transform unit (7.3.8.10), the `number`-th of its parent, in a quarter of the coding unit."""
    read_qp_changes(words, coder, contexts, p, chroma_coded)
    mode = _DC
    if p.intra:
        mode = to_int(picture.intra_modes[(y >> 2) * p.cells_wide + (x >> 2)])
    if luma_coded:
        scan = scan_of(mode) if p.intra and bits <= 3 else 0
        if p.intra and (mode in (_HORIZONTAL, _VERTICAL)):
            scan += 4
        read_coefficients(words, coder, contexts, p, bits, 0, scan)
    if p.chroma_format == 0 or not (chroma_coded or p.cross_component):
        return
    if bits > 2 or p.chroma_format == 3:
        chroma_bits = bits if p.chroma_format == 3 else bits - 1
    elif number == 3:  # of four blocks of 4×4 the last brings chroma for all
        chroma_bits = 2
    else:
        return
    if p.chroma_format != 3:
        quarter = 0
        mode = to_int(picture.intra_modes[(p.cu_y >> 2) * p.cells_wide + (p.cu_x >> 2)])
    coded_mode = (p.chroma_modes >> (8 * quarter)) & 0xFF
    read_chroma(words, coder, contexts, p, chroma_bits, chroma_coded, luma_coded, coded_mode, mode)


@compiled()
def read_transform_tree(
    words: Words, coder: Coder, contexts: Contexts, p: Params, picture: Picture, four_intra: int, scratch: Scratch
) -> None:
    """Reads the transform tree of the coding unit (7.3.8.8), without recursion. `four_intra`: its part_mode is intra NxN."""
    x0 = p.cu_x
    y0 = p.cu_y
    stack = scratch.transforms
    max_depth = p.max_depth_intra + four_intra if p.intra else p.max_depth_inter
    splits_inter = p.max_depth_inter == 0 and not p.intra and p.part_mode != 0
    # x, y, size, depth, number among its siblings, cbf of chroma in the parent
    stack[0, 0] = x0
    stack[0, 1] = y0
    stack[0, 2] = p.cu_bits
    stack[0, 3] = 0
    stack[0, 4] = 0
    stack[0, 5] = 15
    n = 1
    while n:
        n -= 1
        x = stack[n, 0]
        y = stack[n, 1]
        bits = stack[n, 2]
        depth = stack[n, 3]
        number = stack[n, 4]
        parent = stack[n, 5]
        inferred = bits > p.max_tb_bits or (depth == 0 and (four_intra or splits_inter))
        split = 1 if inferred else 0
        if p.min_tb_bits < bits <= p.max_tb_bits and depth < max_depth and not (four_intra and depth == 0):
            split = read_bin(words, coder, contexts, SPLIT_TRANSFORM + 5 - bits)
        chroma = 0
        if (bits > 2 and p.chroma_format != 0) or p.chroma_format == 3:
            for component in range(2):
                if parent & (3 << (2 * component)):
                    chroma |= read_bin(words, coder, contexts, CBF_CHROMA + depth) << (2 * component)
                    if p.chroma_format == 2 and (not split or bits == 3):
                        chroma |= read_bin(words, coder, contexts, CBF_CHROMA + depth) << (2 * component + 1)
        elif bits == 2 and p.chroma_format != 0 and depth > 0:
            chroma = parent
        if split:
            half = 1 << (bits - 1)
            for child in range(3, -1, -1):
                stack[n, 0] = x + (half if child & 1 else 0)
                stack[n, 1] = y + (half if child & 2 else 0)
                stack[n, 2] = bits - 1
                stack[n, 3] = depth + 1
                stack[n, 4] = child
                stack[n, 5] = chroma
                n += 1
            continue
        luma = 1
        if p.intra or depth != 0 or chroma:
            luma = read_bin(words, coder, contexts, CBF_LUMA + (1 if depth == 0 else 0))
        if not (luma or chroma):
            continue
        quarter = 0
        if four_intra:
            half = 1 << (p.cu_bits - 1)
            quarter = (1 if x >= x0 + half else 0) + (2 if y >= y0 + half else 0)
        read_unit(words, coder, contexts, p, picture, x, y, bits, luma, chroma, number, quarter)
        charge(coder, p, picture, x, y, 1 << bits, 1 << bits)
