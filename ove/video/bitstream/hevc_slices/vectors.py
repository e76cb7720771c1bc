"""Prediction of motion vectors: AMVP and temporal candidates (8.5.3.2).

A cell of 4×4 pixels that is not inter-coded, or not decoded yet, has no reference (NO_REFS): so whether a neighbour is
available (6.4.2) needs no order of blocks, only its slice and tile.
"""

from ove.video.bitstream.hevc_slices.kernel import (
    Params,
    Picture,
    References,
    Scratch,
    compiled,
    to_int,
)

NO_REFS, UNUSED = 0xFFFF, 0xFF
# part_mode (table 7-10); 3 is PART_NxN.
PART_2NX2N, PART_2NXN, PART_NX2N, PART_2NXNU, PART_2NXND, PART_NLX2N, PART_NRX2N = 0, 1, 2, 4, 5, 6, 7


@compiled(inline=True)
def packed(x0: int, y0: int, x1: int, y1: int) -> int:
    """Packs the vectors of both lists into one number."""
    return (x0 & 0xFFFF) | ((y0 & 0xFFFF) << 16) | ((x1 & 0xFFFF) << 32) | (y1 << 48)


@compiled(inline=True)
def across(vectors: int, which: int) -> int:
    """Unpacks x of list `which`."""
    return ((vectors >> (32 * which)) << 48) >> 48


@compiled(inline=True)
def down(vectors: int, which: int) -> int:
    """Unpacks y of list `which`."""
    return ((vectors >> (32 * which + 16)) << 48) >> 48


@compiled(inline=True)
def neighbour(p: Params, picture: Picture, x: int, y: int) -> int:
    """Returns the cell at a pixel if it is inter-coded and available to the coding unit, else −1."""
    if x < 0 or y < 0 or x >= p.width or y >= p.height:
        return -1
    there = (y >> p.ctb_bits) * p.ctbs_wide + (x >> p.ctb_bits)
    here = (p.cu_y >> p.ctb_bits) * p.ctbs_wide + (p.cu_x >> p.ctb_bits)
    if there != here and (picture.ctbs[0, there] != picture.ctbs[0, here] or picture.ctbs[1, there] != picture.ctbs[1, here]):
        return -1
    cell = (y >> 2) * p.cells_wide + (x >> 2)
    return -1 if picture.refs[cell] == NO_REFS else cell


@compiled(inline=True)
def scale_factor(from_poc: int, to_poc: int) -> int:
    """Returns distScaleFactor of two distances in POC, the first not 0 (8-179 … 8-182)."""
    from_poc = min(max(from_poc, -128), 127)
    to_poc = min(max(to_poc, -128), 127)
    size = (16384 + (abs(from_poc) >> 1)) // abs(from_poc)
    return min(max((to_poc * (size if from_poc > 0 else -size) + 32) >> 6, -4096), 4095)


@compiled(inline=True)
def scaled(component: int, factor: int) -> int:
    """Scales a vector's component, rounded half away from zero (8-183)."""
    product = factor * component
    rounded = (abs(product) + 127) >> 8
    return min(max(rounded if product >= 0 else -rounded, -32768), 32767)


@compiled()
def predict_temporally(
    p: Params, col: References, x: int, y: int, width: int, height: int, ref: int, which: int, scratch: Scratch
) -> int:
    """Predicts from the collocated picture (8.5.3.2.8) into scratch.numbers[0:2]; returns whether it can."""
    if not p.has_collocated:
        return 0
    for attempt in range(2):
        if attempt == 0:  # below and right of the block, in the same row of CTBs
            there_x = x + width
            there_y = y + height
            if (y >> p.ctb_bits) != (there_y >> p.ctb_bits) or there_y >= p.height or there_x >= p.width:
                continue
        else:
            there_x = x + (width >> 1)
            there_y = y + (height >> 1)
        i = (there_y >> 4) * p.motion_wide + (there_x >> 4)
        uses = to_int(col.motion[i, 2])
        if not uses & 3:
            continue
        if not uses & 1:
            other = 1
        elif not uses & 2:
            other = 0
        elif p.no_backward:
            other = which
        else:
            other = p.collocated_l0
        long_term = (uses >> (2 + other)) & 1
        if long_term != col.lists[2 + which, ref]:
            continue
        found_x = across(col.vectors[i], other)
        found_y = down(col.vectors[i], other)
        distance = p.collocated_poc - to_int(col.motion[i, other])
        wanted = p.poc - col.lists[which, ref]
        if not (long_term or distance == wanted or distance == 0):
            factor = scale_factor(distance, wanted)
            found_x = scaled(found_x, factor)
            found_y = scaled(found_y, factor)
        scratch.numbers[0] = found_x
        scratch.numbers[1] = found_y
        return 1
    return 0


