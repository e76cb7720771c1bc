"""Tables of HEVC slice data: context variables, the arithmetic decoder, scans. Clauses are those of ITU-T H.265 (08/2021)."""

from itertools import chain

import numpy as np

_LAST_PREFIX = (
    [110, 110, 124, 125, 140, 153, 125, 127, 140, 109, 111, 143, 127, 111, 79, 108, 123, 63],
    [125, 110, 94, 110, 95, 79, 125, 111, 110, 78, 110, 111, 111, 95, 94, 108, 123, 108],
    [125, 110, 124, 110, 95, 94, 125, 111, 111, 79, 125, 126, 111, 111, 79, 108, 123, 93],
)
_CHROMA_CBF = ([94, 138, 182, 154, 154], [149, 107, 167, 154, 154], [149, 92, 167, 154, 154])
# fmt: off
_INITIAL_VALUES: tuple[tuple[list[int], list[int], list[int]], ...] = (
    ([153], [153], [153]),                                              # sao_merge_left_flag, sao_merge_up_flag
    ([200], [185], [160]),                                              # sao_type_idx
    ([139, 141, 157], [107, 139, 126], [107, 139, 126]),                # split_cu_flag
    ([154], [154], [154]),                                              # cu_transquant_bypass_flag
    ([154] * 3, [197, 185, 201], [197, 185, 201]),                      # cu_skip_flag
    ([154] * 2, [154] * 2, [154] * 2),                                  # cu_qp_delta_abs
    ([154], [149], [134]),                                              # pred_mode_flag
    ([184, 154, 154, 154], [154, 139, 154, 154], [154, 139, 154, 154]), # part_mode
    ([184], [154], [183]),                                              # prev_intra_luma_pred_flag
    ([63], [152], [152]),                                               # intra_chroma_pred_mode
    ([154], [110], [154]),                                              # merge_flag
    ([154], [122], [137]),                                              # merge_idx
    ([154] * 5, [95, 79, 63, 31, 31], [95, 79, 63, 31, 31]),            # inter_pred_idc
    ([154] * 2, [153] * 2, [153] * 2),                                  # ref_idx_l0, ref_idx_l1
    ([154], [140], [169]),                                              # abs_mvd_greater0_flag
    ([154], [198], [198]),                                              # abs_mvd_greater1_flag
    ([154], [168], [168]),                                              # mvp_l0_flag, mvp_l1_flag
    ([154], [79], [79]),                                                # rqt_root_cbf
    ([153, 138, 138], [124, 138, 94], [224, 167, 122]),                 # split_transform_flag
    ([111, 141], [153, 111], [153, 111]),                               # cbf_luma
    _CHROMA_CBF,                                                        # cbf_cb, cbf_cr
    ([139] * 2, [139] * 2, [139] * 2),                                  # transform_skip_flag: luma, chroma
    ([139] * 2, [139] * 2, [139] * 2),                                  # explicit_rdpcm_flag
    ([139] * 2, [139] * 2, [139] * 2),                                  # explicit_rdpcm_dir_flag
    _LAST_PREFIX,                                                       # last_sig_coeff_x_prefix
    _LAST_PREFIX,                                                       # last_sig_coeff_y_prefix
    ([91, 171, 134, 141], [121, 140, 61, 154], [121, 140, 61, 154]),    # coded_sub_block_flag
    ([111, 111, 125, 110, 110, 94, 124, 108, 124, 107, 125, 141, 179, 153, 125, 107, 125, 141, 179, 153, 125, 107,
      125, 141, 179, 153, 125, 140, 139, 182, 182, 152, 136, 152, 136, 153, 136, 139, 111, 136, 139, 111, 141, 111],
     [155, 154, 139, 153, 139, 123, 123, 63, 153, 166, 183, 140, 136, 153, 154, 166, 183, 140, 136, 153, 154, 166,
      183, 140, 136, 153, 154, 170, 153, 123, 123, 107, 121, 107, 121, 167, 151, 183, 140, 151, 183, 140, 140, 140],
     [170, 154, 139, 153, 139, 123, 123, 63, 124, 166, 183, 140, 136, 153, 154, 166, 183, 140, 136, 153, 154, 166,
      183, 140, 136, 153, 154, 170, 153, 138, 138, 122, 121, 122, 121, 167, 151, 183, 140, 151, 183, 140, 140, 140]),
                                                                        # sig_coeff_flag; the last two: transform skip
    ([140, 92, 137, 138, 140, 152, 138, 139, 153, 74, 149, 92, 139, 107, 122, 152, 140, 179, 166, 182, 140, 227, 122, 197],
     [154, 196, 196, 167, 154, 152, 167, 182, 182, 134, 149, 136, 153, 121, 136, 137, 169, 194, 166, 167, 154, 167, 137, 182],
     [154, 196, 167, 167, 154, 152, 167, 182, 182, 134, 149, 136, 153, 121, 136, 122, 169, 208, 166, 167, 154, 152, 167, 182]),
                                                                        # coeff_abs_level_greater1_flag
    ([138, 153, 136, 167, 152, 152], [107, 167, 91, 122, 107, 167], [107, 167, 91, 107, 107, 167]),
                                                                        # coeff_abs_level_greater2_flag
    ([154] * 8, [154] * 8, [154] * 8),                                  # log2_res_scale_abs_plus1
    ([154] * 2, [154] * 2, [154] * 2),                                  # res_scale_sign_flag
    ([154], [154], [154]),                                              # cu_chroma_qp_offset_flag
    ([154], [154], [154]),                                              # cu_chroma_qp_offset_idx
)
"""initValue of each syntax element's context variables, for initType 0, 1 and 2 (tables 9-5 … 9-37)."""
# fmt: on

