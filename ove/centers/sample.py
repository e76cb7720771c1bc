"""Samples labels and rows of a step, in time that scales with the sample and not with the bank.

Stratified sampling on a ring: the bank is rotated by a random offset in each step, so that all rows are equally likely, and
split into strata; a hash of (key, stratum) draws from each. A shard evaluates the strata that overlap its rows, so the drawn
rows do not depend on the number of shards.
"""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Bool, Int, Int32, Key, Shaped

from ove.centers.shuffle import permute, random_words, row_of
from ove.config import CentersConfig
from ove.errors import BadInput, ConfigError

STRATUM_ROWS = 1024
"""Approximate rows per stratum of the sampler `feistel`; more where a stratum would give less than 8 rows."""


class RowSample(NamedTuple):
    """Rows of one shard that a step reads and updates."""

    ids: Int32[Array, "S"]
    """Ascending indices within the shard; unused slots hold distinct indices past its last row."""
    is_drawn: Bool[Array, "S"]
    """Drawn as a negative; the other rows are only positives."""
    is_positive: Bool[Array, "S"]
    """A label of this batch."""
    overflow: Int32[Array, ""]
    """Positives beyond the capacity."""


def draw_labels(key: Key[Array, ""], labels: Int[Array, "B L"], m: int) -> Int[Array, "B m"]:
    """Draws `m` of each sample's labels without replacement; missing ones (−1) come last.

    m = L returns all labels in their order. ConfigError for m > L.
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
    """Maps labels to rows; missing labels and labels outside the bank map to −1."""
    exists = (labels >= 0) & (labels < n_centers)
    return jnp.where(exists, row_of(jnp.where(exists, labels, 0), n_centers), -1)


def each_once(rows: Int32[Array, "B L"]) -> Int32[Array, "B L"]:
    """Sorts the rows of each sample and replaces repetitions by −1."""
    rows = jnp.sort(rows, axis=1)
    repeated = jnp.pad(rows[:, 1:] == rows[:, :-1], ((0, 0), (1, 0)))
    return jnp.where(repeated, -1, rows)


def check_labels(labels: Shaped[np.ndarray, "B L"], n_centers: int, bank: str) -> None:
    """Raises BadInput unless all labels are integers in −1…n_centers − 1, where −1 is a missing one."""
    check_label_type(labels.dtype, bank)
    wrong = (labels < -1) | (labels >= n_centers)
    if wrong.any():
        sample, place = (int(i) for i in np.argwhere(wrong)[0])
        raise BadInput(
            f"labels of bank {bank}: {int(wrong.sum())} of {labels.size} are not within −1…{n_centers - 1} (sample {sample}, "
            f"place {place}: {labels[sample, place]}); the bank has {n_centers} centers: label the data again, or take the "
            "bank that the labels were made for."
        )


def check_label_type(dtype: np.dtype, bank: str) -> None:
    """Raises BadInput unless labels are integers."""
    if not np.issubdtype(dtype, np.integer):
        raise BadInput(
            f"labels of bank {bank}: are {np.dtype(dtype).name}; numbers of centers are integers, for example int32."
        )


def check_draw(n_centers: int, n: int) -> None:
    """Raises ConfigError unless 1 ≤ n ≤ n_centers."""
    if not 1 <= n <= n_centers:
        raise ConfigError(f"{n} negatives cannot be drawn from a bank of {n_centers} centers; change the share of negatives.")


def draw_rows(
    key: Key[Array, ""], n_centers: int, n: int, first: int | Int32[Array, ""], length: int, sampler: str = "stratified"
) -> Int32[Array, "d"]:
    """Draws `n` distinct rows of 0 … n_centers − 1 and returns those in the shard of `length` rows that begins at `first`.

    Indices count within the shard; unused slots hold `length`. Each row is drawn with probability n / n_centers; the rows
    depend on the key, not on the sharding. `sampler`: see `CentersConfig`. ConfigError for n > n_centers.
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
    """Returns the unique positives of the batch and the drawn rows within the shard of `length` rows that begins at `first`.

    `rows`: the labels of all samples as rows, −1 for missing ones. S = capacity + drawn slots, padded to chunks of equal
    length; it does not depend on the labels.
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
    """Returns the slots for unique positives in each shard of `length` rows.

    The bank is shuffled: of n_labels different labels a shard holds n_labels / n_shards on average, and more than six standard
    deviations above that with probability 10⁻⁹.
    """
    most = min(n_labels, length)
    if config.positives_capacity:
        return min(config.positives_capacity, most)
    mean = n_labels / n_shards
    return min(most, math.ceil(mean + 6 * math.sqrt(mean) + 8)) if n_shards > 1 else most


def chunks(n_slots: int, chunk_rows: int) -> tuple[int, int]:
    """Returns the number and the length of the equal chunks in which `n_slots` slots are processed."""
    number = -(-n_slots // chunk_rows)
    return number, -(-n_slots // number)


def slots(ids: Int32[Array, "S"], rows: Int32[Array, "B L"], first: Int32[Array, ""], length: int) -> Int32[Array, "B L"]:
    """Returns the slot of each label's row in the shard's sample; S for rows outside it."""
    here = rows - first
    place = jnp.searchsorted(ids, here).astype(jnp.int32)
    is_there = (rows >= 0) & (here >= 0) & (here < length) & (ids[jnp.minimum(place, len(ids) - 1)] == here)
    return jnp.where(is_there, place, len(ids))


def _is_in(values: Int32[Array, "V"], ascending: Int32[Array, "W"]) -> Bool[Array, "V"]:
    at = jnp.minimum(jnp.searchsorted(ascending, values), ascending.size - 1)
    return ascending[at] == values


class _Ring:
    """A ring of `size` places split into `n` strata of nearly equal width, the wider ones first."""

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
        """Returns the most strata that an interval of `length` places can overlap."""
        n_shorter, inside = self.n - self.n_longer, max(length - 2, 0)
        whole = min(inside // self.shorter_width, (inside + n_shorter) // (self.shorter_width + 1))
        return min(self.n, whole + 2)
