"""Which labels and centers a step draws."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.centers.sample import candidates, draw_centers, draw_labels
from ove.errors import ConfigError

N_CENTERS = 30


@settings(max_examples=40, deadline=None)
@given(
    labels=st.lists(st.lists(st.integers(-1, N_CENTERS - 1), min_size=3, max_size=3), min_size=4, max_size=4),
    seed=st.integers(0, 2**31 - 1),
)
def test_every_positive_and_every_negative_occurs_once(labels: list[list[int]], seed: int) -> None:
    key = jax.random.key(seed)
    ids, is_negative = candidates(key, jnp.array(labels, jnp.int32), N_CENTERS, 7)
    used = np.asarray(ids)[np.asarray(ids) < N_CENTERS]
    negatives = set(np.asarray(draw_centers(key, N_CENTERS, 7)).tolist())
    assert ids.shape == (4 * 3 + 7,)
    assert np.asarray(ids).max() <= N_CENTERS
    assert len(set(used.tolist())) == len(used)
    assert set(used.tolist()) == negatives | (set(np.ravel(labels).tolist()) - {-1})
    assert set(np.asarray(ids)[np.asarray(is_negative)].tolist()) == negatives


@pytest.mark.parametrize(("n_centers", "n"), [(10, 10), (10, 1), (64, 6), (100, 33)])
def test_centers_are_different_and_equally_likely(n_centers: int, n: int) -> None:
    draws = np.asarray(jax.vmap(lambda key: draw_centers(key, n_centers, n))(jax.random.split(jax.random.key(0), 4000)))
    assert all(len(set(row.tolist())) == n for row in draws)
    counts = np.bincount(draws.ravel(), minlength=n_centers)
    assert len(counts) == n_centers
    share = n / n_centers
    assert np.abs(counts / 4000 - share).max() <= 5 * np.sqrt(share * (1 - share) / 4000)


def test_more_negatives_than_centers_is_an_error() -> None:
    with pytest.raises(ConfigError, match="11 negatives cannot be drawn from a bank of 10"):
        draw_centers(jax.random.key(0), 10, 11)


def test_labels_are_drawn_without_replacement_and_missing_ones_last() -> None:
    labels = jnp.array([[5, 6, 7, 8], [9, -1, 3, -1]], jnp.int32)
    seen = set()
    for seed in range(40):
        drawn = np.asarray(draw_labels(jax.random.key(seed), labels, 2))
        assert len(set(drawn[0].tolist())) == 2
        assert set(drawn[1].tolist()) == {9, 3}
        seen |= set(drawn[0].tolist())
    assert seen == {5, 6, 7, 8}


def test_all_labels_keep_their_order_and_too_many_are_an_error() -> None:
    labels = jnp.array([[5, 6, -1]], jnp.int32)
    np.testing.assert_array_equal(draw_labels(jax.random.key(0), labels, 3), labels)
    with pytest.raises(ConfigError, match="labels_per_step = 4, but the samples have 3 labels"):
        draw_labels(jax.random.key(0), labels, 4)
