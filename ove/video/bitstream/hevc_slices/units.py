"""Coding units (7.3.8.5): skipped, intra-coded, or inter-coded and parted."""

from ove.video.bitstream.hevc_slices.cabac import (
    charge,
    next_byte,
    read_bin,
    read_bypass,
    read_bypasses,
    read_terminate,
    start_at,
)
from ove.video.bitstream.hevc_slices.kernel import (
    Coder,
    Contexts,
    Params,
    Picture,
    References,
    Scratch,
    Words,
    compiled,
    to_int,
)
from ove.video.bitstream.hevc_slices.prediction import (
    read_part_mode,
    read_parts,
    read_prediction_unit,
)
from ove.video.bitstream.hevc_slices.tables import (
    CU_SKIP,
    INTRA_CHROMA_PRED_MODE,
    PART_MODE,
    PRED_MODE,
    PREV_INTRA_LUMA_PRED,
    RQT_ROOT_CBF,
    TRANSQUANT_BYPASS,
)
from ove.video.bitstream.hevc_slices.transforms import (
    read_transform_tree,
)
from ove.video.bitstream.hevc_slices.vectors import (
    PART_2NX2N,
)

_PART_NXN = 3
_PLANAR, _DC, _VERTICAL = 0, 1, 26
_I = 2
_SKIPPED = 128


@compiled(inline=True)
def same_slice_and_tile(picture: Picture, there: int, here: int) -> int:
    """Returns whether a CTB is available to another (6.4.1), given that it comes before."""
    return (
        1
        if there == here
        or (picture.ctbs[0, there] == picture.ctbs[0, here] and picture.ctbs[1, there] == picture.ctbs[1, here])
        else 0
    )


@compiled()
def intra_mode(first: int, second: int, predicted: int, coded: int) -> int:
    """Returns IntraPredModeY from those of the blocks to the left and above (8.4.2).

    `coded`: mpm_idx where `predicted`, else rem_intra_luma_pred_mode.
    """
    third = _VERTICAL
    if first == second:
        if first < 2:
            first = _PLANAR
            second = _DC
        else:
            third = 2 + ((first - 1) & 31)
            second = 2 + ((first + 29) & 31)
    elif first != _PLANAR and second != _PLANAR:
        third = _PLANAR
    elif first != _DC and second != _DC:
        third = _DC
    if predicted:
        return first if coded == 0 else second if coded == 1 else third
    lowest = min(first, second, third)
    highest = max(first, second, third)
    middle = first + second + third - lowest - highest
    mode = coded
    mode += 1 if mode >= lowest else 0
    mode += 1 if mode >= middle else 0
    mode += 1 if mode >= highest else 0
    return mode


@compiled()
def read_intra_modes(words: Words, coder: Coder, contexts: Contexts, p: Params, picture: Picture, four: int) -> None:
    """Reads prev_intra_luma_pred_flag … intra_chroma_pred_mode, of four parts or one, and stores the modes of luma."""
    size = 1 << (p.cu_bits - four)
    parts = 4 if four else 1
    predicted = 0
    for part in range(parts):
        predicted |= read_bin(words, coder, contexts, PREV_INTRA_LUMA_PRED) << part
    here = (p.cu_y >> p.ctb_bits) * p.ctbs_wide + (p.cu_x >> p.ctb_bits)
    for part in range(parts):
        x = p.cu_x + size * (part & 1)
        y = p.cu_y + size * (part >> 1)
        if (predicted >> part) & 1:
            coded = 0
            if read_bypass(words, coder):
                coded = 1 + read_bypass(words, coder)
        else:
            coded = read_bypasses(words, coder, 5)
        left = _DC
        above = _DC
        if x > 0 and same_slice_and_tile(picture, (y >> p.ctb_bits) * p.ctbs_wide + ((x - 1) >> p.ctb_bits), here):
            left = to_int(picture.intra_modes[(y >> 2) * p.cells_wide + ((x - 1) >> 2)])
        if y & ((1 << p.ctb_bits) - 1):  # of another CTB counts as DC
            above = to_int(picture.intra_modes[((y - 1) >> 2) * p.cells_wide + (x >> 2)])
        mode = intra_mode(left, above, (predicted >> part) & 1, coded)
        for row in range(y >> 2, min((y + size) >> 2, p.cells_high)):
            for column in range(x >> 2, min((x + size) >> 2, p.cells_wide)):
                picture.intra_modes[row * p.cells_wide + column] = mode
    p.chroma_modes = 0
    if p.chroma_format:
        for part in range(parts if p.chroma_format == 3 else 1):
            mode = 4
            if read_bin(words, coder, contexts, INTRA_CHROMA_PRED_MODE):
                mode = read_bypasses(words, coder, 2)
            p.chroma_modes |= mode << (8 * part)


