"""slice_segment_data (7.3.8.1): sample adaptive offsets, coding quadtrees, substreams; and what later pictures need of one."""

from ove.video.bitstream.hevc_slices.cabac import (
    charge_until,
    next_byte,
    read_bin,
    read_bypass,
    read_bypasses,
    read_terminate,
    start_at,
    start_contexts,
)
from ove.video.bitstream.hevc_slices.kernel import (
    Coder,
    Contexts,
    Motion,
    Params,
    Picture,
    References,
    Row,
    Scratch,
    Table,
    Vectors,
    Words,
    compiled,
    to_int,
)
from ove.video.bitstream.hevc_slices.tables import N_STATES, SAO_MERGE, SAO_TYPE, SPLIT_CU
from ove.video.bitstream.hevc_slices.units import read_coding_unit
from ove.video.bitstream.hevc_slices.vectors import NO_REFS, UNUSED

_OVERRUN = 6
"""Bytes that the decoder may have read ahead of the last symbol."""


@compiled()
def read_sao(words: Words, coder: Coder, contexts: Contexts, p: Params, picture: Picture, ctb: int) -> None:
    """Reads sao (7.3.8.3)."""
    for direction in range(2):
        before = ctb - p.ctbs_wide if direction else ctb - 1
        if (
            (ctb >= p.ctbs_wide if direction else ctb % p.ctbs_wide > 0)
            and picture.ctbs[0, before] == p.slice_address
            and picture.ctbs[1, before] == picture.ctbs[1, ctb]
            and read_bin(words, coder, contexts, SAO_MERGE)
        ):
            return
    kind = 0
    for component in range(3 if p.chroma_format else 1):
        if not (p.sao_chroma if component else p.sao_luma):
            continue
        if component < 2:
            kind = 0
            if read_bin(words, coder, contexts, SAO_TYPE):
                kind = 2 if read_bypass(words, coder) else 1
        if kind == 0:
            continue
        signs = 0
        for _ in range(4):
            size = 0
            while size < (p.sao_max_chroma if component else p.sao_max_luma) and read_bypass(words, coder):
                size += 1
            signs += 1 if size else 0
        if kind == 1:
            read_bypasses(words, coder, signs + 5)
        elif component < 2:
            read_bypasses(words, coder, 2)


@compiled()
def start_qp_group(p: Params, picture: Picture, x: int, y: int) -> None:
    """Predicts QpY of a quantization group from those of its neighbours in the CTB and of the unit before it (8.6.1)."""
    inside = (1 << p.ctb_bits) - 1
    left = p.last_qp
    above = p.last_qp
    if x & inside:
        left = to_int(picture.qps[(y >> 3) * p.blocks_wide + ((x - 1) >> 3)])
    if y & inside:
        above = to_int(picture.qps[((y - 1) >> 3) * p.blocks_wide + (x >> 3)])
    p.qp_prediction = (left + above + 1) >> 1
    p.qp_delta_done = 0
    p.qp_delta_value = 0


