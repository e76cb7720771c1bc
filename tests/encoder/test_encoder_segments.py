"""Several inputs packed into one row: the same as each alone, and padding is nowhere."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.errors import BadInput

CONFIG = EncoderConfig(layers=2, width=64, heads=2, mlp=128)
N = 48
"""Tokens of a row; segments of up to 15 and padding fit into it."""

apply = jax.jit(encoder.apply, static_argnums=0, static_argnames=("n_segments", "return_hidden_states"))


@pytest.fixture(scope="module")
def params() -> encoder.Params:
    """Fresh parameters with queries and keys so large that attention is far from even."""
    fresh = jax.jit(lambda: encoder.init(CONFIG, jax.random.key(0)))()
    fresh["blocks"]["attention"]["qkv"]["kernel"] *= 10
    return fresh


@pytest.fixture(scope="module")
def model(params: encoder.Params) -> encoder.Encoder:
    return nnx.merge(encoder.skeleton(CONFIG)[0], params)


def inputs(lengths: tuple[int, ...], seed: int = 0) -> list[tuple[np.ndarray, np.ndarray]]:
    """Patches and positions of inputs of these lengths."""
    rng = np.random.default_rng(seed)
    return [
        (rng.integers(0, 256, (n, CONFIG.patch_values)).astype(np.uint8), rng.integers(0, 16, (n, 3)).astype(np.int32))
        for n in lengths
    ]


def packed(rows: list[list[tuple[np.ndarray, np.ndarray]]], n: int = N) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Rows of inputs, one behind the other, then padding that is anything but zero."""
    patches = np.full((len(rows), n, CONFIG.patch_values), 200, np.uint8)
    positions = np.full((len(rows), n, 3), 7, np.int32)
    ids = np.zeros((len(rows), n), np.int32)
    for row, members in enumerate(rows):
        start = 0
        for segment, (some, places) in enumerate(members, 1):
            end = start + len(some)
            patches[row, start:end], positions[row, start:end], ids[row, start:end] = some, places, segment
            start = end
    return patches, positions, ids


@settings(max_examples=15, deadline=None)
@given(lengths=st.tuples(*[st.integers(1, 15)] * 3), seed=st.integers(0, 99))
def test_packed_equals_one_a_row(params: encoder.Params, lengths: tuple[int, ...], seed: int) -> None:
    members = inputs(lengths, seed)
    together = apply(CONFIG, params, *packed([members]), n_segments=3, return_hidden_states=True)
    alone = apply(CONFIG, params, *packed([[member] for member in members]), n_segments=1, return_hidden_states=True)
    np.testing.assert_allclose(together.pooled[0], alone.pooled[:, 0], atol=1e-5)
    ends = np.cumsum(lengths)
    for i, (end, length) in enumerate(zip(ends, lengths, strict=True)):
        np.testing.assert_allclose(together.tokens[0, end - length : end], alone.tokens[i, :length], atol=1e-5)
        layers, layers_alone = together.hidden.before_post_norm, alone.hidden.before_post_norm
        np.testing.assert_allclose(layers[:, 0, end - length : end], layers_alone[:, i, :length], atol=1e-5)


MEMBERS = inputs((16, 9, 16))


@pytest.fixture(scope="module")
def unpacked(params: encoder.Params) -> tuple[jax.Array, encoder.Params]:
    """A loss of the embeddings of the first and last of `MEMBERS`, encoded without segment ids, and its gradients."""
    patches, positions = (np.stack([MEMBERS[i][part] for i in (0, 2)]) for part in (0, 1))

    def loss_of(params: encoder.Params) -> jax.Array:
        return weighted(encoder.apply(CONFIG, params, patches, positions).pooled)

    return jax.jit(jax.value_and_grad(loss_of))(params)


def weighted(pooled: jax.Array) -> jax.Array:
    return (pooled * jax.random.normal(jax.random.key(1), pooled.shape)).sum()


@pytest.mark.parametrize(("attention", "remat"), [("cpu", "dots"), ("reference", "none")])
def test_packed_equals_unpacked_with_gradients(params: encoder.Params, unpacked: tuple, attention: str, remat: str) -> None:
    config = dataclasses.replace(CONFIG, attention=attention, remat=remat)

    def loss_of(params: encoder.Params) -> jax.Array:
        return weighted(encoder.apply(config, params, *packed([MEMBERS]), n_segments=3).pooled[0, ::2])

    got = jax.jit(jax.value_and_grad(loss_of))(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got, unpacked)


