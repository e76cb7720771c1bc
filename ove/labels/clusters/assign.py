"""Finds the nearest class centers of each sample: exactly, with sharded centers, block by block."""

from collections.abc import Iterator
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Int32

from ove.errors import ConfigError
from ove.labels.clusters.points import Points, as_points, unit
from ove.labels.clusters.search import (
    ROW_AXIS,
    ScoreDtype,
    Shape,
    put_blocks,
    put_rows,
    row_mesh,
    shard_mapped,
    similarities,
    tiles_of,
)


def nearest(
    points: Points | Float[np.ndarray, "N E"],
    centers: Float[np.ndarray, "k E"],
    m: int,
    mesh: Mesh | None = None,
    scores: ScoreDtype = "float32",
) -> Int32[np.ndarray, "N m"]:
    """Returns the m centers with the largest cosine to each point, nearest first, ties by index; −1 for points of zeros.

    Neither needs to have length 1. `mesh`: by default of all devices. ConfigError for more labels than centers.
    """
    found = np.empty((len(points), m), np.int32)
    for start, block in nearest_blocks(points, centers, m, mesh, scores):
        found[start : start + len(block)] = block
    return found


def nearest_blocks(
    points: Points | Float[np.ndarray, "N E"],
    centers: Float[np.ndarray, "k E"],
    m: int,
    mesh: Mesh | None = None,
    scores: ScoreDtype = "float32",
) -> Iterator[tuple[int, Int32[np.ndarray, "n m"]]]:
    """Yields `nearest` block by block with the index of the first point, for more points than fit into memory.

    All processes of the mesh must iterate, and get the same.
    """
    if not 1 <= m <= len(centers):
        raise ConfigError(f"labels.n_labels = {m} of {len(centers)} centers; ask for 1…{len(centers)} labels.")
    points, mesh = as_points(points), mesh or row_mesh()
    if not len(points):
        return
    shape = Shape(len(points), len(centers), mesh)
    step = _step(mesh, len(centers), shape.tile_points, shape.tile_centers, m, scores)
    # A point's length scales all its similarities, so their order stays.
    placed = put_rows(mesh, unit(centers), shape.padded_centers)
    before: tuple[int, Array] | None = None
    for start, block in put_blocks(mesh, points, shape.block_points):
        here = start, step(placed, block)
        if before is not None:  # fetched while the devices compute the next
            yield before[0], np.asarray(before[1])
        before = here
    if before is not None:
        yield before[0], np.asarray(before[1])[: len(points) - before[0]]


@lru_cache(maxsize=16)
def _step(mesh: Mesh, k: int, tile_points: int, tile_centers: int, m: int, scores: ScoreDtype) -> Any:
    rows = PartitionSpec(ROW_AXIS)

    @shard_mapped(mesh, (rows, rows), PartitionSpec())
    def step(centers: Array, block: Array) -> Array:
        tiles, real = tiles_of(block, tile_points)
        found = jax.lax.map(partial(_top_of_all, centers=centers, tile=tile_centers, k=k, m=m, scores=scores), tiles)
        found = jnp.where(real[..., None], found, -1)
        return rearrange(found, "tiles b m -> (tiles b) m")

    return jax.jit(step)


def _top_of_all(points_bE: Array, centers: Array, tile: int, k: int, m: int, scores: ScoreDtype) -> Int32[Array, "b m"]:
    """Merges the best m of each device; ties go to the lower index."""
    best, index = _top_of_mine(points_bE, centers, tile, k, m, scores)
    # Indices ascend over devices, and top_k takes the first of equals.
    best, index = (rearrange(jax.lax.all_gather(x, ROW_AXIS), "n b m -> b (n m)") for x in (best, index))
    return jnp.take_along_axis(index, jax.lax.top_k(best, m)[1], axis=1)


def _top_of_mine(
    points_bE: Array, centers_kE: Array, tile: int, k: int, m: int, scores: ScoreDtype
) -> tuple[Float[Array, "b m"], Int32[Array, "b m"]]:
    """Returns the best m of this device's centers, tile by tile; centers from k on (over all devices) are padding."""
    offset = (jax.lax.axis_index(ROW_AXIS) * len(centers_kE)).astype(jnp.int32)
    columns = jnp.arange(tile, dtype=jnp.int32)

    def step(best: tuple[Array, Array], here: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        centers_cE, first = here
        fresh = jnp.where(columns < k - first, similarities(points_bE, centers_cE, scores), -jnp.inf)
        # The ones found so far come first, for their indices are lower.
        cosine = jnp.concatenate([best[0], fresh], axis=1)
        index = jnp.concatenate([best[1], jnp.broadcast_to(first + columns, fresh.shape)], axis=1)
        top, where = jax.lax.top_k(cosine, m)
        return (top, jnp.take_along_axis(index, where, axis=1)), None

    start = jnp.full((len(points_bE), m), -jnp.inf), jnp.full((len(points_bE), m), k, jnp.int32)
    tiles = centers_kE.reshape(-1, tile, centers_kE.shape[1])
    firsts = offset + jnp.arange(0, len(centers_kE), tile, dtype=jnp.int32)
    return jax.lax.scan(step, start, (tiles, firsts))[0]
