"""All implementations of attention agree, gradients included."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ove.encoder import attention, attention_cpu


def problem(batch: int, heads: int, n: int, dtype: str = "float32") -> list[jax.Array]:
    """q, k, v, and the gradient of the result."""
    shape = (batch, heads, n, 64)
    return [jax.random.normal(jax.random.key(i), shape).astype(dtype) for i in range(4)]


def with_gradients(function, q, k, v, d_out) -> list[jax.Array]:
    out, pull = jax.vjp(function, q, k, v)
    return [out, *pull(d_out)]


# 512: several chunks; 21: fewer than a chunk; 331: a prime, hence one chunk; 6·600: heads that do not fill a group.
@pytest.mark.parametrize(("batch", "heads", "n"), [(2, 3, 512), (3, 1, 21), (1, 2, 331), (2, 3, 600)])
def test_grouped_equals_reference_with_gradients(batch: int, heads: int, n: int) -> None:
    arrays = problem(batch, heads, n)
    for got, expected in zip(
        with_gradients(attention_cpu.grouped, *arrays), with_gradients(attention.reference, *arrays), strict=True
    ):
        np.testing.assert_allclose(got, expected, atol=1e-5)


def test_grouped_bounds_the_scores_it_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "SCORES_AT_ONCE", 1)
    arrays = problem(2, 3, 64)
    np.testing.assert_allclose(attention_cpu.grouped(*arrays[:3]), attention.reference(*arrays[:3]), atol=1e-5)


def test_grouped_survives_scores_that_overflow_exp() -> None:
    q, k, v, d_out = problem(1, 2, 32)
    for got, expected in zip(
        with_gradients(attention_cpu.grouped, q * 60, k * 60, v, d_out),
        with_gradients(attention.reference, q * 60, k * 60, v, d_out),
        strict=True,
    ):
        assert np.isfinite(np.asarray(got)).all()
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_grouped_keeps_bfloat16() -> None:
    arrays = problem(1, 2, 96, "bfloat16")
    for got, expected in zip(
        with_gradients(attention_cpu.grouped, *arrays), with_gradients(attention.reference, *arrays), strict=True
    ):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), expected.astype(jnp.float32), atol=0.05)


@pytest.mark.parametrize(("backend", "devices"), [("cpu", 1), ("cpu", 8), ("gpu", 1)])
def test_every_backend_gives_the_same(monkeypatch: pytest.MonkeyPatch, backend: str, devices: int) -> None:
    arrays = problem(2, 3, 40)[:3]
    expected = attention.reference(*arrays)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    np.testing.assert_allclose(attention.attend(*arrays), expected, atol=1e-5)
