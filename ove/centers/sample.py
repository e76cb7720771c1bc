"""Which labels and which rows take part in a step, in time that goes by the sample and not by the bank.

Rows are drawn on a ring: the bank, turned by a random angle in each step so that every row is equally likely, is cut into
strata, and from each something is drawn by a hash of (key, stratum). A shard of the bank looks at the strata that touch its
rows, so that what is drawn does not depend on how many shards there are.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int32, Key

from ove.centers.shuffle import permute, random_words, row_of
from ove.config import CentersConfig
from ove.errors import ConfigError

STRATUM_ROWS = 1024
"""Of the strata of the sampler `feistel`, about; fewer where a block would give less than 8 rows."""


class RowSample(NamedTuple):
    """The rows of one shard that a step reads and writes."""

    ids: Int32[Array, "S"]
    """Ascending, counted within the shard; unused slots hold different numbers past its last row."""
    is_drawn: Bool[Array, "S"]
    """Drawn as a negative; the others are only someone's label."""
    is_positive: Bool[Array, "S"]
    """Someone's label of this step."""
    overflow: Int32[Array, ""]
    """Positives for which there was no room."""


def draw_labels(key: Key[Array, ""], labels: Int[Array, "B L"], m: int) -> Int[Array, "B m"]:
    """`m` of each sample's labels, drawn without replacement; missing ones (−1) come only when no others are left.

    With m = L all labels, in their order. More labels than there are raise ConfigError.
    """
    if m > labels.shape[1]:
        raise ConfigError(
            f"labels_per_step = {m}, but the samples have {labels.shape[1]} labels; lower labels_per_step or make more labels."
        )
    if m == labels.shape[1]:
        return labels
    order = jnp.where(labels < 0, -1.0, jax.random.uniform(key, labels.shape))
    return jnp.take_along_axis(labels, jax.lax.top_k(order, m)[1], axis=1)


def rows_of_labels(labels: Int[Array, "B L"], n_centers: int) -> Int32[Array, "B L"]:
    """The rows in which the labels lie; −1 for missing labels and ones past the bank."""
    exists = (labels >= 0) & (labels < n_centers)
    return jnp.where(exists, row_of(jnp.where(exists, labels, 0), n_centers), -1)


