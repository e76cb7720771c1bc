"""Attention on GPUs and TPUs by the kernels that JAX brings: cuDNN, Pallas for Triton, Pallas splash.

The compiler cannot split the two Pallas kernels among devices; `_over_devices` tells it how (by batch and by head), whatever
the mesh is called. All were lowered for their machines and computed in Pallas' interpreter; none was timed.
"""

import functools
import importlib
import warnings
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.custom_partitioning import custom_partitioning
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_kernel as splash_kernel
from jax.experimental.pallas.ops.tpu.splash_attention import splash_attention_mask_info as splash_mask_info
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

with warnings.catch_warnings():
    # jax 0.11 recommends another package instead, which has no segment ids yet.
    warnings.simplefilter("ignore", DeprecationWarning)
    triton_kernel = importlib.import_module("jax.experimental.pallas.ops.gpu.attention")

LANES = 128
"""Both Pallas kernels take whole blocks of tokens; sequences are filled up to a multiple of this."""
FILLING = -1
"""Segment of the tokens that fill up a sequence; nobody else's, as ids count from 0."""

Forward = tuple[Array, Array]
Heads = Float[Array, "B A N K"]


def cudnn_attention(q: Heads, k: Heads, v: Heads) -> Heads:
    """Attention of all tokens to all by cuDNN, bfloat16 or float16; CUDA only, where it is traced on such a machine."""
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    return rearrange(jax.nn.dot_product_attention(q, k, v, implementation="cudnn"), "b n a k -> b a n k")


def pallas_attention(
    q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B N"] | None = None, *, interpret: bool = False
) -> Heads:
    """Attention within segments by the Triton kernel of `jax.experimental.pallas`; CUDA, or anywhere if interpreted."""
    return _filled("pallas", q, k, v, segment_ids, interpret)


def splash_attention(
    q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B N"] | None = None, *, interpret: bool = False
) -> Heads:
    """Attention within segments by the splash kernel of `jax.experimental.pallas`; TPU, or anywhere if interpreted."""
    return _filled("splash", q, k, v, segment_ids, interpret)


