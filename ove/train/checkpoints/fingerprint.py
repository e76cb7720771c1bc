"""A number for every array of a state, by which damage to a checkpoint is found; orbax itself notices no flipped bit."""

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped, UInt32

from ove.train.sharding import leaf_name


def fingerprints(tree: Any) -> dict[str, int]:
    """A 32-bit sum of every leaf, the same on any number of devices and processes, which any change of one value changes.

    The sum is of what each value's bits and its place are scrambled to, less what 0 would be there, and wraps at 2^32: no
    change of one value goes unnoticed, one in 2^32 of changes of several does, and zeros at the end do not count.
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
    key = place * jnp.uint32(2654435769)  # 2^32 over the golden ratio
    return jnp.sum(_scrambled(bits ^ key) - _scrambled(key), dtype=jnp.uint32)


def _scrambled(x: UInt32[Array, "..."]) -> UInt32[Array, "..."]:
    """One to one: shifts and products with odd numbers can be undone."""
    for shift, factor in ((16, 0x7FEB352D), (15, 0x846CA68B)):
        x = (x ^ (x >> shift)) * jnp.uint32(factor)
    return x ^ (x >> 16)
