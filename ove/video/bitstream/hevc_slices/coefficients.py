"""residual_coding (7.3.8.11): coefficients are parsed, not kept."""

import numpy as np

from ove.video.bitstream.hevc_slices.cabac import bin_of, bypass_of, read_bin, refill
from ove.video.bitstream.hevc_slices.kernel import Coder, Contexts, Params, Words, compiled, to_int
from ove.video.bitstream.hevc_slices.tables import (
    CODED_SUB_BLOCK,
    COEFF_ORDER,
    EXPLICIT_RDPCM,
    EXPLICIT_RDPCM_DIR,
    GREATER1,
    GREATER2,
    LAST_X_PREFIX,
    LAST_Y_PREFIX,
    N_CONTEXTS,
    SIG_COEFF,
    SIG_COEFF_CONTEXT,
    SIG_COEFF_SKIPPED,
    SKIPPED,
    SUB_BLOCK_AT,
    SUB_BLOCK_ORDER,
    TRANSFORM_SKIP,
    WHOLE_BLOCK,
)


@compiled()
def read_coefficients(words: Words, coder: Coder, contexts: Contexts, p: Params, bits: int, chroma: int, how: int) -> None:
    """Reads a transform block of 2^bits pixels a side; `how`: scanIdx, + 4 if intra prediction is horizontal or vertical."""
    scan = how & 3
    skipped = 0
    if p.transform_skip and not p.bypass and bits <= p.max_skip_bits:
        skipped = read_bin(words, coder, contexts, TRANSFORM_SKIP + chroma)
    explicit = 0
    if p.explicit_rdpcm and not p.intra and (skipped or p.bypass):
        explicit = read_bin(words, coder, contexts, EXPLICIT_RDPCM + chroma)
        if explicit:
            read_bin(words, coder, contexts, EXPLICIT_RDPCM_DIR + chroma)
    range_ = coder.range
    value = coder.value
    spare = coder.spare
    at = coder.at
    limit = coder.limit

    # last_sig_coeff_x_prefix … last_sig_coeff_y_suffix
    if chroma:
        first = 15
        shift = bits - 2
    else:
        first = 3 * (bits - 2) + ((bits - 1) >> 2)
        shift = (bits + 1) >> 2
    last_x = 0
    last_y = 0
    for axis in range(2):
        base = first + (LAST_Y_PREFIX if axis else LAST_X_PREFIX)
        prefix = 0
        while prefix < 2 * bits - 1:
            one, range_, value, spare, at = bin_of(words, contexts, base + (prefix >> shift), range_, value, spare, at, limit)
            if not one:
                break
            prefix += 1
        if axis:
            last_y = prefix
        else:
            last_x = prefix
    for axis in range(2):
        prefix = last_y if axis else last_x
        if prefix > 3:
            suffix = 0
            for _ in range((prefix >> 1) - 1):
                one, value, spare, at = bypass_of(words, range_, value, spare, at, limit)
                suffix = 2 * suffix + one
            place = (1 << ((prefix >> 1) - 1)) * (2 + (prefix & 1)) + suffix
            if axis:
                last_y = place
            else:
                last_x = place
    if scan == 2:
        last_x, last_y = last_y, last_x

    side = bits - 2  # log2 of the sub-blocks along a side
    last_block = to_int(SUB_BLOCK_ORDER[side, scan, (((last_y >> 2) << 3) | (last_x >> 2)) & 63])
    last_coeff = to_int(COEFF_ORDER[scan, ((last_y & 3) << 2) | (last_x & 3)])
    farthest = (1 << side) - 1
    coded_blocks = np.uint64(0)  # by y · 8 + x
    greater1_before = 1
    hides = p.sign_hiding and not (p.bypass or explicit or (p.intra and p.implicit_rdpcm and skipped and how >= 4))
    flat = p.skip_context and (skipped or p.bypass)
    for block in range(last_block, -1, -1):
        place = to_int(SUB_BLOCK_AT[side, scan, block])
        pattern = 0
        if place & 7 < farthest:
            pattern = to_int((coded_blocks >> np.uint64(place + 1)) & np.uint64(1))
        if place >> 3 < farthest:
            pattern |= to_int((coded_blocks >> np.uint64(place + 8)) & np.uint64(1)) << 1
        inferred = 0  # the last coefficient is significant if no other is
        if 0 < block < last_block:
            coded, range_, value, spare, at = bin_of(
                words, contexts, CODED_SUB_BLOCK + 2 * chroma + (1 if pattern else 0), range_, value, spare, at, limit
            )
            if not coded:
                continue
            inferred = 1
        coded_blocks |= np.uint64(1) << np.uint64(place)

        # sig_coeff_flag, from the highest frequency down
        if flat:
            base = SIG_COEFF_SKIPPED + chroma
            row = SKIPPED
        elif bits == 2:
            base = SIG_COEFF + 27 * chroma
            row = WHOLE_BLOCK
        else:
            row = pattern
            if chroma:
                base = SIG_COEFF + 27 + (9 if bits == 3 else 12)
            else:
                base = SIG_COEFF + (3 if block else 0) + ((9 if scan == 0 else 15) if bits == 3 else 21)
        count = 0
        highest = 0
        lowest = 0
        n = 15
        if block == last_block:
            n = last_coeff - 1
            count = 1
            highest = last_coeff
            lowest = last_coeff
        while n >= 0:
            context = base + to_int(SIG_COEFF_CONTEXT[row, scan, n])
            if n == 0:
                if inferred:
                    count += 1
                    lowest = 0
                    break
                if block == 0 and not flat:
                    context = SIG_COEFF + 27 * chroma
            one, range_, value, spare, at = bin_of(words, contexts, context, range_, value, spare, at, limit)
            if one:
                if count == 0:
                    highest = n
                count += 1
                lowest = n
                inferred = 0
            n -= 1
        if count == 0:
            continue

        # coeff_abs_level_greater1_flag, coeff_abs_level_greater2_flag
        group = 0 if (block == 0 or chroma) else 2
        if block != last_block and greater1_before == 0:
            group += 1
        greater1 = 1
        above1 = 0
        first_above = -1
        for j in range(min(count, 8)):
            one, range_, value, spare, at = bin_of(
                words, contexts, GREATER1 + 16 * chroma + 4 * group + greater1, range_, value, spare, at, limit
            )
            if one:
                greater1 = 0
                above1 |= 1 << j
                if first_above < 0:
                    first_above = j
            elif 0 < greater1 < 3:
                greater1 += 1
        greater1_before = greater1
        above2 = 0
        if first_above >= 0:
            above2, range_, value, spare, at = bin_of(
                words, contexts, GREATER2 + 4 * chroma + group, range_, value, spare, at, limit
            )

        # coeff_sign_flag
        if spare < 16:
            value, spare, at = refill(words, value, spare, at, limit)
        for _ in range(count - 1 if hides and highest - lowest > 3 else count):
            spare -= 1
            scaled = range_ << spare
            value -= scaled & ((scaled - 1 - value) >> 63)

        # coeff_abs_level_remaining (9.3.3.11)
        rice = 0
        statistic = 0
        if p.rice_adaptation:
            statistic = N_CONTEXTS + (0 if chroma else 2) + (1 if skipped or p.bypass else 0)
            rice = to_int(contexts[statistic]) >> 2
        for j in range(count):
            level = 1
            if j < 8:
                level += (above1 >> j) & 1
                full = 2
                if j == first_above:
                    level += above2
                    full = 3
                if level < full:
                    continue
            prefix = 0
            while prefix < 32:
                one, value, spare, at = bypass_of(words, range_, value, spare, at, limit)
                if not one:
                    break
                prefix += 1
            if prefix <= 3:
                suffix_bits = rice
                remaining = prefix << rice
            else:
                suffix_bits = prefix - 3 + rice
                remaining = ((1 << (prefix - 3)) + 2) << rice
            suffix = 0
            for _ in range(suffix_bits):
                one, value, spare, at = bypass_of(words, range_, value, spare, at, limit)
                suffix = 2 * suffix + one
            remaining += suffix
            level += remaining
            if statistic:
                seen = to_int(contexts[statistic])
                if remaining >= 3 << (seen >> 2):
                    contexts[statistic] = seen + 1
                elif 2 * remaining < 1 << (seen >> 2) and seen > 0:
                    contexts[statistic] = seen - 1
                statistic = 0
            if level > 3 << rice and (rice < 4 or p.rice_adaptation):
                rice += 1
    coder.range = range_
    coder.value = value
    coder.spare = spare
    coder.at = at
