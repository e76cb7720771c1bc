"""Packing: nothing lost, nothing twice, few shapes, little padding."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.errors import ConfigError
from ove.tokens.packing import (
    TOKEN_STEP,
    BatchShapes,
    PackingPlan,
    batches,
    fill,
    pack_sequences,
    unpack_pooled,
    unpack_sequences,
)

ROW = 64
some_lengths = st.lists(st.integers(1, ROW), min_size=1, max_size=40)


def sequences_of(lengths: list[int], dtype: type = np.uint8) -> list[tuple[np.ndarray, np.ndarray]]:
    """Sequences whose every patch and position tells whose it is, and at which place."""
    return [
        (np.stack([np.full(n, i), np.arange(n)], axis=-1).astype(dtype), np.tile([[i + 1, 0, 0]], (n, 1)).astype(np.int32))
        for i, n in enumerate(lengths)
    ]


@given(some_lengths)
def test_every_token_has_one_place(lengths: list[int]) -> None:
    plan = pack_sequences(lengths, ROW)
    patches, positions, segment_ids = fill(plan, sequences_of(lengths, np.float32))
    taken = np.zeros((plan.rows, ROW), int)
    for row, start, length in zip(plan.row, plan.start, plan.length, strict=True):
        taken[row, start : start + length] += 1
    assert taken.max() == 1 and taken.sum() == sum(lengths)
    np.testing.assert_array_equal(segment_ids > 0, taken == 1)
    for i, (got, tyx) in enumerate(zip(unpack_sequences(plan, patches), unpack_sequences(plan, positions), strict=True)):
        np.testing.assert_array_equal(got, sequences_of(lengths)[i][0])
        assert (tyx[:, 0] == i + 1).all()


@given(some_lengths)
def test_segments_are_contiguous_and_ascend_in_a_row_and_padding_comes_last(lengths: list[int]) -> None:
    plan = pack_sequences(lengths, ROW)
    for ids in fill(plan, sequences_of(lengths))[2]:
        used = ids[ids > 0]
        np.testing.assert_array_equal(ids[: len(used)], used)
        assert set(np.diff(used)) <= {0, 1} and used[0] == 1
        assert used[-1] <= plan.n_segments


@given(some_lengths, st.randoms(use_true_random=False))
def test_embeddings_come_back_in_the_order_of_the_sequences(lengths: list[int], random) -> None:
    random.shuffle(lengths)
    plan = pack_sequences(lengths, ROW)
    positions, segment_ids = fill(plan, sequences_of(lengths))[1:]
    pooled = np.zeros((plan.rows, plan.n_segments, 1))
    for s in range(plan.n_segments):
        inside = segment_ids == s + 1
        pooled[:, s, 0] = (positions[..., 0] * inside).sum(1) / np.maximum(inside.sum(1), 1)
    np.testing.assert_array_equal(unpack_pooled(plan, pooled)[:, 0], np.arange(len(lengths)) + 1)


@given(some_lengths)
def test_rows_are_few_and_the_plan_depends_on_lengths_alone(lengths: list[int]) -> None:
    plan = pack_sequences(lengths, ROW)
    assert plan.rows == 1 or sum(lengths) > plan.rows * ROW / 2  # which `BatchShapes.fit` relies on
    again = pack_sequences(np.array(lengths), ROW)
    assert all(np.array_equal(a, b) for a, b in zip(vars(plan).values(), vars(again).values(), strict=True))


@pytest.mark.parametrize(
    ("lengths", "rows"),
    [
        ([64] * 3, 3),
        ([32] * 6, 3),
        ([60, 4, 50, 14, 40, 24], 3),
        ([33, 33, 31, 31], 2),
        ([1] * 64, 1),
        ([40, 30, 30, 20, 4, 4], 2),
    ],
)
def test_known_best_packings_are_found(lengths: list[int], rows: int) -> None:
    assert pack_sequences(lengths, ROW).rows == rows


def test_lengths_that_cannot_be_packed_are_refused() -> None:
    with pytest.raises(ConfigError, match=r"sequence 1 has 65 tokens, more than the 64 of a row; lower .*max_tokens"):
        pack_sequences([3, 65], ROW)
    with pytest.raises(ConfigError, match="sequence 0 has 0 tokens"):
        pack_sequences([0], ROW)
    with pytest.raises(ConfigError, match=r"plan is for sequences of \[3, 4\] tokens, not \[4, 3\]"):
        fill(pack_sequences([3, 4], ROW), sequences_of([4, 3]))


limits = st.tuples(st.integers(1, 5000), st.integers(1, 40000), st.sampled_from([1, 2, 3, 8]))


@given(limits)
def test_the_number_of_shapes_is_small_and_every_length_a_multiple_of_128(limit: tuple[int, int, int]) -> None:
    shapes = BatchShapes(*limit)
    assert all(n % TOKEN_STEP == 0 for n in shapes.row_lengths)
    assert shapes.row_lengths[-1] >= limit[0] and len(shapes.row_lengths) <= 2 * np.log2(limit[0] / TOKEN_STEP + 1) + 2
    for n in shapes.row_lengths:
        counts = shapes.row_counts(n)
        assert counts == sorted(set(counts)) and all(rows % limit[2] == 0 for rows in counts)
        assert counts[-1] * n <= max(limit[1], n * limit[2])
        assert len(counts) <= 2 * np.log2(counts[-1] / limit[2] + 1) + 2
    assert sum(len(shapes.row_counts(n)) * len(shapes.segment_counts(n)) for n in shapes.row_lengths) < 2000


@settings(deadline=None)
@given(limits, st.data())
def test_a_stream_comes_out_in_order_in_shapes_that_are_allowed(limit: tuple[int, int, int], data: st.DataObject) -> None:
    shapes = BatchShapes(*limit)
    lengths = data.draw(st.lists(st.integers(1, limit[0]), max_size=60))
    seen: list[int] = []
    for plan, items in batches(range(len(lengths)), lengths.__getitem__, shapes):
        seen += items
        rows, row_tokens, n_segments = plan.shape
        assert row_tokens in shapes.row_lengths
        assert rows in shapes.row_counts(row_tokens) and n_segments in shapes.segment_counts(row_tokens)
        assert plan.length.tolist() == [lengths[i] for i in items]
        assert plan.row.max() < rows and plan.segment.max() <= n_segments
        assert (plan.start + plan.length).max() <= row_tokens
    assert seen == list(range(len(lengths)))


def test_equal_lengths_are_not_padded() -> None:
    plans = [plan for plan, _ in batches(range(20), lambda _: 288, BatchShapes(288, 8 * 288, equal=True))]
    assert [plan.shape for plan in plans] == [(8, 288, 1), (8, 288, 1), (4, 288, 1)]
    assert all(plan.is_plain for plan in plans)
    short = next(batches(range(5), lambda _: 288, BatchShapes(288, 8 * 288, equal=True)))[0]
    assert short.shape == (6, 288, 1) and short.is_plain  # and one row is empty
    assert not pack_sequences([288, 287], 288).is_plain


def test_the_lists_of_shapes_are_those_that_are_documented() -> None:
    shapes = BatchShapes(1000, 12 * 1024, devices=2)
    assert shapes.row_lengths == [128, 256, 384, 512, 768, 1024]
    assert shapes.row_counts(1024) == [2, 4, 6, 8, 12] and shapes.row_counts(768) == [2, 4, 6, 8, 12, 16]
    assert shapes.segment_counts(1024) == [1, 4, 16, 64, 256, 1024] and shapes.segment_counts(128)[-2:] == [64, 256]
    plan = pack_sequences([60, 4, 50, 14, 40], ROW)
    assert (plan.shape, plan.length.sum()) == ((3, ROW, 2), 168)


def test_a_plan_has_the_cheapest_shape_by_the_documented_cost() -> None:
    rng, shapes = np.random.default_rng(1), BatchShapes(4000, 16384)
    for _ in range(60):
        lengths = rng.integers(1, rng.choice([200, 1000, 4000]), rng.integers(1, 9)).tolist()
        if not shapes.fit(lengths):
            continue
        costs = {
            (rows, n): rows * n * (1 + n / 4096)
            for n in shapes.row_lengths
            if n >= max(lengths)
            for rows in shapes.row_counts(n)
            if rows >= pack_sequences(lengths, n).rows
        }
        assert costs[shapes.plan(lengths).shape[:2]] == min(costs.values())


def test_pictures_fill_their_rows() -> None:
    """Measured on sizes such as photographs and crops have: most is no padding (printed with -s)."""
    rng = np.random.default_rng(0)
    kinds = {
        "20 … 1,024 tokens": rng.integers(20, 1025, 2000),
        "photographs, 972 … 1,024": rng.choice([972, 1008, 988, 1024, 1000], 2000),
        "small, 16 … 256": rng.integers(16, 257, 2000),
        "all 256": np.full(2000, 256),
    }
    for kind, lengths in kinds.items():
        plans: list[PackingPlan] = [plan for plan, _ in batches(lengths.tolist(), int, BatchShapes(1024, 16384))]
        room = sum(plan.rows * plan.row_tokens for plan in plans)
        distinct = {plan.shape for plan in plans}
        print(f"{kind}: {lengths.sum() / room:.1%} filled, {len(plans)} batches of {len(distinct)} shapes")
        assert lengths.sum() / room >= (0.88 if "20" in kind else 0.93), kind
        assert len(distinct) <= 8, kind


def test_what_does_not_fit_is_said() -> None:
    with pytest.raises(ConfigError, match="2000 tokens, more than the 1024 of a row"):
        list(batches([5, 2000], int, BatchShapes(1024, 4096)))
    with pytest.raises(ConfigError, match=r"40 sequences of 40960 tokens do not fit into a batch of 4096"):
        BatchShapes(1024, 4096).plan([1024] * 40)
    with pytest.raises(ConfigError, match="batch_tokens = 0"):
        BatchShapes(1024, 0)
