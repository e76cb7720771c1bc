"""Sequences of different lengths ↔ rows of one length, with segment ids that tell the sequences apart.

Every new shape of a batch costs a compilation, so the number of rows, their length and the number of segments come from short
lists (`BatchShapes`).
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, Integer, Shaped

from ove.errors import ConfigError

TOKEN_STEP = 128
"""Row lengths are multiples of it: attention kernels work on blocks of so many tokens."""
_ATTENTION_TOKENS = 4096
"""Length of a row at which attention costs about as much as the rest of a block (width 768 to 1,024)."""

Patched = tuple[Shaped[np.ndarray, "_ P"], Int32[np.ndarray, "_ 3"]]
"""The patches of a sequence and their (t, y, x); lengths differ."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class PackingPlan:
    """Where each sequence lies, in the order given."""

    row: Int32[np.ndarray, "n"]
    start: Int32[np.ndarray, "n"]
    """First token within the row; the sequences of a row follow each other without gaps."""
    length: Int32[np.ndarray, "n"]
    segment: Int32[np.ndarray, "n"]
    """1, 2, … within a row, in the order of `start`."""
    rows: int
    row_tokens: int
    n_segments: int
    """At least the segments of the fullest row."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """Returns (rows, tokens of a row, segments of a row), on which a compilation depends."""
        return self.rows, self.row_tokens, self.n_segments

    @property
    def is_plain(self) -> bool:
        """Returns whether each row is one whole sequence, or empty, and needs no segment ids."""
        return bool((self.length == self.row_tokens).all())


def pack_sequences(lengths: Sequence[int] | Integer[np.ndarray, "n"], row_tokens: int) -> PackingPlan:
    """Packs sequences of these lengths into rows of `row_tokens` by best fit decreasing.

    It takes at most 11/9 of the fewest rows possible, plus one, and depends on the lengths alone. ConfigError for a length
    below 1 or above `row_tokens`.
    """
    lengths = [int(length) for length in lengths]
    _check(lengths, row_tokens)
    row, start, segment = (np.zeros(len(lengths), np.int32) for _ in range(3))
    room: list[tuple[int, int]] = []  # (free tokens, row), ascending
    filled: list[int] = []  # segments of each row
    for i in sorted(range(len(lengths)), key=lambda i: (-lengths[i], i)):
        at = bisect.bisect_left(room, (lengths[i], 0))
        if at == len(room):
            filled.append(0)
            free, into = row_tokens, len(filled) - 1
        else:
            free, into = room.pop(at)
        row[i], start[i] = into, row_tokens - free
        filled[into] += 1
        segment[i] = filled[into]
        bisect.insort(room, (free - lengths[i], into))
    return PackingPlan(row, start, np.array(lengths, np.int32), segment, len(filled), row_tokens, max(filled, default=0))


def fill(
    plan: PackingPlan, sequences: Sequence[Patched]
) -> tuple[Shaped[np.ndarray, "B N P"], Int32[np.ndarray, "B N 3"], Int32[np.ndarray, "B N"]]:
    """Lays the sequences out by the plan: patches, positions, and the segment of each token; 0 is padding.

    ConfigError for sequences of other lengths than the plan's.
    """
    found = [len(patches) for patches, _ in sequences]
    if found != plan.length.tolist() or not found:
        raise ConfigError(f"the plan is for sequences of {plan.length.tolist()} tokens, not {found}; pack these lengths.")
    first = sequences[0][0]
    patches = np.zeros((plan.rows, plan.row_tokens, first.shape[1]), first.dtype)
    positions = np.zeros((plan.rows, plan.row_tokens, 3), np.int32)
    segment_ids = np.zeros((plan.rows, plan.row_tokens), np.int32)
    for (of_sequence, tyx), (row, place), segment in zip(sequences, _places(plan), plan.segment, strict=True):
        patches[row, place], positions[row, place], segment_ids[row, place] = of_sequence, tyx, segment
    return patches, positions, segment_ids


def unpack_sequences(plan: PackingPlan, tokens: Shaped[np.ndarray, "B N D"]) -> list[Shaped[np.ndarray, "_ D"]]:
    """Returns views of the tokens of each sequence, in the order given."""
    return [tokens[row, place] for row, place in _places(plan)]


def unpack_pooled(plan: PackingPlan, pooled: Shaped[np.ndarray, "B S D"]) -> Shaped[np.ndarray, "n D"]:
    """Returns the embedding of each sequence, in the order given; segment s is `pooled[:, s − 1]`."""
    return pooled[plan.row, plan.segment - 1]


@dataclass(frozen=True)
class BatchShapes:
    """The shapes that batches may have: a bounded number."""

    longest: int
    """Tokens of the longest sequence."""
    batch_tokens: int
    """Tokens of a full batch, with padding; one row a device is taken even if it has more."""
    devices: int = 1
    """The number of rows is a multiple of it."""
    equal: bool = False
    """(Nearly) all sequences have `longest` tokens: each row is that long."""

    def __post_init__(self) -> None:
        if min(self.longest, self.batch_tokens, self.devices) < 1:
            raise ConfigError(
                f"longest = {self.longest}, batch_tokens = {self.batch_tokens} and devices = {self.devices} must be at least 1."
            )

    @property
    def row_lengths(self) -> list[int]:
        """Returns 128 times 1, 2, 3, 4, 6, 8, 12, 16 …, up to the first that takes the longest sequence."""
        return [self.longest] if self.equal else _steps(TOKEN_STEP, self.longest)

    def row_counts(self, row_tokens: int) -> list[int]:
        """Returns numbers of rows of this length: the devices times 1, 2, 3, 4, 6 …, up to that of a full batch."""
        full = max(1, self.batch_tokens // row_tokens // self.devices) * self.devices
        return [rows for rows in _steps(self.devices, full) if rows < full] + [full]

    def segment_counts(self, row_tokens: int) -> list[int]:
        """Returns 1, 4, 16, 64 …, up to one segment a token."""
        counts = [1]
        while counts[-1] < row_tokens:
            counts.append(4 * counts[-1])
        return counts

    def fit(self, lengths: Sequence[int]) -> bool:
        """Returns whether sequences of these lengths fit into one batch; a single one of at most `longest` tokens does."""
        row_tokens = self.row_lengths[-1]
        rows = self.row_counts(row_tokens)[-1]
        _check(lengths, row_tokens)
        # Any two rows that best fit opens in turn hold more than one row's tokens, so half of the room always suffices.
        total = sum(lengths)
        return 2 * total <= rows * row_tokens or (
            total <= rows * row_tokens and pack_sequences(lengths, row_tokens).rows <= rows
        )

    def plan(self, lengths: Sequence[int]) -> PackingPlan:
        """Packs sequences that `fit` in the cheapest shape: little padding, short rows.

        A token costs 1 + (tokens of its row) / 4096, as attention grows with the row.
        """
        best: tuple[float, PackingPlan] | None = None
        for row_tokens in self.row_lengths:
            if row_tokens < max(lengths):
                continue
            plan = pack_sequences(lengths, row_tokens)
            enough = [rows for rows in self.row_counts(row_tokens) if rows >= plan.rows]
            if not enough:
                continue
            segments = next(s for s in self.segment_counts(row_tokens) if s >= plan.n_segments)
            cost = enough[0] * row_tokens * (1 + row_tokens / _ATTENTION_TOKENS)
            if best is None or cost < best[0]:
                best = cost, replace(plan, rows=enough[0], n_segments=segments)
        if best is None:
            raise ConfigError(
                f"{len(lengths)} sequences of {sum(lengths)} tokens do not fit into a batch of {self.batch_tokens}; "
                "give fewer at a time, or raise batch_tokens."
            )
        return best[1]


def batches(
    items: Iterable[Item], tokens_of: Callable[[Item], int], shapes: BatchShapes
) -> Iterator[tuple[PackingPlan, list[Item]]]:
    """Yields items in order, as many as fit into one batch, with the plan that lays them out.

    `tokens_of` returns the length of an item; ConfigError for one above `shapes.longest`.
    """
    waiting: list[Item] = []
    lengths: list[int] = []
    for item in items:
        n_tokens = tokens_of(item)
        if waiting and not shapes.fit([*lengths, n_tokens]):
            yield shapes.plan(lengths), waiting
            waiting, lengths = [], []
        _check([n_tokens], shapes.row_lengths[-1])
        waiting.append(item)
        lengths.append(n_tokens)
    if waiting:
        yield shapes.plan(lengths), waiting


def _places(plan: PackingPlan) -> Iterator[tuple[int, slice]]:
    for row, start, length in zip(plan.row.tolist(), plan.start.tolist(), plan.length.tolist(), strict=True):
        yield row, slice(start, start + length)


def _steps(unit: int, enough: int) -> list[int]:
    """Returns `unit` times 1, 2, 3, 4, 6, 8, 12 …, up to the first that is at least `enough`."""
    steps = [unit]
    while steps[-1] < enough:
        power = 1 << (steps[-1] // unit).bit_length() - 1
        steps.append(unit * (power * 3 // 2 if steps[-1] == unit * power and power > 1 else 2 * power))
    return steps


def _check(lengths: Iterable[int], row_tokens: int) -> None:
    for number, length in enumerate(lengths):
        if length < 1:
            raise ConfigError(f"sequence {number} has {length} tokens; leave empty ones out.")
        if length > row_tokens:
            raise ConfigError(
                f"sequence {number} has {length} tokens, more than the {row_tokens} of a row; lower max_tokens, budget or "
                "frames, or give longer rows."
            )
