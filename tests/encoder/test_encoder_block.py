"""The parts of a block whose gradients are written by hand, and their order."""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ove.config import EncoderConfig
from ove.encoder import attention_cpu, block, encoder
from ove.encoder.block import gelu, normed, times
from ove.encoder.order import after

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


def test_gelu_is_exact_and_so_is_its_gradient() -> None:
    x = jnp.linspace(-9, 9, 20_001)
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in np.asarray(x, np.float64)])
    np.testing.assert_allclose(gelu(x), exact, atol=1e-6)
    got, expected = (jax.vjp(f, x)[1](jnp.ones_like(x))[0] for f in (gelu, functools.partial(jax.nn.gelu, approximate=False)))
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_linear_layers_have_the_gradients_of_a_product() -> None:
    x, kernel, d_out = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate([(40, 24), (24, 56), (40, 56)]))
    got, expected = (jax.vjp(f, x, kernel)[1](d_out) for f in (times, jnp.matmul))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)


@pytest.mark.parametrize("y", [1.0, -1.0, -0.0, np.inf, -np.inf, np.nan])
def test_waiting_changes_no_value(monkeypatch: pytest.MonkeyPatch, y: float) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jax.random.normal(jax.random.key(0), (3, 5), dtype)
        waited = jax.jit(after)(x, jnp.full((2, 2), y, dtype))
        assert waited.dtype == dtype
        np.testing.assert_array_equal(waited, x)


def test_waiting_saves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)

    def temporary(eps: float) -> list[int]:
        # Each call has an epsilon of its own, lest what was traced for another be taken.
        config = EncoderConfig(layers=2, width=256, heads=4, mlp=1024, norm_eps=eps)
        params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
        inputs = jnp.zeros((1, 256, config.patch_values), jnp.uint8), jnp.zeros((1, 256, 3), jnp.int32)
        programs = [lambda p: encoder.apply(config, p, *inputs).pooled.sum()]
        programs.append(jax.grad(programs[0]))
        return [jax.jit(f).lower(params).compile().memory_analysis().temp_size_in_bytes for f in programs]

    waiting = temporary(1e-6)
    for module in (block, attention_cpu):
        monkeypatch.setattr(module, "after", lambda x, y: x)
    forward, both = (a / b for a, b in zip(waiting, temporary(2e-6), strict=True))
    assert forward < 0.8
    assert both < 0.8