@compiled()
def read_ctu(
    words: Words,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    col: References,
    ctb: int,
    scratch: Scratch,
) -> None:
    """Reads coding_quadtree (7.3.8.4) of a CTB, without recursion."""
    ctb_x = (ctb % p.ctbs_wide) << p.ctb_bits
    ctb_y = (ctb // p.ctbs_wide) << p.ctb_bits
    ctbs = picture.ctbs
    before = ctb - 1
    over = ctb - p.ctbs_wide
    has_left = ctb_x > 0 and ctbs[0, before] == ctbs[0, ctb] and ctbs[1, before] == ctbs[1, ctb]
    has_above = ctb_y > 0 and ctbs[0, over] == ctbs[0, ctb] and ctbs[1, over] == ctbs[1, ctb]
    stack = scratch.quads
    stack[0, 0] = ctb_x
    stack[0, 1] = ctb_y
    stack[0, 2] = p.ctb_bits
    stack[0, 3] = 0
    n = 1
    while n:
        n -= 1
        x = stack[n, 0]
        y = stack[n, 1]
        bits = stack[n, 2]
        depth = stack[n, 3]
        size = 1 << bits
        split = 0
        if bits > p.min_cb_bits:
            split = 1
            if x + size <= p.width and y + size <= p.height:
                deeper = 0
                if x > ctb_x or has_left:
                    deeper += 1 if (picture.depths[(y >> 3) * p.blocks_wide + ((x - 1) >> 3)] & 127) > depth else 0
                if y > ctb_y or has_above:
                    deeper += 1 if (picture.depths[((y - 1) >> 3) * p.blocks_wide + (x >> 3)] & 127) > depth else 0
                split = read_bin(words, coder, contexts, SPLIT_CU + deeper)
        if bits >= p.qp_group_bits:
            start_qp_group(p, picture, x, y)
        if bits >= p.chroma_qp_group_bits:
            p.chroma_qp_done = 0
        if split:
            half = size >> 1
            for child in range(3, -1, -1):
                child_x = x + (half if child & 1 else 0)
                child_y = y + (half if child & 2 else 0)
                if child_x < p.width and child_y < p.height:
                    stack[n, 0] = child_x
                    stack[n, 1] = child_y
                    stack[n, 2] = bits - 1
                    stack[n, 3] = depth + 1
                    n += 1
            continue
        p.cu_x = x
        p.cu_y = y
        p.cu_bits = bits
        p.depth = depth
        read_coding_unit(words, coder, contexts, p, picture, col, scratch)


@compiled()
def save_contexts(contexts: Contexts, scratch: Scratch, row: int) -> None:
    """Stores the context variables (9.3.2.4)."""
    for i in range(N_STATES):
        scratch.saved[row, i] = contexts[i]


@compiled()
def load_contexts(contexts: Contexts, scratch: Scratch, row: int) -> None:
    """Restores the context variables."""
    for i in range(N_STATES):
        contexts[i] = scratch.saved[row, i]


@compiled()
def begin_ctb(
    words: Words,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    ctb: int,
    new_tile: int,
    first: int,
    scratch: Scratch,
) -> None:
    """Initialises the context variables where a CTB begins a substream or the slice segment (9.3.1)."""
    new_row = p.wavefront and ctb % p.ctbs_wide == picture.ctbs[3, ctb]
    if new_tile or new_row or (first and not p.dependent):
        p.last_qp = p.slice_qp
    if new_tile:
        start_contexts(contexts, p)
    elif new_row:
        above_right = ctb - p.ctbs_wide + 1
        if (
            ctb >= p.ctbs_wide
            and ctb % p.ctbs_wide + 1 < p.ctbs_wide
            and picture.ctbs[0, above_right] == p.slice_address
            and picture.ctbs[1, above_right] == picture.ctbs[1, ctb]
        ):
            load_contexts(contexts, scratch, 0)
        else:
            start_contexts(contexts, p)
    elif first:
        if p.dependent:
            load_contexts(contexts, scratch, 1)
        else:
            start_contexts(contexts, p)


@compiled(entry=True)
def read_slice_data(
    words: Words,
    first_byte: int,
    n_bytes: int,
    coder: Coder,
    contexts: Contexts,
    p: Params,
    picture: Picture,
    col: References,
    tile_scan: Row,
    tile_order: Row,
    scratch: Scratch,
) -> int:
    """Reads the data of a slice segment; returns its CTBs, negative if the data end wrong.

    `tile_scan`: CTB address in tile scan → in raster scan (6.5.1), `tile_order` back. Substreams need no entry points: each
    begins at the next byte after a terminating symbol.
    """
    coder.limit = (n_bytes + 3) >> 2
    start_at(words, coder, first_byte)
    p.charged = 8.0 * first_byte
    place = to_int(tile_order[p.segment_address])
    n_ctbs = 0
    while True:
        ctb = to_int(tile_scan[place])
        new_tile = 1 if place == 0 or picture.ctbs[1, ctb] != picture.ctbs[1, tile_scan[place - 1]] else 0
        picture.ctbs[0, ctb] = p.slice_address
        picture.ctbs[2, ctb] = p.slice_index
        begin_ctb(words, contexts, p, picture, ctb, new_tile, 1 if n_ctbs == 0 else 0, scratch)
        if p.sao_luma or p.sao_chroma:
            read_sao(words, coder, contexts, p, picture, ctb)
        read_ctu(words, coder, contexts, p, picture, col, ctb, scratch)
        n_ctbs += 1
        if next_byte(coder) > n_bytes + _OVERRUN:
            return -n_ctbs
        ends = read_terminate(words, coder)
        column = ctb % p.ctbs_wide
        in_tile = column - picture.ctbs[3, ctb]
        if p.wavefront and (
            in_tile == 1 or (in_tile == 0 and (column + 1 == p.ctbs_wide or picture.ctbs[1, ctb + 1] != picture.ctbs[1, ctb]))
        ):
            save_contexts(contexts, scratch, 0)
        if ends:
            if p.dependent_enabled:
                save_contexts(contexts, scratch, 1)
            coder.end = next_byte(coder)
            size = 1 << p.ctb_bits
            row = ctb // p.ctbs_wide
            charge_until(p, picture, 8.0 * coder.end, column << p.ctb_bits, row << p.ctb_bits, size, size)
            return n_ctbs
        place += 1
        if place >= p.n_ctbs:
            return -n_ctbs
        following = to_int(tile_scan[place])
        if (p.tiles and picture.ctbs[1, following] != picture.ctbs[1, ctb]) or (
            p.wavefront and following % p.ctbs_wide == picture.ctbs[3, following]
        ):
            if not read_terminate(words, coder):
                return -n_ctbs
            start_at(words, coder, next_byte(coder))


@compiled(entry=True)
def keep_motion(p: Params, picture: Picture, tables: Table, vectors: Vectors, motion: Motion) -> None:
    """Stores the motion of a whole picture by 16×16 pixels for later ones (8.5.3.2.8), with POCs instead of indices.

    `tables`: `References.lists` of each slice; `vectors` and `motion` are those of `References`.
    """
    for y in range((p.height + 15) >> 4):
        for x in range(p.motion_wide):
            cell = y * 4 * p.cells_wide + x * 4
            i = y * p.motion_wide + x
            refs = to_int(picture.refs[cell])
            vectors[i] = picture.vectors[cell]
            uses = 0
            if refs != NO_REFS:
                index = picture.ctbs[2, ((y << 4) >> p.ctb_bits) * p.ctbs_wide + ((x << 4) >> p.ctb_bits)]
                for which in range(2):
                    ref = (refs >> (8 * which)) & UNUSED
                    if ref != UNUSED:
                        uses |= 1 << which
                        motion[i, which] = tables[index, which, ref & 15]
                        if tables[index, 2 + which, ref & 15]:
                            uses |= 4 << which
            motion[i, 2] = uses
