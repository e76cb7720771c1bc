"""Which labels and rows a step takes, and where centers lie."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.centers.sample import draw_labels, draw_rows, each_once, positives_capacity, rows_of_labels, sample_shard, slots
from ove.centers.shuffle import center_of, row_of
from ove.config import CentersConfig
from ove.errors import ConfigError

C = 30


@functools.partial(jax.jit, static_argnums=(1, 2, 4, 5))
def draw(key: jax.Array, n_centers: int, n: int, first: int, length: int, sampler: str) -> jax.Array:
    return draw_rows(key, n_centers, n, first, length, sampler)


def drawn(key: jax.Array, n_centers: int, n: int, n_shards: int, sampler: str) -> list[int]:
    length = -(-n_centers // n_shards)
    rows = []
    for shard in range(n_shards):
        mine = np.asarray(draw(key, n_centers, n, shard * length, length, sampler))
        rows += (mine[mine < length] + shard * length).tolist()
    return sorted(rows)


@pytest.mark.parametrize("sampler", ["stratified", "feistel"])
@pytest.mark.parametrize(("n_centers", "n"), [(10, 10), (10, 1), (64, 6), (100, 77), (5000, 499), (5000, 4999)])
def test_rows_are_different_and_the_same_on_any_number_of_shards(n_centers: int, n: int, sampler: str) -> None:
    for seed in range(3):
        key = jax.random.key(seed)
        whole = drawn(key, n_centers, n, 1, sampler)
        assert len(set(whole)) == n == len(whole)
        assert whole[0] >= 0 and whole[-1] < n_centers
        for n_shards in (3, 8):
            assert drawn(key, n_centers, n, n_shards, sampler) == whole


@pytest.mark.parametrize("sampler", ["stratified", "feistel"])
@pytest.mark.parametrize(("n_centers", "n"), [(10, 1), (64, 6), (100, 33), (2500, 700)])
def test_rows_are_equally_likely(n_centers: int, n: int, sampler: str) -> None:
    draws = np.asarray(
        jax.jit(jax.vmap(lambda key: draw_rows(key, n_centers, n, 0, n_centers, sampler)))(
            jax.random.split(jax.random.key(0), 4000)
        )
    )
    counts = np.bincount(draws[draws < n_centers].ravel(), minlength=n_centers)
    share = n / n_centers
    assert np.abs(counts / 4000 - share).max() <= 5 * np.sqrt(share * (1 - share) / 4000)


def test_a_feistel_block_gives_neighbours_as_often_as_others() -> None:
    draws = np.asarray(
        jax.jit(jax.vmap(lambda key: draw_rows(key, 40, 10, 0, 40, "feistel")))(jax.random.split(jax.random.key(1), 4000))
    )
    chosen = (draws[:, :, None] == np.arange(40)).any(1)
    together = np.array([(chosen & np.roll(chosen, shift, axis=1)).mean() for shift in (1, 2, 7, 20)])
    np.testing.assert_allclose(together, 10 / 40 * 9 / 39, rtol=0.04)


def test_more_negatives_than_centers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="11 negatives cannot be drawn from a bank of 10"):
        draw_rows(jax.random.key(0), 10, 11, 0, 10)


@pytest.mark.parametrize("n", [1, 2, 3, 7, 64, 100, 4097])
def test_every_center_has_a_row_of_its_own(n: int) -> None:
    rows = jax.jit(row_of, static_argnums=1)(jnp.arange(n), n)
    assert sorted(np.asarray(rows).tolist()) == list(range(n))
    np.testing.assert_array_equal(jax.jit(center_of, static_argnums=1)(rows, n), np.arange(n))


def test_centers_are_strewn_over_a_bank() -> None:
    rows = np.asarray(jax.jit(row_of, static_argnums=1)(jnp.arange(1000), 1_000_000))
    assert abs(np.corrcoef(np.arange(1000), rows)[0, 1]) < 0.1
    assert np.histogram(rows, 8, (0, 1_000_000))[0].min() > 90


@functools.partial(jax.jit, static_argnums=(3, 4))
def _sample(key: jax.Array, labels: jax.Array, first: jax.Array, length: int, config: CentersConfig) -> tuple:
    rows = each_once(rows_of_labels(labels, C))
    sample = sample_shard(key, rows, first, length, n_centers=C, n_negatives=7, n_shards=-(-C // length), config=config)
    return rows, sample, slots(sample.ids, rows, first, length)


@jax.jit
def _rows(labels: jax.Array) -> jax.Array:
    return rows_of_labels(labels, C)


@settings(max_examples=25, deadline=None)
@given(
    labels=st.lists(st.lists(st.integers(-1, C - 1), min_size=3, max_size=3), min_size=4, max_size=4),
    seed=st.integers(0, 2**31 - 1),
    shards=st.sampled_from([(1, 4096), (4, 4096), (4, 3)]),
)
def test_every_positive_and_every_drawn_row_occurs_once(labels: list, seed: int, shards: tuple[int, int]) -> None:
    key, length = jax.random.key(seed), -(-C // shards[0])
    positives, negatives, found = set(), set(), {}
    rows = np.asarray(rows_of_labels(jnp.array(labels, jnp.int32), C))
    for first in range(0, C, length):
        given_rows, sample, slot = _sample(
            key, jnp.array(labels, jnp.int32), first, length, CentersConfig(chunk_rows=shards[1])
        )
        ids = np.asarray(sample.ids)
        assert len(set(ids.tolist())) == len(ids) and (np.diff(ids) > 0).all()
        used = ids < length
        assert (np.asarray(sample.is_positive | sample.is_drawn) == used).all() and int(sample.overflow) == 0
        positives |= set((ids[np.asarray(sample.is_positive)] + first).tolist())
        negatives |= set((ids[np.asarray(sample.is_drawn)] + first).tolist())
        for (u, m), place in np.ndenumerate(np.asarray(slot)):
            if place < len(ids):
                assert (u, m) not in found and ids[place] + first == given_rows[u, m]
                found[u, m] = True
    assert positives == set(rows.ravel().tolist()) - {-1}
    assert negatives == set(drawn(key, C, 7, 1, "stratified"))
    assert len(found) == sum(len(set(mine) - {-1}) for mine in labels)


def test_positives_without_room_are_counted() -> None:
    labels = jnp.arange(12, dtype=jnp.int32).reshape(4, 3)
    _, sample, slot = _sample(jax.random.key(0), labels, 0, C, CentersConfig(positives_capacity=5))
    assert int(sample.overflow) == 7 and int(sample.is_positive.sum()) == 5
    there = np.asarray(slot) < len(sample.ids)
    drawn_too = set(drawn(jax.random.key(0), C, 7, 1, "stratified"))
    kept = {int(r) for r in np.asarray(each_once(rows_of_labels(labels, C)))[there]}
    assert kept == set(np.asarray(sample.ids)[np.asarray(sample.is_positive)].tolist()) | (
        drawn_too & set(np.asarray(rows_of_labels(labels, C)).ravel().tolist())
    )


def test_the_room_for_positives_is_ample_and_far_below_all() -> None:
    capacity = positives_capacity(2048 * 10, 250_000, 8, CentersConfig())
    assert 2560 + 6 * 50 < capacity < 3000
    assert positives_capacity(100, 8, 8, CentersConfig()) == 8
    assert positives_capacity(100, 1000, 1, CentersConfig()) == 100


def test_labels_are_drawn_without_replacement_and_missing_ones_last() -> None:
    labels = jnp.array([[5, 6, 7, 8], [9, -1, 3, -1]], jnp.int32)
    seen = set()
    for seed in range(40):
        some = np.asarray(draw_labels(jax.random.key(seed), labels, 2))
        assert len(set(some[0].tolist())) == 2
        assert set(some[1].tolist()) == {9, 3}
        seen |= set(some[0].tolist())
    assert seen == {5, 6, 7, 8}


def test_all_labels_keep_their_order_and_too_many_are_an_error() -> None:
    labels = jnp.array([[5, 6, -1]], jnp.int32)
    np.testing.assert_array_equal(draw_labels(jax.random.key(0), labels, 3), labels)
    with pytest.raises(ConfigError, match="labels_per_step = 4, but the samples have 3 labels"):
        draw_labels(jax.random.key(0), labels, 4)


def test_rows_of_labels_pass_over_what_is_missing_repeated_or_past_the_bank() -> None:
    rows = np.asarray(rows_of_labels(jnp.array([[3, -1, 3, C, 2**31 - 1]], jnp.int32), C))
    assert rows[0, 0] == rows[0, 2] >= 0 and (rows[0, [1, 3, 4]] == -1).all()
    assert sorted(np.asarray(each_once(jnp.asarray(rows)))[0].tolist()) == [-1, -1, -1, -1, rows[0, 0]]