(
    SAO_MERGE,
    SAO_TYPE,
    SPLIT_CU,
    TRANSQUANT_BYPASS,
    CU_SKIP,
    CU_QP_DELTA,
    PRED_MODE,
    PART_MODE,
    PREV_INTRA_LUMA_PRED,
    INTRA_CHROMA_PRED_MODE,
    MERGE_FLAG,
    MERGE_IDX,
    INTER_PRED_IDC,
    REF_IDX,
    MVD_GREATER0,
    MVD_GREATER1,
    MVP_FLAG,
    RQT_ROOT_CBF,
    SPLIT_TRANSFORM,
    CBF_LUMA,
    CBF_CHROMA,
    TRANSFORM_SKIP,
    EXPLICIT_RDPCM,
    EXPLICIT_RDPCM_DIR,
    LAST_X_PREFIX,
    LAST_Y_PREFIX,
    CODED_SUB_BLOCK,
    SIG_COEFF,
    GREATER1,
    GREATER2,
    RES_SCALE_ABS,
    RES_SCALE_SIGN,
    CU_CHROMA_QP_OFFSET,
    CU_CHROMA_QP_OFFSET_IDX,
) = (int(first) for first in np.cumsum([0] + [len(values[0]) for values in _INITIAL_VALUES])[:-1])
"""The first context variable of each syntax element, in the order of `_INITIAL_VALUES`."""
INITIAL_VALUES = np.array([[*chain.from_iterable(values[kind] for values in _INITIAL_VALUES)] for kind in range(3)], np.int64)
N_CONTEXTS = INITIAL_VALUES.shape[1]
N_STATES = N_CONTEXTS + 4
"""Context variables and, stored and restored with them, the four statistics of Rice parameters (9.3.4.2.4)."""
SIG_COEFF_SKIPPED = SIG_COEFF + 42
"""Of sig_coeff_flag where the transform is skipped: luma, chroma."""

# fmt: off
RANGE_LPS = np.array([
    128, 176, 208, 240, 128, 167, 197, 227, 128, 158, 187, 216, 123, 150, 178, 205, 116, 142, 169, 195, 111, 135, 160, 185,
    105, 128, 152, 175, 100, 122, 144, 166, 95, 116, 137, 158, 90, 110, 130, 150, 85, 104, 123, 142, 81, 99, 117, 135,
    77, 94, 111, 128, 73, 89, 105, 122, 69, 85, 100, 116, 66, 80, 95, 110, 62, 76, 90, 104, 59, 72, 86, 99,
    56, 69, 81, 94, 53, 65, 77, 89, 51, 62, 73, 85, 48, 59, 69, 80, 46, 56, 66, 76, 43, 53, 63, 72,
    41, 50, 59, 69, 39, 48, 56, 65, 37, 45, 54, 62, 35, 43, 51, 59, 33, 41, 48, 56, 32, 39, 46, 53,
    30, 37, 43, 50, 29, 35, 41, 48, 27, 33, 39, 45, 26, 31, 37, 43, 24, 30, 35, 41, 23, 28, 33, 39,
    22, 27, 32, 37, 21, 26, 30, 35, 20, 24, 29, 33, 19, 23, 27, 31, 18, 22, 26, 30, 17, 21, 25, 28,
    16, 20, 23, 27, 15, 19, 22, 25, 14, 18, 21, 24, 14, 17, 20, 23, 13, 16, 19, 22, 12, 15, 18, 21,
    12, 14, 17, 20, 11, 14, 16, 19, 11, 13, 15, 18, 10, 12, 15, 17, 10, 12, 14, 16, 9, 11, 13, 15,
    9, 11, 12, 14, 8, 10, 12, 14, 8, 9, 11, 13, 7, 9, 11, 12, 7, 9, 10, 12, 7, 8, 10, 11,
    6, 8, 9, 11, 6, 7, 9, 10, 6, 7, 8, 9, 2, 2, 2, 2], np.uint8)
