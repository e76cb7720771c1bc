"""The kernels for GPUs and TPUs, as far as a CPU can tell: computed in Pallas' interpreter, and lowered for their machines."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AbstractDevice, AbstractMesh, NamedSharding, PartitionSpec, use_abstract_mesh

from ove.encoder import attention, attention_tpu, encoder
from ove.encoder.attention_gpu import cudnn_attention, pallas_attention
from ove.encoder.attention_tpu import splash_attention
from ove.encoder.machine import Machine, tracing_for
from ove.encoder.presets import preset

PALLAS = pytest.mark.parametrize("kernel", [pallas_attention, splash_attention])


def problem(batch: int, heads: int, n: int, width: int, dtype: str = "float32") -> list[jax.Array]:
    """q, k, v, and the gradient of the result."""
    return [jax.random.normal(jax.random.key(i), (batch, heads, n, width)).astype(dtype) for i in range(4)]


def segments(batch: int, n: int) -> jax.Array:
    """Rows of segments 1 … 3 with padding behind, of other lengths in each row."""
    edges = np.sort(np.random.default_rng(0).integers(0, n, (batch, 3)), axis=1)
    ids = 1 + (np.arange(n)[None, :, None] >= edges[:, None]).sum(-1)
    return jnp.asarray(np.where(ids == 4, 0, ids).astype(np.int32))


def with_gradients(function: Callable, q, k, v, d_out) -> list[jax.Array]:
    out, pull = jax.vjp(function, q, k, v)
    return [out, *pull(d_out)]


def assert_equal(got: list[jax.Array], expected: list[jax.Array], atol: float = 1e-5) -> None:
    for a, b in zip(got, expected, strict=True):
        np.testing.assert_allclose(a.astype(jnp.float32), b.astype(jnp.float32), atol=atol)


@PALLAS
# 256: whole blocks; 200: filled up; the second head width is none of a power of two.
@pytest.mark.parametrize(("n", "width", "segmented"), [(256, 64, True), (200, 32, False), (72, 96, True)])
def test_kernels_equal_the_reference_with_gradients(kernel: Callable, n: int, width: int, segmented: bool) -> None:
    arrays = problem(2, 1, n, width)
    ids = segments(2, n) if segmented else None
    got = jax.jit(lambda *xs: with_gradients(lambda q, k, v: kernel(q, k, v, ids, interpret=True), *xs))(*arrays)
    assert_equal(got, with_gradients(lambda q, k, v: attention.reference(q, k, v, ids), *arrays))


@pytest.mark.parametrize(
    ("n", "width", "dtype", "segmented"),
    [(2048, 64, "bfloat16", False), (2048, 72, "float32", True), (640, 128, "float32", True)],
)
def test_splash_in_few_and_in_many_blocks_equals_the_reference(n: int, width: int, dtype: str, segmented: bool) -> None:
    arrays = problem(1, 1, n, width, dtype)
    ids = segments(1, n) if segmented else None
    got = jax.jit(lambda *xs: with_gradients(lambda q, k, v: splash_attention(q, k, v, ids, interpret=True), *xs))(*arrays)
    exact = with_gradients(lambda q, k, v: attention.reference(q, k, v, ids), *(x.astype(jnp.float32) for x in arrays))
    assert attention_tpu._splash(n, True).kwargs["block_sizes"].use_fused_bwd_kernel == (n == 2048)  # 2 blocks; 5 of 128
    assert_equal(got, exact, atol=1e-5 if dtype == "float32" else 0.02)


@PALLAS
def test_bfloat16_stays_bfloat16(kernel: Callable) -> None:
    arrays = problem(1, 2, 128, 64, "bfloat16")
    got = jax.jit(lambda *xs: with_gradients(lambda q, k, v: kernel(q, k, v, interpret=True), *xs))(*arrays)
    assert all(x.dtype == jnp.bfloat16 for x in got)
    assert_equal(got, with_gradients(attention.reference, *arrays), atol=0.05)


@PALLAS
def test_devices_share_batch_and_heads(kernel: Callable) -> None:
    mesh = jax.make_mesh((4, 2), ("some", "names"))
    heads, rows = (NamedSharding(mesh, PartitionSpec(*places)) for places in (("some", "names"), ("some",)))
    arrays, ids = problem(4, 2, 128, 32), segments(4, 128)

    def function(ids, *xs):
        return with_gradients(lambda q, k, v: kernel(q, k, v, ids, interpret=True), *xs)

    compiled = jax.jit(function, in_shardings=(rows, *[heads] * 4)).lower(ids, *arrays).compile()
    assert "all-gather" not in compiled.as_text()
    got = compiled(jax.device_put(ids, rows), *jax.device_put(arrays, heads))
    assert all(x.sharding.is_equivalent_to(heads, 4) for x in got)
    assert_equal(got, with_gradients(lambda q, k, v: attention.reference(q, k, v, ids), *arrays))


def lowered(function: Callable, platform: str, *arguments: jax.ShapeDtypeStruct) -> str:
    """The program for a machine that is not there; the Triton kernel asks which GPU it is for."""
    h100 = AbstractDevice("NVIDIA H100 80GB HBM3", None, "gpu")
    with use_abstract_mesh(AbstractMesh((), (), abstract_device=h100 if platform == "cuda" else None)):
        return jax.jit(function).trace(*arguments).lower(lowering_platforms=(platform,)).as_text()


@pytest.mark.parametrize(("kernel", "platform"), [(pallas_attention, "cuda"), (splash_attention, "tpu")])
@pytest.mark.parametrize(("n", "width"), [(256, 64), (331, 32), (384, 128), (1024, 96), (2048, 64), (4096, 64)])
def test_kernels_lower_for_their_machines(kernel: Callable, platform: str, n: int, width: int) -> None:
    x = jax.ShapeDtypeStruct((2, 3, n, width), jnp.bfloat16)
    ids = jax.ShapeDtypeStruct((2, n), jnp.int32)
    for function, arguments in ((kernel, (x, x, x, x)), (lambda *xs, i: kernel(*xs, i), (x, x, x, x, ids))):
        text = lowered(
            lambda q, k, v, d, *i, f=function: with_gradients(lambda *xs: f(*xs, **({"i": i[0]} if i else {})), q, k, v, d),
            platform,
            *arguments,
        )
        assert text.count("stablehlo.custom_call") >= 2
        assert f"{n}x{n}" not in text


@pytest.fixture
def cudnn(monkeypatch: pytest.MonkeyPatch) -> None:
    """JAX asks for the machine's cuDNN at tracing."""
    checks = pytest.importorskip("jax._src.cudnn.fused_attention_stablehlo")
    monkeypatch.setattr(checks, "check_cudnn_version", lambda: 91000)
    monkeypatch.setattr(checks, "check_compute_capability", lambda capability: True)