def test_what_lies_in_the_padding_changes_nothing_and_all_is_finite(params: encoder.Params) -> None:
    patches, positions, ids = packed([inputs((9, 11)), inputs((17,))])
    floats = np.array(encoder.normalise(jnp.asarray(patches)))
    spoiled, moved = floats.copy(), positions.astype(np.float32)
    spoiled[ids == 0], moved[ids == 0] = np.nan, -np.inf

    def loss_of(params: encoder.Params, patches: np.ndarray, positions: np.ndarray) -> jax.Array:
        seen = encoder.apply(CONFIG, params, patches, positions, ids, n_segments=2)
        return seen.pooled.sum(), seen  # the second row has no second segment

    step = jax.jit(jax.value_and_grad(loss_of, has_aux=True))
    clean, dirty = step(params, floats, positions.astype(np.float32)), step(params, spoiled, moved)
    jax.tree.map(np.testing.assert_array_equal, clean, dirty)
    assert all(np.isfinite(leaf).all() for leaf in jax.tree.leaves(dirty))


def test_segments_may_lie_in_any_order(params: encoder.Params) -> None:
    patches, positions, ids = packed([inputs((9, 11, 14))])
    order = np.random.default_rng(3).permutation(N)
    expected = apply(CONFIG, params, patches, positions, ids, n_segments=3)
    got = apply(CONFIG, params, patches[:, order], positions[:, order], ids[:, order], n_segments=3)
    np.testing.assert_allclose(got.pooled, expected.pooled, atol=1e-5)
    np.testing.assert_allclose(got.tokens, expected.tokens[:, order], atol=1e-5)


def test_pooling_of_segments_survives_scores_far_apart(model: encoder.Encoder) -> None:
    pool = model.pool
    tokens = jax.random.normal(jax.random.key(0), (1, 12, 64)) * jnp.where(jnp.arange(12) < 6, 1e4, 1e-2)[:, None]
    ids = jnp.asarray(np.repeat([1, 2], 6)[None].astype(np.int32))
    got, expected = jax.jit(lambda tokens: (pool(tokens, ids, 2)[0], pool(tokens.reshape(2, 6, 64))))(tokens)
    np.testing.assert_allclose(got, expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_stays_near_float32(params: encoder.Params) -> None:
    rows = packed([inputs((9, 11)), inputs((17,), seed=1)])
    seen = apply(dataclasses.replace(CONFIG, compute="bfloat16"), params, *rows, n_segments=2)
    expected = apply(CONFIG, params, *rows, n_segments=2)
    assert seen.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(seen.pooled.astype(jnp.float32), expected.pooled, atol=0.1)


def test_the_number_of_segments_is_the_largest_id_where_it_is_known(model: encoder.Encoder, params: encoder.Params) -> None:
    row = packed([inputs((9, 11)), inputs((5, 5, 5))])
    assert model(*row).pooled.shape == (2, 3, CONFIG.width)
    given = jax.eval_shape(lambda *row: model(*row, n_segments=5).pooled, *row)
    assert given.shape == (2, 5, CONFIG.width)
    with pytest.raises(BadInput, match="n_segments is needed under jit"):
        jax.eval_shape(lambda *row: model(*row).pooled, *row)
    headless = dataclasses.replace(CONFIG, pooling_head=False)
    assert (
        jax.eval_shape(lambda *row: encoder.apply(headless, encoder.init(headless, jax.random.key(0)), *row), *row).pooled
        is None
    )


def test_segment_ids_that_cannot_be_are_refused(model: encoder.Encoder) -> None:
    patches, positions, ids = packed([inputs((9, 11))])
    for wrong, message in (
        ({"segment_ids": ids[:, :-1]}, r"segment_ids of shape \(1, 47\).*\(1, 48\)"),
        ({"segment_ids": ids.astype(np.float32)}, "dtype float32: integers"),
        ({"segment_ids": ids - 1}, "between -1 and 1: 0 .padding. to n_segments"),
        ({"segment_ids": ids, "n_segments": 1}, "between 0 and 2: 0 .padding. to n_segments = 1"),
        ({"segment_ids": ids, "n_segments": 0}, "n_segments = 0 must be at least 1"),
        ({"n_segments": 2}, "without segment_ids"),
    ):
        with pytest.raises(BadInput, match=message):
            model(patches, positions, **wrong)