"""rangeTabLps (table 9-52) by pStateIdx · 4 + qRangeIdx."""
_NEXT_LPS = [
    0, 0, 1, 2, 2, 4, 4, 5, 6, 7, 8, 9, 9, 11, 11, 12, 13, 13, 15, 15, 16, 16, 18, 18, 19, 19, 21, 21, 22, 22, 23, 24,
    24, 25, 26, 26, 27, 27, 28, 29, 29, 30, 30, 30, 31, 32, 32, 33, 33, 33, 34, 34, 35, 35, 35, 36, 36, 36, 37, 37, 37,
    38, 38, 63]
"""transIdxLps (table 9-53)."""
# fmt: on


def _transitions() -> np.ndarray:
    """Returns the next context variable (pStateIdx · 2 + valMps) by it + 128 · (less probable symbol) (9.3.4.3.2.2)."""
    table = np.zeros(256, np.uint8)
    for state in range(64):
        for symbol in range(2):
            table[2 * state + symbol] = 2 * (min(state + 1, 62) if state < 63 else 63) + symbol
            table[128 + 2 * state + symbol] = 2 * _NEXT_LPS[state] + (1 - symbol if state == 0 else symbol)
    return table


NEXT_STATE = _transitions()
RENORM_SHIFT = np.array([9 - max(value.bit_length(), 1) for value in range(512)], np.uint8)
"""Shifts that bring a range back to 256 and more."""
LOG2 = np.log2(np.maximum(np.arange(512), 1))


def _scan(side: int, kind: int) -> list[tuple[int, int]]:
    """Returns the (x, y) of a block in the order of scanIdx: up-right diagonal, horizontal, vertical (6.5.3 … 6.5.5)."""
    places = [(x, y) for y in range(side) for x in range(side)]
    if kind == 0:
        return sorted(places, key=lambda place: (sum(place), place[0]))
    return places if kind == 1 else sorted(places)


SUB_BLOCK_AT = np.zeros((4, 3, 64), np.uint8)
SUB_BLOCK_ORDER = np.zeros((4, 3, 64), np.uint8)
"""By log2 of the side in sub-blocks and scanIdx: order → y · 8 + x, and back."""
COEFF_AT = np.zeros((3, 16), np.uint8)
COEFF_ORDER = np.zeros((3, 16), np.uint8)
"""By scanIdx, in a 4×4 sub-block: order → y · 4 + x, and back."""
for _kind in range(3):
    for _bits in range(4):
        for _i, (_x, _y) in enumerate(_scan(1 << _bits, _kind)):
            SUB_BLOCK_AT[_bits, _kind, _i] = _y * 8 + _x
            SUB_BLOCK_ORDER[_bits, _kind, _y * 8 + _x] = _i
    for _i, (_x, _y) in enumerate(_scan(4, _kind)):
        COEFF_AT[_kind, _i] = _y * 4 + _x
        COEFF_ORDER[_kind, _y * 4 + _x] = _i

WHOLE_BLOCK, SKIPPED = 4, 5
"""Rows of SIG_COEFF_CONTEXT for blocks of 4×4, and for those without a transform."""


def _sig_coeff_contexts() -> np.ndarray:
    """Returns sigCtx within a sub-block (9.3.4.2.5) by [row, scanIdx, order].

    Rows 0 … 3: which of the sub-blocks to the right (1) and below (2) are coded.
    """
    y, x = np.divmod(np.arange(16), 4)
    rows = np.zeros((6, 16), np.uint8)
    rows[0] = np.where(x + y == 0, 2, np.where(x + y < 3, 1, 0))
    rows[1] = np.where(y == 0, 2, np.where(y == 1, 1, 0))
    rows[2] = np.where(x == 0, 2, np.where(x == 1, 1, 0))
    rows[3] = 2
    rows[WHOLE_BLOCK] = [0, 1, 4, 5, 2, 3, 4, 5, 6, 6, 8, 8, 7, 7, 8, 8]
    return np.ascontiguousarray(rows[:, COEFF_AT])


SIG_COEFF_CONTEXT = _sig_coeff_contexts()
COMBINED_FIRST = np.array([0, 1, 0, 2, 1, 2, 0, 3, 1, 3, 2, 3], np.int64)
COMBINED_SECOND = np.array([1, 0, 2, 0, 2, 1, 3, 0, 3, 1, 3, 2], np.int64)
"""l0CandIdx and l1CandIdx by combIdx (table 8-7)."""
# fmt: off
MODE_422 = np.array([0, 1, 2, 2, 2, 2, 3, 5, 7, 8, 10, 11, 13, 15, 16, 18, 19, 20, 21, 22, 23, 23, 24, 24, 25, 25, 26, 27, 27,
                     28, 28, 29, 29, 30, 31], np.int64)
"""Intra prediction mode of chroma in 4:2:2 (table 8-3)."""
# fmt: on