@pytest.mark.usefixtures("cudnn")
def test_cudnn_lowers_without_a_mask() -> None:
    x = jax.ShapeDtypeStruct((2, 3, 256, 64), jnp.bfloat16)
    text = lowered(lambda *xs: with_gradients(cudnn_attention, *xs), "cuda", x, x, x, x)
    assert "__cudnn$fmhaSoftmax(" in text and "__cudnn$fmhaSoftmaxBackward" in text
    assert "256x256" not in text


def training_program(platform: str, segmented: bool, **overrides: Any) -> str:
    """The gradient of an encoder of two layers, lowered for a machine."""
    config = preset("tiny", compute="bfloat16", layers=2, **overrides)
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))

    def loss_of(params, patches, positions, *ids):
        found = encoder.apply(config, params, patches, positions, *ids, n_segments=3 if segmented else None)
        return found.pooled.astype(jnp.float32).sum()

    patches, positions = jax.ShapeDtypeStruct((2, 512, 588), jnp.uint8), jax.ShapeDtypeStruct((2, 512, 3), jnp.int32)
    ids = [jax.ShapeDtypeStruct((2, 512), jnp.int32)] * segmented
    with tracing_for(Machine(platform, 9.0)):
        return lowered(jax.grad(loss_of), platform, params, patches, positions, *ids)


@pytest.mark.parametrize("platform", ["cuda", "tpu"])
def test_training_a_packed_encoder_lowers(platform: str) -> None:
    text = training_program(platform, segmented=True, remat="dots")
    assert text.count("stablehlo.custom_call") >= 2
    assert "512x512" not in text


@pytest.mark.usefixtures("cudnn")
@pytest.mark.parametrize(("remat", "runs"), [("none", 1), ("dots", 1), ("full", 2)])
def test_the_forward_pass_of_cudnn_runs_again_only_if_everything_does(remat: str, runs: int) -> None:
    assert training_program("cuda", segmented=False, remat=remat).count("__cudnn$fmhaSoftmax(") == runs
