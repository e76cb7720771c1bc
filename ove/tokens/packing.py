"""Sequences of different lengths ↔ rows of one length, in which segment ids tell the sequences apart.

Every shape of a batch that an encoder has not met costs a compilation. So rows, their length and the number of segments come
from short lists (`BatchShapes`), whatever the lengths of the sequences.
"""

import bisect
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import TypeVar

import numpy as np
from jaxtyping import Int32, Integer, Shaped

from ove.errors import ConfigError

TOKEN_STEP = 128
"""All lengths of rows are multiples of it: attention kernels work on blocks of so many tokens."""
_ATTENTION_TOKENS = 4096
"""Length of a row at which attention costs about as much as the rest of a block (width 768 to 1,024)."""

Patched = tuple[Shaped[np.ndarray, "_ P"], Int32[np.ndarray, "_ 3"]]
"""The patches of a sequence and their (t, y, x); lengths differ."""
Item = TypeVar("Item")


@dataclass(frozen=True)
class PackingPlan:
    """Where each sequence lies, in the order in which the sequences were given."""

    row: Int32[np.ndarray, "n"]
    start: Int32[np.ndarray, "n"]
    """First token within the row; the sequences of a row follow each other without gaps."""
    length: Int32[np.ndarray, "n"]
    segment: Int32[np.ndarray, "n"]
    """1, 2, … within a row, in the order of `start`."""
    rows: int
    row_tokens: int
    n_segments: int
    """Room for the segments of the fullest row, and maybe for more."""

    @property
    def shape(self) -> tuple[int, int, int]:
        """(rows, tokens of a row, segments of a row): what a compilation depends on."""
        return self.rows, self.row_tokens, self.n_segments

    @property
    def is_plain(self) -> bool:
        """Whether each row is one sequence from end to end, or empty, so that nothing has to be kept apart."""
        return bool((self.length == self.row_tokens).all())


def pack_sequences(lengths: Sequence[int] | Integer[np.ndarray, "n"], row_tokens: int) -> PackingPlan:
    """Sequences of these lengths in few rows of `row_tokens`: the longest first, each into the fullest row that takes it.

    (Best fit decreasing: at most 11/9 of the fewest rows possible, and one more.) The plan depends on the lengths alone; of
    equal ones the first comes first. A length below 1 or above `row_tokens` raises ConfigError.
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
    """The sequences laid out by the plan: patches, positions, and the segment of each token; 0 is padding.

    Patches keep their dtype. ConfigError if the sequences are not those that the plan was made for.
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
    """What became of the tokens of each sequence, in the order in which the sequences were given; views, no copies."""
    return [tokens[row, place] for row, place in _places(plan)]


def unpack_pooled(plan: PackingPlan, pooled: Shaped[np.ndarray, "B S D"]) -> Shaped[np.ndarray, "n D"]:
    """The embedding of each sequence, in the order in which the sequences were given; segment s is `pooled[:, s − 1]`."""
    return pooled[plan.row, plan.segment - 1]


@dataclass(frozen=True)
class BatchShapes:
    """The shapes that batches may have: a bounded number, whatever sequences come."""

    longest: int
    """Tokens of the longest sequence that may come."""
    batch_tokens: int
    """Tokens of a full batch, padding counted. One row a device is taken even if that is more."""
    devices: int = 1
    """The number of rows is a multiple of it, so that the rows can be shared out."""
    equal: bool = False
    """All sequences are of `longest` tokens: a row is one sequence, from end to end."""

    def __post_init__(self) -> None:
        if min(self.longest, self.batch_tokens, self.devices) < 1:
            raise ConfigError(
                f"longest = {self.longest}, batch_tokens = {self.batch_tokens} and devices = {self.devices} must be at least 1."
            )

    @property
    def row_lengths(self) -> list[int]:
        """128 times 1, 2, 3, 4, 6, 8, 12, 16 …, up to the first that takes the longest sequence."""
        return [self.longest] if self.equal else _steps(TOKEN_STEP, self.longest)

    def row_counts(self, row_tokens: int) -> list[int]:
        """Numbers of rows of this length: the devices times 1, 2, 3, 4, 6 …, up to that of a full batch."""
        full = max(1, self.batch_tokens // row_tokens // self.devices) * self.devices
        return [rows for rows in _steps(self.devices, full) if rows < full] + [full]

    def segment_counts(self, row_tokens: int) -> list[int]:
        """1, 4, 16, 64 …, up to one segment a token."""
        counts = [1]
        while counts[-1] < row_tokens:
            counts.append(4 * counts[-1])
        return counts

    @property
    def count(self) -> int:
        """How many shapes there are at most."""
        return sum(len(self.row_counts(n)) * len(self.segment_counts(n)) for n in self.row_lengths)

    def fit(self, lengths: Sequence[int]) -> bool:
        """Whether sequences of these lengths go into one batch. A single one always does, if it is no longer than `longest`."""
        row_tokens = self.row_lengths[-1]
        rows = self.row_counts(row_tokens)[-1]
        _check(lengths, row_tokens)
        # Any two rows that best fit opens one after the other hold more than one row's tokens, so half of the room is safe.
        total = sum(lengths)
        return 2 * total <= rows * row_tokens or (
            total <= rows * row_tokens and pack_sequences(lengths, row_tokens).rows <= rows
        )

    def plan(self, lengths: Sequence[int]) -> PackingPlan:
        """Sequences that `fit`, packed in the shape that is cheapest for them: little padding, short rows.

        The cost of a token is taken as 1 + (tokens of its row) / 4096, for attention grows with the row.
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
    """Items in their order, as many at a time as fit into one batch, each time with the plan that lays them out.

    `tokens_of` tells the length of an item. One that is longer than `shapes.longest` raises ConfigError.
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
    """`unit` times 1, 2, 3, 4, 6, 8, 12 …, up to the first that is at least `enough`."""
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
                f"sequence {number} has {length} tokens, more than the {row_tokens} of a row; lower the most tokens that a "
                "sequence may have (max_tokens, budget or frames), or give longer rows."
            )