def _filled(kind: str, q: Array, k: Array, v: Array, segment_ids: Array | None, interpret: bool) -> Array:
    """The kernel on sequences filled up to whole blocks."""
    batch, _, n, _ = q.shape
    lacking = -n % LANES
    if lacking:
        segment_ids = jnp.zeros((batch, n), jnp.int32) if segment_ids is None else segment_ids
        segment_ids = jnp.pad(segment_ids, ((0, 0), (0, lacking)), constant_values=FILLING)
        q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, lacking), (0, 0))) for x in (q, k, v))
    ids = () if segment_ids is None else (segment_ids.astype(jnp.int32),)
    return _differentiable(kind, interpret, q, k, v, *ids)[:, :, :n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _differentiable(kind: str, interpret: bool, q: Array, k: Array, v: Array, *ids: Array) -> Array:
    return _kernels(kind, interpret, bool(ids))[0](q, k, v, *ids)[0]


def _forward(kind: str, interpret: bool, q: Array, k: Array, v: Array, *ids: Array) -> tuple[Array, tuple[Any, ...]]:
    out, log_total = _kernels(kind, interpret, bool(ids))[0](q, k, v, *ids)
    # Named, so that a policy of jax.checkpoint can keep them and need not run the kernel again.
    out, log_total = checkpoint_name(out, "attention"), checkpoint_name(log_total, "attention")
    return out, (q, k, v, *ids, out, log_total)


def _backward(kind: str, interpret: bool, kept: tuple[Array, ...], d_out: Array) -> tuple[Array | None, ...]:
    q, k, v, *ids, out, log_total = kept
    gradients = _kernels(kind, interpret, bool(ids))[1](q, k, v, *ids, out, log_total, d_out.astype(out.dtype))
    return *gradients, *(None for _ in ids)


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _kernels(kind: str, interpret: bool, segmented: bool) -> tuple[Callable[..., Forward], Callable[..., tuple[Array, ...]]]:
    """(q, k, v, ids) → (out, log of the softmax's denominator), and (q, k, v, ids, out, log, d_out) → (dq, dk, dv)."""
    forward, backward = {"pallas": (_pallas_forward, _pallas_backward), "splash": (_splash_forward, _splash_backward)}[kind]
    heads, ids = ["b a n k"], ["b n"] * segmented
    # A custom_partitioning cannot take None, nor the keyword.
    return (
        _over_devices(functools.partial(forward, interpret), [*heads * 3, *ids], [*heads, "b a n"]),
        _over_devices(functools.partial(backward, interpret), [*heads * 3, *ids, *heads, "b a n", *heads], heads * 3),
    )


def _over_devices(function: Callable, operands: list[str], results: list[str]) -> custom_partitioning:
    """`function`, computed by each device on its own samples and heads; tokens are brought together."""

    def partition(mesh: Any, arguments: Any, outputs: Any) -> Any:
        batch, heads = (*arguments[0].sharding.spec, None, None)[:2]
        split = {"b": batch, "a": heads}

        def placed(arrays: list[str]) -> tuple[NamedSharding, ...]:
            return tuple(NamedSharding(mesh, PartitionSpec(*(split.get(axis) for axis in x.split()))) for x in arrays)

        return mesh, function, placed(results), placed(operands)

    shared = custom_partitioning(function)
    rule = f"{', '.join(operands)} -> {', '.join(results)}"
    shared.def_partition(partition, sharding_rule=rule, need_replication_factors=("n", "k"))
    return shared


def _triton_options(n: int, head_width: int, interpret: bool) -> dict[str, Any]:
    backward = 64 if head_width <= 64 else 32
    sizes = triton_kernel.BlockSizes(
        block_q=LANES, block_k=LANES, block_q_dkv=backward, block_kv_dkv=backward, block_q_dq=backward, block_kv_dq=backward
    )
    return {"sm_scale": head_width**-0.5, "block_sizes": sizes, "interpret": interpret}


def _pallas_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> Forward:
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    out, log_total = triton_kernel.mha(q, k, v, ids, **options, return_residuals=True)
    return rearrange(out, "b n a k -> b a n k"), log_total


def _pallas_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    q, k, v, *ids, out, log_total, d_out = arrays
    q, k, v, out, d_out = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v, out, d_out))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    kept = (q, k, v, ids[0] if ids else None, out, log_total)
    # The kernel's own backward pass; its other arguments are causal, …, num_warps, num_stages, grid, …, debug, residuals.
    gradients = triton_kernel.mha.bwd(
        options["sm_scale"], False, options["block_sizes"], "triton", None, 2, None, interpret, False, False, kept, d_out
    )
    return tuple(rearrange(x, "b n a k -> b a n k") for x in gradients[:3])


def _splash(n: int, interpret: bool) -> Any:
    """The splash kernel for one sample: no mask but the segments, blocks as large as divide N."""
    block = max(size for size in (128, 256, 512) if n % size == 0)
    sizes = splash_kernel.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    # No information on masks at all: every block is computed. What make_splash_mha derives from a mask that allows everything
    # is constant arrays, which a function that is split among devices may not hold.
    unmasked = splash_mask_info.MaskInfo(*[None] * len(splash_mask_info.MaskInfo._fields))
    return splash_kernel.SplashAttentionKernel(
        unmasked,
        unmasked,
        unmasked,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=True,
        mask_value=splash_kernel.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=None,
        interpret=interpret,
    )


def _splash_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> Forward:
    kernel = _splash(q.shape[2], interpret)
    q = q * q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None) -> Forward:
        out, (log_total,) = kernel(q, k, v, None if ids is None else splash_kernel.SegmentIds(ids, ids))
        return out, log_total

    return jax.vmap(of_sample)(q, k, v, ids)


def _splash_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    q, k, v, *ids, out, log_total, d_out = arrays
    kernel = _splash(q.shape[2], interpret)
    options = kernel.kwargs | {"save_residuals": False}
    scale = q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None, out: Array, log_total: Array, d_out: Array) -> Any:
        segments = None if ids is None else splash_kernel.SegmentIds(ids, ids)
        kept = (q, k, v, segments, None, out, log_total, kernel.dq_mask_info, kernel.dkv_mask_info)
        return splash_kernel._splash_attention_bwd(**options, res=kept, do=d_out)[3:6]

    dq, dk, dv = jax.vmap(of_sample)(q * scale, k, v, ids[0] if ids else None, out, log_total, d_out)
    return dq * scale, dk, dv
