"""Attention on GPUs and TPUs by the kernels that JAX brings: cuDNN, Pallas for Triton, Pallas splash.

The compiler cannot split the two Pallas kernels among devices; `_over_devices` tells it how (by batch and by head), whatever
the mesh is called. All were lowered for their machines and computed in Pallas' interpreter; none was timed.
"""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from ove.encoder.pallas_kernels import (
    LANES,
    Forward,
    splash_backward,
    splash_forward,
    triton_backward,
    triton_forward,
)

FILLING = -1
"""Segment of the tokens that fill up a sequence; nobody else's, as ids count from 0."""

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
    forward, backward = {"pallas": (triton_forward, triton_backward), "splash": (splash_forward, splash_backward)}[kind]
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
