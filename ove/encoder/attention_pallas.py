"""What Pallas kernels of attention need around them: whole blocks of tokens, a gradient, and a way to share work among devices.

The compiler cannot split a Pallas kernel among devices; `_over_devices` tells it how (by batch and by head), whatever the mesh
is called.
"""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jax.experimental.custom_partitioning import custom_partitioning
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

LANES = 128
"""Kernels take whole blocks of tokens: a multiple of this."""
FILLING = -1
"""Segment of the tokens that fill up a sequence; nobody else's, as ids count from 0."""

Heads = Float[Array, "B A N K"]


class Kernel(NamedTuple):
    """The two passes of a kernel; `interpret` runs them in Pallas' interpreter, on any machine."""

    forward: Callable[..., tuple[Array, Array]]
    """(interpret, q, k, v, segment ids if any) → the means of the values, the log of the softmax's denominator (B, A, N)."""
    backward: Callable[..., tuple[Array, ...]]
    """(interpret, q, k, v, segment ids if any, both results, gradient of the first) → gradients of q, k, v."""

    def attend(self, q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B N"] | None, interpret: bool = False) -> Heads:
        """Computes attention within segments, for any number of tokens."""
        batch, _, n, _ = q.shape
        lacking = -n % LANES
        if lacking:
            segment_ids = jnp.zeros((batch, n), jnp.int32) if segment_ids is None else segment_ids
            segment_ids = jnp.pad(segment_ids, ((0, 0), (0, lacking)), constant_values=FILLING)
            q, k, v = (jnp.pad(x, ((0, 0), (0, 0), (0, lacking), (0, 0))) for x in (q, k, v))
        ids = () if segment_ids is None else (segment_ids.astype(jnp.int32),)
        return _differentiable(self, interpret, q, k, v, *ids)[:, :, :n]


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _differentiable(kernel: Kernel, interpret: bool, q: Array, k: Array, v: Array, *ids: Array) -> Array:
    return _shared(kernel, interpret, bool(ids)).forward(q, k, v, *ids)[0]


def _forward(kernel: Kernel, interpret: bool, q: Array, k: Array, v: Array, *ids: Array) -> tuple[Array, tuple[Any, ...]]:
    out, log_total = _shared(kernel, interpret, bool(ids)).forward(q, k, v, *ids)
    # Named, so that a policy of jax.checkpoint can keep them and need not run the kernel again.
    out, log_total = checkpoint_name(out, "attention"), checkpoint_name(log_total, "attention")
    return out, (q, k, v, *ids, out, log_total)


def _backward(kernel: Kernel, interpret: bool, kept: tuple[Array, ...], d_out: Array) -> tuple[Array | None, ...]:
    q, k, v, *ids, out, log_total = kept
    gradients = _shared(kernel, interpret, bool(ids)).backward(q, k, v, *ids, out, log_total, d_out.astype(out.dtype))
    return *gradients, *(None for _ in ids)


_differentiable.defvjp(_forward, _backward)


@functools.cache
def _shared(kernel: Kernel, interpret: bool, segmented: bool) -> Kernel:
    """Returns the kernel without its argument `interpret`; each device computes its samples and heads."""
    heads, ids = ["b a n k"], ["b n"] * segmented
    # A custom_partitioning cannot take None, nor the keyword.
    return Kernel(
        _over_devices(functools.partial(kernel.forward, interpret), [*heads * 3, *ids], [*heads, "b a n"]),
        _over_devices(functools.partial(kernel.backward, interpret), [*heads * 3, *ids, *heads, "b a n", *heads], heads * 3),
    )


def _over_devices(function: Callable, operands: list[str], results: list[str]) -> custom_partitioning:
    """Applies `function` on each device to its own samples and heads; tokens are all-gathered."""

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
