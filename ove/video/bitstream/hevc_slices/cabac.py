"""The arithmetic decoder of HEVC slice data (9.3), and what it says about the information in each symbol.

No bit is shifted in for each symbol: the window of 9 bits stands above bits that were read ahead, 32 at a time; the branch
on the symbol is arithmetic. Functions in registers (`bin_of`, `bypass_of`) take and return the decoder's state.
"""

from ove.video.bitstream.hevc_slices.kernel import Coder, Contexts, Params, Picture, State, Words, compiled, to_int
from ove.video.bitstream.hevc_slices.tables import (
    INITIAL_VALUES,
    LOG2,
    N_CONTEXTS,
    N_STATES,
    NEXT_STATE,
    RANGE_LPS,
    RENORM_SHIFT,
)


@compiled(inline=True)
def refill(words: Words, value: int, spare: int, at: int, limit: int) -> tuple[int, int, int]:
    """Appends 32 bits; zeros past the end, of which the caller hears from `at`."""
    return (value << 32) | to_int(words[min(at, limit) & 0x7FFFFFFF]), spare + 32, at + 1


@compiled(inline=True)
def bin_of(words: Words, contexts: Contexts, index: int, range_: int, value: int, spare: int, at: int, limit: int) -> State:
    """Decodes a symbol by a context variable (9.3.4.3.2)."""
    if spare < 8:
        value, spare, at = refill(words, value, spare, at, limit)
    index &= 255
    state = to_int(contexts[index])
    lps = to_int(RANGE_LPS[((state >> 1) << 2) | ((range_ >> 6) & 3)])
    range_ -= lps
    scaled = range_ << spare
    less_probable = (scaled - 1 - value) >> 63  # all ones or zero
    value -= scaled & less_probable
    range_ += (lps - range_) & less_probable
    contexts[index] = NEXT_STATE[(less_probable & 128) | state]
    shift = to_int(RENORM_SHIFT[range_ & 511])
    return (state ^ less_probable) & 1, range_ << shift, value, spare - shift, at


@compiled(inline=True)
def bypass_of(words: Words, range_: int, value: int, spare: int, at: int, limit: int) -> tuple[int, int, int, int]:
    """Decodes a symbol of probability one half (9.3.4.3.4)."""
    if spare < 8:
        value, spare, at = refill(words, value, spare, at, limit)
    spare -= 1
    scaled = range_ << spare
    one = (scaled - 1 - value) >> 63
    return one & 1, value - (scaled & one), spare, at


@compiled()
def read_bin(words: Words, coder: Coder, contexts: Contexts, index: int) -> int:
    """Decodes a symbol by a context variable."""
    symbol, range_, value, spare, at = bin_of(
        words, contexts, index, coder.range, coder.value, coder.spare, coder.at, coder.limit
    )
    coder.range = range_
    coder.value = value
    coder.spare = spare
    coder.at = at
    return symbol


@compiled()
def read_bypass(words: Words, coder: Coder) -> int:
    """Decodes a symbol of probability one half."""
    symbol, value, spare, at = bypass_of(words, coder.range, coder.value, coder.spare, coder.at, coder.limit)
    coder.value = value
    coder.spare = spare
    coder.at = at
    return symbol


@compiled()
def read_bypasses(words: Words, coder: Coder, count: int) -> int:
    """Decodes an unsigned number of `count` such symbols."""
    number = 0
    for _ in range(count):
        number = 2 * number + read_bypass(words, coder)
    return number


@compiled()
def read_exp_golomb(words: Words, coder: Coder, order: int) -> int:
    """Decodes a number in k-th order Exp-Golomb code (9.3.3.5)."""
    number = 0
    while order < 17 and read_bypass(words, coder):
        number += 1 << order
        order += 1
    return number + read_bypasses(words, coder, order)


@compiled()
def read_terminate(words: Words, coder: Coder) -> int:
    """Decodes a symbol before termination (9.3.4.3.5)."""
    value, spare = coder.value, coder.spare
    if spare < 8:
        value, spare, at = refill(words, value, spare, coder.at, coder.limit)
        coder.at = at
    range_ = coder.range - 2
    ends = 0
    if value >= range_ << spare:
        ends = 1
    else:
        shift = (range_ >> 8) ^ 1
        range_ <<= shift
        spare -= shift
    coder.range = range_
    coder.value = value
    coder.spare = spare
    return ends


@compiled()
def start_at(words: Words, coder: Coder, byte: int) -> None:
    """Initialises the decoder at a byte (9.3.2.5)."""
    skipped = (byte & 3) << 3
    value = to_int(words[min(byte >> 2, coder.limit) & 0x7FFFFFFF]) & (0xFFFFFFFF >> skipped)
    spare = 23 - skipped
    at = (byte >> 2) + 1
    if spare < 8:
        value, spare, at = refill(words, value, spare, at, coder.limit)
    coder.range = 510
    coder.value = value
    coder.spare = spare
    coder.at = at


@compiled(inline=True)
def next_byte(coder: Coder) -> int:
    """Returns where data go on after a terminating symbol of 1, whose last bit is the stop bit (9.3.2.5)."""
    return (coder.at << 2) - (coder.spare >> 3)


@compiled()
def start_contexts(contexts: Contexts, p: Params) -> None:
    """Initialises the context variables and statistics (9.3.2.2)."""
    qp = min(max(p.slice_qp, 0), 51)
    for i in range(N_CONTEXTS):
        initial = INITIAL_VALUES[p.init_type, i]
        slope = (initial >> 4) * 5 - 45
        state = min(max(((slope * qp) >> 4) + ((initial & 15) << 3) - 16, 1), 126)
        contexts[i] = 2 * (state - 64) + 1 if state > 63 else 2 * (63 - state)
    for i in range(N_CONTEXTS, N_STATES):
        contexts[i] = 0


@compiled()
def charge_until(p: Params, picture: Picture, now: float, x: int, y: int, width: int, height: int) -> None:
    """Charges the information up to `now` bits, and not charged yet, evenly to the blocks of an area of the picture."""
    x8 = x >> 3
    y8 = y >> 3
    columns = min((x + width + 7) >> 3, p.blocks_wide) - x8
    rows = min((y + height + 7) >> 3, p.height >> 3) - y8
    if rows > 0 and columns > 0:
        share = (now - p.charged) / (rows * columns)
        for row in range(y8, y8 + rows):
            for i in range(row * p.blocks_wide + x8, row * p.blocks_wide + x8 + columns):
                picture.bits[i] += share
    p.charged = now


@compiled()
def charge(coder: Coder, p: Params, picture: Picture, x: int, y: int, width: int, height: int) -> None:
    """Charges the information decoded since the last call to an area of the picture.

    Decoding narrows an interval of the unit line: by the bits shifted out, and by what its range is below a power of two.
    """
    charge_until(p, picture, 32.0 * coder.at - coder.spare - LOG2[coder.range & 511], x, y, width, height)