@compiled()
def predict_from(
    p: Params, picture: Picture, col: References, cell: int, which: int, ref: int, may_scale: int, scratch: Scratch
) -> int:
    """Predicts from a neighbour (8.5.3.2.7) into scratch.numbers[0:2]; returns whether it can.

    Only from a vector to the very picture; with `may_scale` from one to any picture of the same kind.
    """
    for attempt in range(2):
        other = which if attempt == 0 else 1 - which
        its = (to_int(picture.refs[cell]) >> (8 * other)) & UNUSED
        if its == UNUSED:
            continue
        if may_scale:
            if col.lists[2 + other, its] != col.lists[2 + which, ref]:
                continue
        elif col.lists[other, its] != col.lists[which, ref]:
            continue
        found_x = across(picture.vectors[cell], other)
        found_y = down(picture.vectors[cell], other)
        distance = p.poc - col.lists[other, its]
        if may_scale and not col.lists[2 + other, its] and distance != 0:
            factor = scale_factor(distance, p.poc - col.lists[which, ref])
            found_x = scaled(found_x, factor)
            found_y = scaled(found_y, factor)
        scratch.numbers[0] = found_x
        scratch.numbers[1] = found_y
        return 1
    return 0


@compiled()
def predict_vector(
    p: Params,
    picture: Picture,
    col: References,
    x: int,
    y: int,
    width: int,
    height: int,
    which: int,
    ref: int,
    flag: int,
    scratch: Scratch,
) -> None:
    """Predicts a vector of list `which` by candidate `flag` (8.5.3.2.6) into scratch.numbers[0:2]."""
    numbers = scratch.numbers
    has_left = 0
    for k in range(2):  # A0, A1
        numbers[4 + k] = neighbour(p, picture, x - 1, y + height - k)
        if numbers[4 + k] >= 0:
            has_left = 1
    from_left = 0
    for k in range(4):
        cell = numbers[4 + (k & 1)]
        if cell >= 0 and predict_from(p, picture, col, cell, which, ref, k >> 1, scratch):
            from_left = 1
            break
    if from_left and not flag:
        return
    left_x = numbers[0]
    left_y = numbers[1]
    from_above = 0
    for k in range(6):  # B0, B1, B2, then again with scaling
        if k < 3:
            numbers[4 + k] = neighbour(p, picture, x - 1 if k == 2 else x + width - k, y - 1)
        elif k == 3:
            if has_left:
                break
            if from_above:  # takes the place of the left, and is searched again
                from_left = 1
                left_x = numbers[0]
                left_y = numbers[1]
            from_above = 0
        cell = numbers[4 + (k if k < 3 else k - 3)]
        if not from_above and cell >= 0:
            from_above = predict_from(p, picture, col, cell, which, ref, 1 if k >= 3 else 0, scratch)
    above_x = numbers[0]
    above_y = numbers[1]
    n = 0
    if from_left:
        if flag == 0:
            numbers[0] = left_x
            numbers[1] = left_y
            return
        n = 1
    if from_above and not (from_left and left_x == above_x and left_y == above_y):
        if flag == n:
            numbers[0] = above_x
            numbers[1] = above_y
            return
        n += 1
    if n < 2 and p.temporal and predict_temporally(p, col, x, y, width, height, ref, which, scratch) and flag == n:
        return
    numbers[0] = 0
    numbers[1] = 0
