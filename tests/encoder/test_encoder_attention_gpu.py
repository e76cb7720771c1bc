"""Attention by cuDNN, as far as a CPU can tell: what is asked of it computed otherwise, and lowered for GPUs."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ove.config import EncoderConfig
from ove.encoder import attention, attention_gpu, encoder
from ove.encoder.attention_gpu import cudnn_attention
from ove.encoder.machine import Machine, tracing_for
from ove.encoder.presets import preset
from ove.encoder.segments import Segments, sort_segments

H100, A100 = Machine("cuda", 9.0), Machine("cuda", 8.0)
WIDTHS = [32, 64, 72, 128]


def segments(batch: int, n: int, most: int = 4) -> jax.Array:
    """Segments 1 … in any order, rows without some of them, and padding."""
    rng = np.random.default_rng(n)
    ids = np.sort(rng.integers(0, most + 1, (batch, n)), axis=1)
    ids[0, ids[0] == 2] = 0
    return jnp.asarray(rng.permuted(ids, axis=1), jnp.int32)


def with_gradients(function, q, k, v, d_out) -> list[jax.Array]:
    out, pull = jax.vjp(function, q, k, v)
    return [out, *pull(d_out)]


def as_documented(q, k, v, *, q_seqlen, kv_seqlen, q_offsets, kv_offsets, scale):
    """Packed attention by what JAX says of its arguments: starts and lengths within each row, −1 left out; else undefined."""
    assert q_offsets.shape[1] == q_seqlen.shape[1] + 1 and q.shape[1] % 2 == 0
    tokens = jnp.arange(q.shape[1])
    q_in, k_in = (
        (tokens >= starts[:, :-1, None]) & (tokens < (starts[:, :-1] + lengths)[..., None]) & (lengths >= 0)[..., None]
        for starts, lengths in ((q_offsets, q_seqlen), (kv_offsets, kv_seqlen))
    )
    together = jnp.einsum("bsn,bsm->bnm", q_in.astype(jnp.int32), k_in.astype(jnp.int32)) > 0
    scores = jnp.einsum("bnak,bmak->banm", q, k, preferred_element_type=jnp.float32) * scale
    weights = jax.nn.softmax(jnp.where(together[:, None], scores, -1e30), axis=-1)
    out = jnp.einsum("banm,bmak->bnak", weights.astype(v.dtype), v)
    return jnp.where(q_in.any(1)[:, :, None, None], out, jnp.nan)


@pytest.fixture
def computed(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """cuDNN's part is computed by XLA, and for packed rows as documented; what was asked for is noted."""
    public, asked = jax.nn.dot_product_attention, []

    def by_xla(q, k, v, *, implementation: str, **options: Any):
        assert implementation == "cudnn" and q.shape[1] % 2 == 0
        asked.append("mask" if options.get("mask") is not None else "plain")
        return public(q, k, v, implementation="xla", **options)

    def packed(*arrays: Any, **options: Any):
        asked.append("packed")
        return as_documented(*arrays, **options)

    monkeypatch.setattr(jax.nn, "dot_product_attention", by_xla)
    monkeypatch.setattr(attention_gpu.private(), "dot_product_attention", packed)
    return asked


@pytest.mark.parametrize("kind", ["plain", "packed", "mask", "A100"])
@pytest.mark.parametrize("dtype", ["bfloat16", "float32"])
@pytest.mark.parametrize(("n", "width"), [*((46, width) for width in WIDTHS), (33, 64)])
def test_what_cudnn_is_asked_for_equals_the_reference(kind: str, dtype: str, n: int, width: int, computed: list[str]) -> None:
    arrays = [jax.random.normal(jax.random.key(i), (3, 2, n, width)).astype(dtype) for i in range(4)]
    given = Segments(segments(3, n)) if kind == "mask" else None if kind == "plain" else sort_segments(segments(3, n), 4)[0]
    got = with_gradients(lambda q, k, v: cudnn_attention(q, k, v, given, by_length=kind != "A100"), *arrays)
    ids = None if given is None else given.ids
    exact = with_gradients(lambda *xs: attention.reference(*xs, ids), *(x.astype(jnp.float32) for x in arrays))
    for a, b in zip(got, exact, strict=True):
        assert a.dtype == dtype
        np.testing.assert_allclose(a.astype(jnp.float32), b, atol=0.08 if dtype == "bfloat16" else 1e-5)
    assert set(computed) == {"mask" if kind == "A100" else kind}


def test_a_packed_encoder_for_gpus_computes_what_the_reference_does(computed: list[str]) -> None:
    rng, ids = np.random.default_rng(0), segments(3, 45)
    inputs = rng.integers(0, 256, (3, 45, 588), np.uint8), rng.integers(0, 16, (3, 45, 3)), ids
    params = encoder.init(EncoderConfig(layers=2, width=64, heads=2, mlp=128), jax.random.key(0))
    params["blocks"]["attention"]["qkv"]["kernel"] *= 10

    def encoded(backend: Any, here: Machine) -> encoder.Encoded:
        config = EncoderConfig(layers=2, width=64, heads=2, mlp=128, compute="bfloat16", attention=backend)
        with tracing_for(here):
            return encoder.apply(config, params, *inputs, n_segments=4, return_hidden_states=True)

    expected = encoded("reference", H100)
    for here, asked in ((H100, "packed"), (A100, "mask")):
        computed.clear()
        got = encoded("auto", here)
        assert set(computed) == {asked}
        real = np.asarray(ids) > 0
        np.testing.assert_allclose(*(np.asarray(x.tokens, np.float32)[real] for x in (got, expected)), atol=0.1)
        np.testing.assert_allclose(
            *(np.asarray(x.hidden.before_post_norm, np.float32)[:, real] for x in (got, expected)), atol=0.1
        )
        assert np.isfinite(np.asarray(got.pooled, np.float32)).all()


