"""The nearest class centers of each sample, in blocks of samples and of centers."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from ove.errors import ConfigError

BLOCK = 4096
"""Samples, and centers, compared at once: BLOCK² similarities is the largest array made."""


def nearest(points: Float[np.ndarray, "N E"], centers: Float[np.ndarray, "k E"], m: int) -> Int32[np.ndarray, "N m"]:
    """The indices of the m centers with the largest cosine to each point, nearest first, ties by index.

    Neither needs to have length 1. More labels than centers raise ConfigError.
    """
    if not 1 <= m <= len(centers):
        raise ConfigError(f"labels.n_labels = {m} of {len(centers)} centers; ask for 1…{len(centers)} labels.")
    # The length of a point changes all its similarities alike, hence not their order.
    unit_KE = _unit(np.asarray(centers, np.float32))
    found = np.empty((len(points), m), np.int32)
    for start in range(0, len(points), BLOCK):
        block_bE = _unit(np.asarray(points[start : start + BLOCK], np.float32))
        best = jnp.full((len(block_bE), m), -jnp.inf), jnp.zeros((len(block_bE), m), jnp.int32)
        for first in range(0, len(unit_KE), BLOCK):
            best = _merge(*best, jnp.asarray(block_bE), jnp.asarray(unit_KE[first : first + BLOCK]), first, m)
        found[start : start + BLOCK] = np.asarray(best[1])
    return found


@functools.partial(jax.jit, static_argnums=5)
def _merge(
    cosine_bM: Float32[Array, "b m"],
    index_bM: Int32[Array, "b m"],
    block_bE: Float32[Array, "b E"],
    centers_CE: Float32[Array, "c E"],
    first: int | Int32[Array, ""],
    m: int,
) -> tuple[Float32[Array, "b m"], Int32[Array, "b m"]]:
    """The best m of those found so far and a block of centers, the first of which has the index `first`."""
    fresh_bC = jnp.dot(block_bE, centers_CE.T, precision=jax.lax.Precision.HIGHEST)
    # Those found so far have lower indices and stand before the new ones; top_k takes the first of equals.
    cosine = jnp.concatenate([cosine_bM, fresh_bC], axis=1)
    fresh_index = jnp.broadcast_to(first + jnp.arange(len(centers_CE), dtype=jnp.int32), fresh_bC.shape)
    index = jnp.concatenate([index_bM, fresh_index], axis=1)
    best, where = jax.lax.top_k(cosine, m)
    return best, jnp.take_along_axis(index, where, axis=1)


def _unit(rows: Float32[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    length = np.linalg.norm(rows, axis=1, keepdims=True)
    return rows / np.where(length > 0, length, 1).astype(np.float32)
