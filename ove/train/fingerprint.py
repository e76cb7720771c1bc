"""A number for every array of a state, by which damage to a checkpoint is found; orbax itself notices no flipped bit."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32

from ove.train.sharding import leaf_name


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit sum of every leaf, the same on any number of devices, which every flipped bit changes.

    Bits are read as unsigned integers and weighted by an odd number that depends on the place; the sum wraps at 2^32.
    """
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    sums = _sums([leaf for _, leaf in leaves])
    return {leaf_name(path): int(total) for (path, _), total in zip(leaves, jax.device_get(sums), strict=True)}


@jax.jit
def _sums(leaves: list[Array]) -> list[Array]:
    return [_sum(leaf) for leaf in leaves]


def _sum(leaf: Shaped[Array, "..."]) -> UInt32[Array, ""]:
    unsigned = {1: jnp.uint8, 2: jnp.uint16, 4: jnp.uint32}[leaf.dtype.itemsize]
    bits = jax.lax.bitcast_convert_type(leaf, unsigned).astype(jnp.uint32)
    place = jnp.zeros(leaf.shape, jnp.uint32)
    for axis in range(leaf.ndim):
        place = place * jnp.uint32(leaf.shape[axis]) + jax.lax.broadcasted_iota(jnp.uint32, leaf.shape, axis)
    return jnp.sum(bits * (place * jnp.uint32(2654435761) * 2 + 1), dtype=jnp.uint32)
