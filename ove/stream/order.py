"""Maps indices of a stream to records, as a function of the seed.

A head draws from its sources in a fixed pattern; each source counts its draws, which run through its records epoch by epoch,
reshuffled each time, and through the modes in another pattern. So shares are exact, in each source too, and a stream can be
resumed anywhere by any number of hosts, processes and threads.
"""

import functools
import math
from collections.abc import Sequence
from dataclasses import dataclass
from fractions import Fraction

import numpy as np
from grain.experimental import index_shuffle

from ove.errors import ConfigError

_MOST_PARTS = 1000
"""Largest denominator of a share."""
_ROUNDS = 4
"""Of the block cipher by which grain permutes indices without storing them."""
_SMALL = 1 << 16
"""Fewer items are permuted as an array: the cipher's domain is larger, and it would try hundreds of times."""
_EXACT_TO = 1e-6
_LONGEST_PATTERN = 100_000


@dataclass(frozen=True)
class RecordDraw:
    """One draw of a stream."""

    source: int
    """Index of the source."""
    sample_index: int
    """Number of earlier draws from this source."""
    epoch: int
    """Completed passes over the source."""
    item: int
    """Index among the items of the source."""


def schedule(shares: Sequence[float]) -> tuple[int, ...]:
    """Returns a pattern of the numbers 0 … len − 1 in exactly these proportions, each spread evenly.

    Each share of the sum is taken as the fraction with a denominator up to 1,000 within 1e-6 of it. ConfigError if there is
    none, or for a pattern of more than 100,000 places.
    """
    wanted = [share / sum(shares) for share in shares]
    parts = [Fraction(share).limit_denominator(_MOST_PARTS) for share in wanted]
    length = math.lcm(*(part.denominator for part in parts))
    far = max(abs(float(part) - share) for part, share in zip(parts, wanted, strict=True))
    if sum(parts) != 1 or far > _EXACT_TO or length > _LONGEST_PATTERN:
        raise ConfigError(
            f"the shares {tuple(shares)} are no simple proportions; give whole numbers, or fractions with denominators up to "
            f"{_MOST_PARTS}."
        )
    taken = [0] * len(parts)
    pattern = []
    for step in range(1, length + 1):
        number = max(range(len(parts)), key=lambda n: (parts[n] * step - taken[n], -n))
        taken[number] += 1
        pattern.append(number)
    return tuple(pattern)


class Order:
    """The stream of one head over its sources."""

    def __init__(self, lengths: Sequence[int], shares: Sequence[float], seed: tuple[int, ...]) -> None:
        """Draws from sources of `lengths` items (each 1 … 2^32) in the proportions `shares`."""
        self._pattern = np.array(schedule(shares))
        self._taken = np.stack([np.cumsum(self._pattern == source) for source in range(len(lengths))])
        self._lengths = tuple(lengths)
        self._seed = seed

    def __getitem__(self, place: int) -> RecordDraw:
        """Returns the draw with index `place` (non-negative)."""
        rounds, within = divmod(place, len(self._pattern))
        source = int(self._pattern[within])
        taken, length = self._taken[source], self._lengths[source]
        local = rounds * int(taken[-1]) + int(taken[within]) - 1
        epoch, index = divmod(local, length)
        return RecordDraw(source, local, epoch, _shuffled(index, length, (*self._seed, source, epoch)))


def _shuffled(index: int, length: int, seed: tuple[int, ...]) -> int:
    """Returns where a permutation of `length` items puts an index."""
    if length < _SMALL:
        return int(_permutation(length, seed)[index])
    last, word = length - 1, _seed_of(seed)
    if last & (last - 1):
        return index_shuffle(index, last, word, _ROUNDS)
    # grain 0.2 gives the last index one bit too few if it is a power of two with an even exponent, and so puts two items at one
    # place: then permute one item more, until the result is among these.
    index = index_shuffle(index, length, word, _ROUNDS)
    while index == length:
        index = index_shuffle(index, length, word, _ROUNDS)
    return index


@functools.lru_cache(maxsize=32)
def _permutation(length: int, seed: tuple[int, ...]) -> np.ndarray:
    """Returns a permutation from the generator's raw words, which are the same in all versions of NumPy."""
    return np.argsort(np.random.PCG64(_seed_of(seed)).random_raw(length), kind="stable")


@functools.lru_cache(maxsize=1024)
def _seed_of(words: tuple[int, ...]) -> int:
    """Returns a seed of 32 bits for `index_shuffle`."""
    return int(np.random.SeedSequence([word % 2**32 for word in words]).generate_state(1)[0])
