"""The parts of a block whose gradients are written by hand."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ove.encoder.block import normed

EPS = 1e-2


def as_on_paper(x: jax.Array, scale: jax.Array, bias: jax.Array | None) -> jax.Array:
    if bias is None:
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + EPS) * scale + bias


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("leading", [(), (2, 7)])
def test_norms_have_the_gradients_of_their_definition(centred: bool, leading: tuple[int, ...]) -> None:
    x, d_out = (jax.random.normal(jax.random.key(i), (*leading, 96)) + 0.5 for i in range(2))
    scale, bias = (jax.random.normal(jax.random.key(i), (96,)) for i in (2, 3))
    given = (x, scale, bias if centred else None)
    got, pull = jax.vjp(lambda *xs: normed(EPS, *xs), *given)
    expected, pull_expected = jax.vjp(as_on_paper, *given)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), pull(d_out), pull_expected(d_out))


def test_norms_of_bfloat16_have_float32_gradients_of_their_parameters() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 64), jnp.bfloat16)
    out, pull = jax.vjp(lambda *xs: normed(EPS, *xs), x, jnp.ones(64), jnp.zeros(64))
    dtypes = [leaf.dtype for leaf in (out, *pull(jnp.ones_like(out)))]
    assert dtypes == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]
