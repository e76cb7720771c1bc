"""Merge candidates of a prediction block (8.5.3.2.2 … 8.5.3.2.5)."""

from ove.video.bitstream.hevc_slices.kernel import (
    Params,
    Picture,
    References,
    Scratch,
    compiled,
    to_int,
)
from ove.video.bitstream.hevc_slices.tables import (
    COMBINED_FIRST,
    COMBINED_SECOND,
)
from ove.video.bitstream.hevc_slices.vectors import (
    NO_REFS,
    PART_2NXN,
    PART_2NXND,
    PART_2NXNU,
    PART_NLX2N,
    PART_NRX2N,
    PART_NX2N,
    UNUSED,
    neighbour,
    packed,
    predict_temporally,
)

_LOWER = 0xFFFFFFFF


@compiled()
def merge_spatially(
    p: Params, picture: Picture, x: int, y: int, width: int, height: int, part: int, index: int, scratch: Scratch
) -> int:
    """Fills in the spatial merge candidates (8.5.3.2.3), as far as `index` needs them; returns their number."""
    mode = p.part_mode
    level = p.merge_level
    shares = level > 2 and p.cu_bits == 3  # all blocks of the coding unit have its candidates
    second_beside = part == 1 and not shares and mode in (PART_NX2N, PART_NLX2N, PART_NRX2N)
    second_below = part == 1 and not shares and mode in (PART_2NXN, PART_2NXNU, PART_2NXND)
    n = 0
    left = -1
    above = -1
    for candidate in range(5):  # A1, B1, B0, A0, B2
        if n > index or (candidate == 4 and n == 4):
            break
        there_x = x - 1
        there_y = y - 1
        if candidate == 0:
            there_y = y + height - 1
        elif candidate == 1:
            there_x = x + width - 1
        elif candidate == 2:
            there_x = x + width
        elif candidate == 3:
            there_y = y + height
        in_parallel = x >> level == there_x >> level and y >> level == there_y >> level
        if in_parallel or (candidate == 0 and second_beside) or (candidate == 1 and second_below):
            continue
        cell = neighbour(p, picture, there_x, there_y)
        if cell < 0:
            continue
        if candidate == 0:
            left = cell
        elif candidate == 1:
            above = cell
        vectors = picture.vectors[cell]
        refs = picture.refs[cell]
        if (candidate == 1 or candidate >= 3) and left >= 0 and picture.vectors[left] == vectors and picture.refs[left] == refs:
            continue
        if (
            (candidate == 2 or candidate == 4)
            and above >= 0
            and picture.vectors[above] == vectors
            and picture.refs[above] == refs
        ):
            continue
        scratch.vectors[n] = vectors
        scratch.refs[n] = to_int(refs)
        n += 1
    return n


@compiled()
def merge(
    p: Params,
    picture: Picture,
    col: References,
    x: int,
    y: int,
    width: int,
    height: int,
    part: int,
    index: int,
    scratch: Scratch,
) -> None:
    """Fills in merge candidate `index` of a prediction block (8.5.3.2.2 … 8.5.3.2.5)."""
    small = width + height == 12
    if p.merge_level > 2 and p.cu_bits == 3:
        x = p.cu_x
        y = p.cu_y
        width = 8
        height = 8
    n = merge_spatially(p, picture, x, y, width, height, part, index, scratch)
    bipredicts = p.slice_type == 0
    vectors = scratch.vectors
    refs = scratch.refs
    if n <= index and n < p.max_merge and p.temporal:
        found = 0
        used = NO_REFS
        if predict_temporally(p, col, x, y, width, height, 0, 0, scratch):
            found = packed(scratch.numbers[0], scratch.numbers[1], 0, 0)
            used &= 0xFF00
        if bipredicts and predict_temporally(p, col, x, y, width, height, 0, 1, scratch):
            found |= packed(0, 0, scratch.numbers[0], scratch.numbers[1])
            used &= 0x00FF
        if used != NO_REFS:
            vectors[n] = found
            refs[n] = used
            n += 1
    if 1 < n <= index and bipredicts:
        before = n
        q = 0
        while q < before * (before - 1) and n < p.max_merge:
            i = COMBINED_FIRST[q]
            j = COMBINED_SECOND[q]
            ref0 = refs[i] & UNUSED
            ref1 = refs[j] >> 8
            if (
                ref0 != UNUSED
                and ref1 != UNUSED
                and (col.lists[0, ref0] != col.lists[1, ref1] or vectors[i] & _LOWER != (vectors[j] >> 32) & _LOWER)
            ):
                vectors[n] = (vectors[i] & _LOWER) | ((vectors[j] >> 32) << 32)
                refs[n] = ref0 | (ref1 << 8)
                n += 1
            q += 1
    if n <= index:
        n_refs = min(p.n_refs0, p.n_refs1) if bipredicts else p.n_refs0
        zero = index - n if index - n < n_refs else 0
        vectors[index] = 0
        refs[index] = (zero | (zero << 8)) if bipredicts else (zero | 0xFF00)
    if small and refs[index] & UNUSED != UNUSED and refs[index] >> 8 != UNUSED:
        refs[index] |= 0xFF00
        vectors[index] &= _LOWER
