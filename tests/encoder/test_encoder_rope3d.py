"""RoPE over time, rows and columns."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.encoder.machine import Machine, tracing_for
from ove.encoder.rope3d import angles, rotate

K = 64
OFFSET = st.tuples(*[st.integers(-60, 60)] * 3)


def logits(positions: np.ndarray, layout: str) -> np.ndarray:
    """q·k/√K of fixed heads at the given positions, as attention sees it."""
    q, k = (jax.random.normal(jax.random.key(i), (len(positions), K)) for i in range(2))
    turns = angles(jnp.array(positions), K, 10000.0, layout)
    cos, sin = jnp.cos(turns), jnp.sin(turns)
    return np.asarray(rotate(q, cos, sin) @ rotate(k, cos, sin).T) * K**-0.5


@settings(max_examples=30, deadline=None)
@given(shift=OFFSET, places=st.lists(OFFSET, min_size=5, max_size=5))
def test_paired_logits_depend_on_offsets_only(shift: tuple[int, ...], places: list[tuple[int, ...]]) -> None:
    here = np.array(places, np.int32)
    np.testing.assert_allclose(
        logits(here, "interleaved"), logits(here + np.array(shift, np.int32), "interleaved"), rtol=0, atol=1e-5
    )


def test_released_logits_do_not() -> None:
    here = np.arange(15, dtype=np.int32).reshape(5, 3)
    assert np.abs(logits(here, "released") - logits(here + 5, "released")).max() > 0.1


def test_angles_are_those_of_the_specification() -> None:
    tyx = np.array([3, 5, 7])
    f = np.concatenate([p * 10000.0 ** (-np.arange(n) / n) for p, n in zip(tyx, (8, 12, 12), strict=True)])
    for layout, expected in (("interleaved", np.repeat(f, 2)), ("released", np.tile(f, 2))):
        np.testing.assert_allclose(angles(jnp.array(tyx)[None], K, 10000.0, layout)[0], expected, rtol=1e-5)


@pytest.mark.parametrize("kind", ["cpu", "tpu"])
def test_rotation_is_of_adjacent_pairs(kind: str) -> None:
    x = np.random.default_rng(0).normal(size=(2, K)).astype(np.float32)
    a = np.random.default_rng(1).normal(size=(2, K)).astype(np.float32)
    with tracing_for(Machine(kind)):
        out = np.asarray(rotate(jnp.array(x), jnp.cos(a), jnp.sin(a)))
    even, odd = x[:, 0::2], x[:, 1::2]
    np.testing.assert_allclose(out[:, 0::2], even * np.cos(a[:, 0::2]) - odd * np.sin(a[:, 0::2]), atol=1e-6)
    np.testing.assert_allclose(out[:, 1::2], odd * np.cos(a[:, 1::2]) + even * np.sin(a[:, 1::2]), atol=1e-6)