@compiled()
def skip_pcm(words: Words, coder: Coder, p: Params) -> None:
    """Skips pcm_sample (7.3.8.7)."""
    bits = p.pcm_luma_bits << (2 * p.cu_bits)
    if p.chroma_format:
        bits += (2 * p.pcm_chroma_bits << (2 * p.cu_bits)) >> (3 - p.chroma_format)
    start_at(words, coder, next_byte(coder) + ((bits + 7) >> 3))


@compiled()
def read_intra_unit(words: Words, coder: Coder, contexts: Contexts, p: Params, picture: Picture, scratch: Scratch) -> None:
    """Reads the rest of an intra-coded unit."""
    four = 0
    if p.cu_bits == p.min_cb_bits and not read_bin(words, coder, contexts, PART_MODE):
        four = 1
        p.part_mode = _PART_NXN
    if p.pcm and not four and p.pcm_min_bits <= p.cu_bits <= p.pcm_max_bits and read_terminate(words, coder):
        skip_pcm(words, coder, p)
        return
    read_intra_modes(words, coder, contexts, p, picture, four)
    charge(coder, p, picture, p.cu_x, p.cu_y, 1 << p.cu_bits, 1 << p.cu_bits)
    read_transform_tree(words, coder, contexts, p, picture, four, scratch)


@compiled()
def read_cu_skip(words: Words, coder: Coder, contexts: Contexts, p: Params, picture: Picture) -> int:
    """Reads cu_skip_flag, whose context is how many of the neighbours are skipped."""
    x = p.cu_x
    y = p.cu_y
    here = (y >> p.ctb_bits) * p.ctbs_wide + (x >> p.ctb_bits)
    skipped = 0
    if x > 0 and same_slice_and_tile(picture, (y >> p.ctb_bits) * p.ctbs_wide + ((x - 1) >> p.ctb_bits), here):
        skipped += picture.depths[(y >> 3) * p.blocks_wide + ((x - 1) >> 3)] >> 7
    if y > 0 and same_slice_and_tile(picture, ((y - 1) >> p.ctb_bits) * p.ctbs_wide + (x >> p.ctb_bits), here):
        skipped += picture.depths[((y - 1) >> 3) * p.blocks_wide + (x >> 3)] >> 7
    return read_bin(words, coder, contexts, CU_SKIP + skipped)


@compiled()
def read_coding_unit(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    col: References,
    scratch: Scratch,
) -> None:
    """Reads coding_unit (7.3.8.5) of 2^cu_bits pixels at (cu_x, cu_y), and stores its depth, QP and information."""
    size = 1 << p.cu_bits
    p.part_mode = PART_2NX2N
    p.bypass = read_bin(words, coder, contexts, TRANSQUANT_BYPASS) if p.transquant_bypass else 0
    skipped = 0
    p.intra = 1
    if p.slice_type != _I:
        skipped = read_cu_skip(words, coder, contexts, p, picture)
        p.intra = 0
    depth = (_SKIPPED if skipped else 0) | p.depth
    first = (p.cu_y >> 3) * p.blocks_wide + (p.cu_x >> 3)
    for row in range(size >> 3):
        for block in range(first + row * p.blocks_wide, first + row * p.blocks_wide + (size >> 3)):
            picture.depths[block] = depth
    if skipped:
        read_prediction_unit(words, coder, contexts, p, picture, col, p.cu_x, p.cu_y, size, size, 0, 1, scratch)
    else:
        if p.slice_type != _I:
            p.intra = read_bin(words, coder, contexts, PRED_MODE)
        if p.intra:
            read_intra_unit(words, coder, contexts, p, picture, scratch)
        else:
            p.part_mode = read_part_mode(words, coder, contexts, p)
            merges = read_parts(words, coder, contexts, p, picture, col, scratch)
            coded = 1
            if not (p.part_mode == PART_2NX2N and merges):
                coded = read_bin(words, coder, contexts, RQT_ROOT_CBF)
            charge(coder, p, picture, p.cu_x, p.cu_y, size, size)
            if coded:
                read_transform_tree(words, coder, contexts, p, picture, 0, scratch)
    charge(coder, p, picture, p.cu_x, p.cu_y, size, size)
    levels = 52 + p.qp_bd_offset
    p.last_qp = (p.qp_prediction + p.qp_delta_value + levels + p.qp_bd_offset) % levels - p.qp_bd_offset
    for row in range(size >> 3):
        for block in range(first + row * p.blocks_wide, first + row * p.blocks_wide + (size >> 3)):
            picture.qps[block] = p.last_qp
