"""Prediction units of inter-coded units (7.3.8.6): how a unit is parted, and the motion of each part."""

from ove.video.bitstream.hevc_slices.cabac import (
    read_bin,
    read_bypass,
    read_exp_golomb,
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
)
from ove.video.bitstream.hevc_slices.merging import (
    merge,
)
from ove.video.bitstream.hevc_slices.tables import (
    INTER_PRED_IDC,
    MERGE_FLAG,
    MERGE_IDX,
    MVD_GREATER0,
    MVD_GREATER1,
    MVP_FLAG,
    PART_MODE,
    REF_IDX,
)
from ove.video.bitstream.hevc_slices.vectors import (
    NO_REFS,
    PART_2NX2N,
    PART_2NXN,
    PART_2NXND,
    PART_2NXNU,
    PART_NX2N,
    packed,
    predict_vector,
)

_PART_NXN, _PART_NLX2N = 3, 6
_B = 0


@compiled()
def read_mvd(words: Words, coder: Coder, contexts: Contexts, scratch: Scratch) -> None:
    """Reads mvd_coding (7.3.8.9) into scratch.numbers[2:4]."""
    x_greater0 = read_bin(words, coder, contexts, MVD_GREATER0)
    y_greater0 = read_bin(words, coder, contexts, MVD_GREATER0)
    x_greater1 = read_bin(words, coder, contexts, MVD_GREATER1) if x_greater0 else 0
    y_greater1 = read_bin(words, coder, contexts, MVD_GREATER1) if y_greater0 else 0
    for axis in range(2):
        size = 0
        if y_greater0 if axis else x_greater0:
            size = 1
            if y_greater1 if axis else x_greater1:
                size = 2 + read_exp_golomb(words, coder, 1)
            if read_bypass(words, coder):
                size = -size
        scratch.numbers[2 + axis] = size


@compiled()
def read_ref_idx(words: Words, coder: Coder, contexts: Contexts, n_refs: int) -> int:
    """Reads ref_idx_l0 or ref_idx_l1 (9.3.3.2)."""
    index = 0
    while index < n_refs - 1:
        if not (read_bin(words, coder, contexts, REF_IDX + index) if index < 2 else read_bypass(words, coder)):
            break
        index += 1
    return index


@compiled()
def read_merge_idx(words: Words, coder: Coder, contexts: Contexts, most: int) -> int:
    """Reads merge_idx."""
    if most < 2 or not read_bin(words, coder, contexts, MERGE_IDX):
        return 0
    index = 1
    while index < most - 1 and read_bypass(words, coder):
        index += 1
    return index


@compiled()
def read_prediction_unit(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    col: References,
    x: int,
    y: int,
    width: int,
    height: int,
    part: int,
    skipped: int,
    scratch: Scratch,
) -> int:
    """Reads prediction_unit (7.3.8.6) and stores its motion; returns merge_flag."""
    merges = 1 if skipped else read_bin(words, coder, contexts, MERGE_FLAG)
    vectors = 0
    refs = NO_REFS
    if merges:
        index = read_merge_idx(words, coder, contexts, p.max_merge)
        merge(p, picture, col, x, y, width, height, part, index, scratch)
        vectors = scratch.vectors[index]
        refs = scratch.refs[index]
    else:
        lists = 1
        if p.slice_type == _B:
            if width + height != 12 and read_bin(words, coder, contexts, INTER_PRED_IDC + p.depth):
                lists = 3
            else:
                lists = 2 if read_bin(words, coder, contexts, INTER_PRED_IDC + 4) else 1
        ref0 = 0
        ref1 = 0
        flag0 = 0
        flag1 = 0
        x0 = 0
        y0 = 0
        x1 = 0
        y1 = 0
        if lists & 1:
            ref0 = read_ref_idx(words, coder, contexts, p.n_refs0)
            read_mvd(words, coder, contexts, scratch)
            x0 = scratch.numbers[2]
            y0 = scratch.numbers[3]
            flag0 = read_bin(words, coder, contexts, MVP_FLAG)
        if lists & 2:
            ref1 = read_ref_idx(words, coder, contexts, p.n_refs1)
            if not (p.mvd_l1_zero and lists == 3):
                read_mvd(words, coder, contexts, scratch)
                x1 = scratch.numbers[2]
                y1 = scratch.numbers[3]
            flag1 = read_bin(words, coder, contexts, MVP_FLAG)
        for which in range(2):
            if lists & (1 << which):
                ref = ref1 if which else ref0
                flag = flag1 if which else flag0
                predict_vector(p, picture, col, x, y, width, height, which, ref, flag, scratch)
                if which:
                    vectors |= packed(0, 0, scratch.numbers[0] + x1, scratch.numbers[1] + y1)
                    refs = (refs & 0xFF) | (ref << 8)
                else:
                    vectors = packed(scratch.numbers[0] + x0, scratch.numbers[1] + y0, 0, 0)
                    refs = (refs & 0xFF00) | ref
    columns = min((x + width) >> 2, p.cells_wide) - (x >> 2)
    for row in range(y >> 2, min((y + height) >> 2, p.cells_high)):
        first = row * p.cells_wide + (x >> 2)
        for cell in range(first, first + columns):
            picture.vectors[cell] = vectors
            picture.refs[cell] = refs
    return merges


@compiled()
def read_part_mode(words: Words, coder: Coder, contexts: Contexts, p: Params) -> int:
    """Reads part_mode of an inter-coded unit (9.3.3.7)."""
    if read_bin(words, coder, contexts, PART_MODE):
        return PART_2NX2N
    flat = read_bin(words, coder, contexts, PART_MODE + 1)
    if p.cu_bits == p.min_cb_bits:
        if flat:
            return PART_2NXN
        if p.cu_bits == 3 or read_bin(words, coder, contexts, PART_MODE + 2):
            return PART_NX2N
        return _PART_NXN
    if not p.amp or read_bin(words, coder, contexts, PART_MODE + 3):
        return PART_2NXN if flat else PART_NX2N
    return (PART_2NXNU if flat else _PART_NLX2N) + read_bypass(words, coder)


@compiled()
def read_parts(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    col: References,
    scratch: Scratch,
) -> int:
    """Reads the prediction units of an inter-coded unit; returns merge_flag of the last."""
    mode = p.part_mode
    size = 1 << p.cu_bits
    flat = mode in (PART_2NXN, PART_2NXNU, PART_2NXND)
    border = size >> 1
    if mode >= PART_2NXNU:
        border = size >> 2 if mode & 1 == 0 else size - (size >> 2)
    merges = 0
    for part in range(1 if mode == PART_2NX2N else 4 if mode == _PART_NXN else 2):
        x = p.cu_x
        y = p.cu_y
        width = size
        height = size
        if mode == _PART_NXN:
            width = border
            height = border
            x += border * (part & 1)
            y += border * (part >> 1)
        elif mode != PART_2NX2N:
            extent = size - border if part else border
            if flat:
                y += border * part
                height = extent
            else:
                x += border * part
                width = extent
        merges = read_prediction_unit(words, coder, contexts, p, picture, col, x, y, width, height, part, 0, scratch)
    return merges