def each_once(rows: Int32[Array, "B L"]) -> Int32[Array, "B L"]:
    """Each row once a sample, ascending; −1 in place of repeated ones."""
    rows = jnp.sort(rows, axis=1)
    repeated = jnp.pad(rows[:, 1:] == rows[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(repeated, -1, rows)


def check_draw(n_centers: int, n: int) -> None:
    """ConfigError unless `n` different rows can be drawn from `n_centers`."""
    if not 1 <= n <= n_centers:
        raise ConfigError(f"{n} negatives cannot be drawn from a bank of {n_centers} centers; change the share of negatives.")


def draw_rows(
    key: Key[Array, ""], n_centers: int, n: int, first: int | Int32[Array, ""], length: int, sampler: str = "stratified"
) -> Int32[Array, "d"]:
    """Of `n` different rows drawn from 0 … n_centers − 1, those in the shard of `length` rows that begins at `first`.

    They are counted within the shard; unused slots hold `length`. Each row is drawn with the probability n / n_centers, and the
    same key gives the same rows whatever the shards. `sampler`: see `CentersConfig`. ConfigError for more rows than there are.
    """
    check_draw(n_centers, n)
    key_turn, key_stratum = jax.random.split(key)
    turn = jax.random.randint(key_turn, (), 0, n_centers, dtype=jnp.int32)
    n_strata = n if sampler == "stratified" else max(1, min(n_centers // STRATUM_ROWS, n // 8))
    ring = _Ring(n_centers, n_strata)
    most = ring.most_within(length)
    begin = ring.stratum(jnp.mod(jnp.minimum(first, n_centers - 1) - turn, n_centers))
    stratum = (begin + jnp.arange(most, dtype=jnp.int32)) % n_strata
    bits = random_words(stratum, jax.random.key_data(key_stratum)[-2:])
    start, width = ring.start(stratum), ring.width(stratum)
    if sampler == "stratified":
        place = start + (bits[:, 0] % width.astype(jnp.uint32)).astype(jnp.int32)
        is_used = jnp.ones(most, bool)
    else:
        each, more = divmod(n, n_strata)
        number = jnp.broadcast_to(jnp.arange(each + bool(more)), (most, each + bool(more)))
        is_used = (number < each + (stratum[:, None] < more)).ravel()
        place = (start[:, None] + permute(number, ring.longest, bits[:, None], width[:, None])).ravel()
    row = (place + turn) % n_centers - first
    return jnp.where(is_used & (row >= 0) & (row < length), row, length)


def sample_shard(
    key: Key[Array, ""],
    rows: Int32[Array, "B M"],
    first: Int32[Array, ""],
    length: int,
    *,
    n_centers: int,
    n_negatives: int,
    n_shards: int,
    config: CentersConfig,
) -> RowSample:
    """The unique positives of the batch and the drawn rows that lie in a shard of `length` rows from `first` on.

    `rows`: those of the labels of all samples, −1 where there is none. S = capacity + drawn slots, filled up to whole chunks
    of equal length, whatever the labels.
    """
    capacity = positives_capacity(rows.size, length, n_shards, config)
    here = rows.ravel() - first
    here = jnp.sort(jnp.where((rows.ravel() >= 0) & (here >= 0) & (here < length), here, length))
    is_new = (here < length) & jnp.pad(here[1:] != here[:-1], (1, 0), constant_values=True)
    positive = jnp.sort(jnp.where(is_new, here, length))[:capacity]
    drawn = jnp.sort(draw_rows(key, n_centers, n_negatives, first, length, config.sampler))
    ids = jnp.sort(jnp.concatenate([positive, jnp.where(_is_in(drawn, positive), length, drawn)]))[:length]
    n_chunks, chunk = chunks(len(ids), config.chunk_rows)
    ids = jnp.pad(ids, (0, n_chunks * chunk - len(ids)), constant_values=length)
    is_used = ids < length
    return RowSample(
        jnp.where(is_used, ids, length + jnp.arange(len(ids), dtype=jnp.int32)),
        is_used & _is_in(ids, drawn),
        is_used & _is_in(ids, positive),
        jnp.maximum(is_new.sum() - capacity, 0),
    )


def positives_capacity(n_labels: int, length: int, n_shards: int, config: CentersConfig) -> int:
    """Slots for the unique positives of a step in each shard of `length` rows.

    Labels lie anywhere in a shuffled bank: of n_labels different ones a shard holds n_labels / n_shards on average, and more
    than six standard deviations above that in one of 10⁹ cases.
    """
    most = min(n_labels, length)
    if config.positives_capacity:
        return min(config.positives_capacity, most)
    mean = n_labels / n_shards
    return min(most, math.ceil(mean + 6 * math.sqrt(mean) + 8)) if n_shards > 1 else most


def chunks(n_slots: int, chunk_rows: int) -> tuple[int, int]:
    """(number, length) of the equal chunks in which so many slots are worked on."""
    number = -(-n_slots // chunk_rows)
    return number, -(-n_slots // number)


def slots(ids: Int32[Array, "S"], rows: Int32[Array, "B L"], first: Int32[Array, ""], length: int) -> Int32[Array, "B L"]:
    """Where in a shard's sample the labels' rows lie; S for those that are not in it."""
    here = rows - first
    place = jnp.searchsorted(ids, here).astype(jnp.int32)
    is_there = (rows >= 0) & (here >= 0) & (here < length) & (ids[jnp.minimum(place, len(ids) - 1)] == here)
    return jnp.where(is_there, place, len(ids))


def _is_in(values: Int32[Array, "V"], ascending: Int32[Array, "W"]) -> Bool[Array, "V"]:
    at = jnp.minimum(jnp.searchsorted(ascending, values), ascending.size - 1)
    return ascending[at] == values


class _Ring:
    """A ring of `size` places cut into `n` strata as equal as can be, the longer ones first."""

    def __init__(self, size: int, n: int) -> None:
        self.n = n
        self.shorter_width, self.n_longer = divmod(size, n)
        self.longest = self.shorter_width + bool(self.n_longer)

    def start(self, stratum: Int32[Array, "s"]) -> Int32[Array, "s"]:
        return stratum * self.shorter_width + jnp.minimum(stratum, self.n_longer)

    def width(self, stratum: Int32[Array, "s"]) -> Int32[Array, "s"]:
        return self.shorter_width + (stratum < self.n_longer)

    def stratum(self, place: Int32[Array, ""]) -> Int32[Array, ""]:
        in_longer = self.n_longer * (self.shorter_width + 1)
        later = self.n_longer + (place - in_longer) // self.shorter_width
        return jnp.where(place < in_longer, place // (self.shorter_width + 1), later)

    def most_within(self, length: int) -> int:
        """The most strata that a stretch of so many places can touch: those wholly inside, and one at either end."""
        n_shorter, inside = self.n - self.n_longer, max(length - 2, 0)
        whole = min(inside // self.shorter_width, (inside + n_shorter) // (self.shorter_width + 1))
        return min(self.n, whole + 2)
