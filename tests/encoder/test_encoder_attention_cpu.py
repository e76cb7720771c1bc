"""Attention in chunks: equal to the reference, gradients included; segments; several devices."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from ove.encoder import attention, attention_cpu
from ove.encoder.attention_cpu import attend_in_chunks


def problem(batch: int, heads: int, n: int, dtype: str = "float32") -> list[jax.Array]:
    """q, k, v, and the gradient of the result."""
    shape = (batch, heads, n, 64)
    return [jax.random.normal(jax.random.key(i), shape).astype(dtype) for i in range(4)]


def with_gradients(function, q, k, v, d_out, segment_ids=None) -> list[jax.Array]:
    if segment_ids is None:
        out, pull = jax.vjp(function, q, k, v)
    else:
        out, pull = jax.vjp(lambda q, k, v: function(q, k, v, segment_ids), q, k, v)
    return [out, *pull(d_out)]


def masked(q, k, v, segment_ids) -> jax.Array:
    """Attention within segments as it is written on paper."""
    same = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
    scores = jnp.where(same, jnp.einsum("bank,bamk->banm", q, k) / 8, -1e30)
    return jnp.einsum("banm,bamk->bank", jax.nn.softmax(scores, axis=-1), v)


def packed(batch: int, n: int) -> jax.Array:
    """Segments of random lengths one after the other, then padding (0); each row its own."""
    rng = np.random.default_rng(n)
    ends = [np.sort(rng.choice(np.arange(1, n), 4, replace=False)) for _ in range(batch)]
    ids = np.stack([np.searchsorted(end, np.arange(n), side="right") + 1 for end in ends])
    return jnp.array(np.where(ids == 5, 0, ids), jnp.int32)


def assert_same(got: list[jax.Array], expected: list[jax.Array]) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-5)


# One head and several at a time, of one chunk, of a whole number of chunks, and of chunks and a rest.
SIZES = [(2, 3, 512), (3, 1, 21), (1, 2, 1200), (2, 3, 600)]


@pytest.mark.parametrize(("batch", "heads", "n"), SIZES)
def test_chunks_equal_the_reference_with_gradients(batch: int, heads: int, n: int) -> None:
    arrays = problem(batch, heads, n)
    assert_same(with_gradients(attend_in_chunks, *arrays), with_gradients(attention.reference, *arrays))


@pytest.mark.parametrize(("batch", "heads", "n"), SIZES)
@pytest.mark.parametrize("order", ["packed", "mixed"])
def test_segments_attend_to_themselves_only(batch: int, heads: int, n: int, order: str) -> None:
    arrays, ids = problem(batch, heads, n), packed(batch, n)
    if order == "mixed":
        ids = jax.random.permutation(jax.random.key(9), ids, axis=1)
    assert_same(with_gradients(attend_in_chunks, *arrays, ids), with_gradients(masked, *arrays, ids))


@pytest.mark.parametrize("order", ["packed", "mixed"])
def test_windows_around_segments_change_nothing(monkeypatch: pytest.MonkeyPatch, order: str) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(attention_cpu, "CHUNK", 64)
    arrays = problem(2, 2, 600)
    ids = jnp.stack([packed(1, 600)[0], jnp.arange(600) // 50])
    if order == "mixed":
        ids = jnp.roll(ids, 30, axis=1)
    assert_same(with_gradients(attend_in_chunks, *arrays, ids), with_gradients(masked, *arrays, ids))


def test_what_shares_no_segment_is_not_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    monkeypatch.setattr(attention_cpu, "CHUNK", 64)
    q, k, v, d_out = problem(1, 2, 512)
    ids = jnp.arange(512)[None] // 64
    arrays = [x.at[:, :, -64:].set(jnp.nan) for x in (q, k, v, d_out)]
    for x in with_gradients(attend_in_chunks, *arrays, ids):
        assert np.isfinite(np.asarray(x[:, :, :-128])).all()


def test_a_segment_does_not_see_the_others() -> None:
    q, k, v, d_out = problem(1, 2, 512)
    ids = jnp.where(jnp.arange(512) < 200, 3, jnp.where(jnp.arange(512) < 450, 1, 0))[None]
    together = with_gradients(attend_in_chunks, q, k, v, d_out, ids)
    for part in (slice(0, 200), slice(200, 450), slice(450, 512)):
        alone = with_gradients(attend_in_chunks, *(x[:, :, part] for x in (q, k, v, d_out)))
        assert_same([x[:, :, part] for x in together], alone)


def test_scores_held_at_a_time_are_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attention_cpu, "SCORES_AT_ONCE", 1)
    arrays = problem(2, 3, 64)[:3]
    np.testing.assert_allclose(attend_in_chunks(*arrays), attention.reference(*arrays), atol=1e-5)


def test_scores_that_overflow_exp_do_no_harm() -> None:
    q, k, v, d_out = problem(1, 2, 32)
    for got, expected in zip(
        with_gradients(attend_in_chunks, q * 60, k * 60, v, d_out),
        with_gradients(attention.reference, q * 60, k * 60, v, d_out),
        strict=True,
    ):
        assert np.isfinite(np.asarray(got)).all()
        np.testing.assert_allclose(got, expected, atol=2e-3)


def test_bfloat16_stays_bfloat16() -> None:
    arrays = problem(1, 2, 96, "bfloat16")
    for got, expected in zip(
        with_gradients(attend_in_chunks, *arrays), with_gradients(attention.reference, *arrays), strict=True
    ):
        assert got.dtype == jnp.bfloat16
        np.testing.assert_allclose(got.astype(jnp.float32), expected.astype(jnp.float32), atol=0.05)


def test_devices_share_a_batch_without_gathering_it() -> None:
    over_batch = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    arrays, ids = problem(16, 3, 512), packed(16, 512)
    expected = jax.jit(lambda *xs: with_gradients(masked, *xs))(*arrays, ids)
    arrays, ids = jax.device_put((arrays, ids), over_batch)
    step = jax.jit(lambda *xs: with_gradients(attend_in_chunks, *xs))
    compiled = step.lower(*arrays, ids).compile()
    assert not re.findall(r"all-gather|all-to-all|all-reduce|collective-permute", compiled.as_text())
    got = compiled(*arrays, ids)
    assert all(x.sharding.is_equivalent_to(over_batch, x.ndim) for x in got)
    assert_same(got, expected)


def test_devices_that_share_a_batch_hold_few_scores() -> None:
    over_batch = NamedSharding(jax.make_mesh((8,), ("data",)), PartitionSpec("data"))
    x = jax.ShapeDtypeStruct((16, 2, 4096, 64), jnp.float32, sharding=over_batch)
    compiled = jax.jit(lambda *xs: with_gradients(attend_in_chunks, *xs)).lower(x, x, x, x).compile()
    scores_of_a_device = 2 * 2 * 4096 * 4096 * 4
    assert compiled.memory_analysis().temp_size_in_bytes < scores_of_a_device / 4


@pytest.mark.parametrize("kind", [AxisType.Auto, AxisType.Explicit])
@pytest.mark.parametrize("segmented", [False, True])
def test_samples_and_heads_may_lie_on_axes_of_either_type(kind: AxisType, segmented: bool) -> None:
    mesh = jax.make_mesh((4, 2), ("data", "model"), (kind, kind))
    heads, samples = (NamedSharding(mesh, PartitionSpec(*axes)) for axes in (("data", "model"), ("data",)))
    arrays, ids = problem(4, 2, 200), packed(4, 200) if segmented else None

    def step(ids, *xs):
        return with_gradients(lambda q, k, v: attend_in_chunks(q, k, v, ids), *xs)

    expected = with_gradients(lambda q, k, v: attention.reference(q, k, v, ids), *arrays)
    got = jax.jit(step)(None if ids is None else jax.device_put(ids, samples), *jax.device_put(arrays, heads))
    assert all(x.sharding.is_equivalent_to(heads, 4) for x in got)
    assert_same(got, expected)