def test_segments_are_sorted_and_counted() -> None:
    ids = jnp.array([[2, 0, 1, 2, 9, 1], [0, 0, 3, 3, 3, 3]])
    found, order = sort_segments(ids, 3)
    assert order.tolist() == [[2, 5, 0, 3, 1, 4], [2, 3, 4, 5, 0, 1]]
    assert found.ids.tolist() == [[1, 1, 2, 2, 4, 4], [3, 3, 3, 3, 4, 4]]
    assert found.lengths is not None and found.lengths.tolist() == [[2, 2, 0, 2], [0, 0, 4, 2]]


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX asks for the machine's cuDNN at tracing."""
    for name, answer in (
        ("check_cudnn_version", lambda: 91400),
        ("check_compute_capability", lambda capability: True),
        ("is_cuda_compute_capability_equal", lambda capability: capability == "9.0"),
    ):
        monkeypatch.setattr(attention_gpu.private(), name, answer)


def lowered(function: Any, *arguments: Any) -> str:
    """The program for a GPU that is not there."""
    return jax.jit(function).trace(*arguments).lower(lowering_platforms=("cuda",)).as_text()


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
@pytest.mark.parametrize(("n", "width"), [*((256, width) for width in WIDTHS), (225, 64), (128, 256)])
def test_cudnn_lowers_with_gradients(n: int, width: int, dtype: str) -> None:
    x, ids = jax.ShapeDtypeStruct((2, 3, n, width), dtype), jax.ShapeDtypeStruct((2, n), "int32")
    even = n + n % 2

    def packed(ids, *xs):
        return with_gradients(lambda *xs: cudnn_attention(*xs, sort_segments(ids, 4)[0]), *xs)

    def masked(ids, *xs):
        return with_gradients(lambda *xs: cudnn_attention(*xs, Segments(ids)), *xs)

    plain, packed_rows, mask = (
        lowered(function, *given)
        for function, given in (
            (lambda *xs: with_gradients(cudnn_attention, *xs), [x] * 4),
            (packed, [ids, *[x] * 4]),
            (masked, [ids, *[x] * 4]),
        )
    )
    for text in (plain, packed_rows):
        assert "__cudnn$fmhaSoftmax(" in text and "__cudnn$fmhaSoftmaxBackward" in text
        assert f"{even}x{even}" not in text
    assert f"tensor<10x3x{even}xf32>" in packed_rows  # a softmax of 4 segments and the rest in 2 rows
    assert "__cudnn$fmhaScaleBiasSoftmaxBackward" in mask
    assert f"2x3x{even}x{even}" not in mask  # heads share the mask


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize("segmented", [False, True])
@pytest.mark.parametrize(("remat", "runs"), [("none", 1), ("dots", 1), ("full", 2)])
def test_the_forward_pass_of_cudnn_runs_again_only_if_everything_does(remat: str, runs: int, segmented: bool) -> None:
    config = preset("tiny", compute="bfloat16", layers=2, remat=remat)
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))

    def loss_of(params, *inputs):
        found = encoder.apply(config, params, *inputs, n_segments=3 if segmented else None)
        return found.pooled.astype(jnp.float32).sum()

    inputs = [jax.ShapeDtypeStruct((2, 512, 588), "uint8"), jax.ShapeDtypeStruct((2, 512, 3), "int32")]
    ids = [jax.ShapeDtypeStruct((2, 512), "int32")] * segmented
    with tracing_for(H100):
        text = lowered(jax.grad(loss_of), params, *inputs, *ids)
    assert text.count("__cudnn$fmhaSoftmax(") == runs
    assert "512x512" not in text


@pytest.mark.parametrize("here", [H100, Machine("tpu")])
def test_forward_mode_passes_through_accelerators_programs_by_the_reference(here: Machine) -> None:
    config = EncoderConfig(layers=2, width=64, heads=2, mlp=128, attention="reference", remat="full")
    rng = np.random.default_rng(0)
    inputs = rng.normal(size=(1, 12, 588)).astype(np.float32), rng.integers(0, 16, (1, 12, 3))
    params, direction = (jax.jit(lambda key: encoder.init(config, key))(jax.random.key(i)) for i in range(2))

    def function(params: Any) -> jax.Array:
        return encoder.apply(config, params, *inputs).pooled.mean()

    with tracing_for(here):
        gradient, curvature = jax.jit(lambda *xs: jax.jvp(jax.grad(function), *xs))((params,), (direction,))
        _, slope = jax.jit(lambda *xs: jax.jvp(function, *xs))((params,), (direction,))
        _, linear = jax.linearize(jax.jit(function), params)
        moved = jax.jit(jax.grad(function))(jax.tree.map(lambda x, d: x + 1e-3 * d, params, direction))
    np.testing.assert_allclose(slope, sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction))), rtol=1e-3)
    np.testing.assert_allclose(linear(direction), slope, rtol=1e-3)
    change, got = (
        np.concatenate([np.ravel(x) for x in jax.tree.leaves(tree)])
        for tree in (jax.tree.map(lambda a, b: (a - b) / 1e-3, moved, gradient), curvature)
    )
    assert np.linalg.norm(change - got) < 0.1 * np.linalg.norm(got)


def test_forward_mode_is_refused_where_kernels_have_none() -> None:
    x = jnp.ones((1, 1, 128, 64), jnp.float32)
    with tracing_for(Machine("tpu")), pytest.raises(TypeError, match="forward-mode"):
        jax.jit(lambda x: jax.jvp(attention.attend, (x, x, x), (x, x, x))).trace(x).lower(lowering_platforms=("tpu",))
