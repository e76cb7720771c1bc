"""One pass of k-means: all points, block by block, against sharded centers."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float32, Int32

from ove.distributed import gather_to_host
from ove.labels.clusters.points import Points, unit
from ove.labels.clusters.search import (
    ROW_AXIS,
    ScoreDtype,
    Shape,
    nearest_of_all,
    nearest_of_mine,
    put_blocks,
    put_rows,
    shard_mapped,
    tiles_of,
)

_SPLIT = 1e-3
"""Distance of the two halves of a split cluster from its center."""
_ALIKE = 1e-6
"""A cluster whose worst point has 1 − cosine below this cannot be split."""
_UNDER_WAY = 2
"""Most blocks in flight on the devices."""
_NO_POINT = np.iinfo(np.int32).max


@dataclass(frozen=True)
class Pass:
    """Statistics of a pass over all points, for each center."""

    sums: Float32[np.ndarray, "k E"]
    """Sum of its points, each scaled to length 1."""
    sizes: Int32[np.ndarray, "k"]
    """Number of its points; points of zeros belong to none."""
    cosines: Float32[np.ndarray, "k"]
    """Sum of the cosines of its points."""
    worst: Int32[np.ndarray, "k"]
    """Its point with the smallest cosine, the first of equals; undefined without points."""
    worst_cosine: Float32[np.ndarray, "k"]

    @property
    def count(self) -> int:
        """Number of points that are not zero."""
        return int(self.sizes.sum(dtype=np.int64))

    @property
    def objective(self) -> float:
        """Mean of 1 − cosine with the nearest center."""
        return 1 - float(self.cosines.sum(dtype=np.float64)) / max(1, self.count)

    @property
    def imbalance(self) -> float:
        """k · Σ size² / (Σ size)²: 1 for clusters of equal size, k if all points are in one."""
        return len(self.sizes) * float(np.square(self.sizes, dtype=np.float64).sum()) / max(1, self.count) ** 2

    @property
    def empty(self) -> int:
        """Centers without points."""
        return int((self.sizes == 0).sum())


def assign_pass(
    points: Points,
    centers_kE: Float32[np.ndarray, "k E"],
    mesh: Mesh,
    scores: ScoreDtype,
    progress: Callable[[int], None] = lambda done: None,
) -> Pass:
    """Assigns every point to its nearest center (ties: the lower index), and sums them up.

    Each device holds its shard of the centers and sums, and one block of points at a time. All processes of the mesh must call
    it, and get the same. `progress(done)` counts points.
    """
    k, width = centers_kE.shape
    shape = Shape(len(points), k, mesh)
    step = _step(mesh, k, shape.tile_points, shape.tile_centers, scores)
    centers = put_rows(mesh, centers_kE, shape.padded_centers)
    found = tuple(
        put_rows(mesh, array, shape.padded_centers)
        for array in (
            np.zeros((0, width), np.float32),
            np.zeros(0, np.int32),
            np.zeros(0, np.float32),
            np.full(shape.padded_centers, _NO_POINT, np.int32),
            np.full(shape.padded_centers, np.inf, np.float32),
        )
    )
    under_way: list[tuple[int, Array]] = []
    for start, block in put_blocks(mesh, points, shape.block_points):
        found, first = step(centers, found, block, np.int32(start))
        under_way.append((min(start + shape.block_points, len(points)), first))
        if len(under_way) > _UNDER_WAY:  # otherwise all points would queue on the devices
            done, first = under_way.pop(0)
            first.block_until_ready()
            progress(done)
    return Pass(*(gather_to_host(mesh, array)[:k] for array in found))


@lru_cache(maxsize=16)
def _step(mesh: Mesh, k: int, tile_points: int, tile_centers: int, scores: ScoreDtype) -> Any:
    rows, everywhere = PartitionSpec(ROW_AXIS), PartitionSpec()

    @shard_mapped(mesh, (rows, (rows,) * 5, rows, everywhere), ((rows,) * 5, everywhere))
    def step(centers: Array, found: tuple[Array, ...], block: Array, first: Array) -> tuple[tuple[Array, ...], Array]:
        offset = jax.lax.axis_index(ROW_AXIS) * len(centers)
        tiles, real = tiles_of(block, tile_points)
        firsts = first + jnp.arange(0, tiles.shape[0] * tile_points, tile_points, dtype=jnp.int32)

        def one(found: tuple[Array, ...], tile: tuple[Array, Array, Array]) -> tuple[tuple[Array, ...], None]:
            points_bE, real_b, first = tile
            cosine_b, nearest_b = nearest_of_all(*nearest_of_mine(points_bE, centers, tile_centers, k, scores))
            mine = real_b & (nearest_b >= offset) & (nearest_b < offset + len(centers))
            return _add(found, points_bE, cosine_b, jnp.where(mine, nearest_b - offset, len(centers)), first), None

        found = jax.lax.scan(one, found, (tiles, real, firsts))[0]
        return found, first + 1  # to wait for; `found` is donated to the next step

    return jax.jit(step, donate_argnums=1)


def _add(found: tuple[Array, ...], points_bE: Array, cosine_b: Array, place_b: Array, first: Array) -> tuple[Array, ...]:
    """Adds points to the rows `place_b` of a device's sums; a place beyond the last row belongs to another device."""
    sums, sizes, cosines, worst, worst_cosine = found
    sums = sums.at[place_b].add(points_bE, mode="drop")
    sizes = sizes.at[place_b].add(1, mode="drop")
    cosines = cosines.at[place_b].add(cosine_b, mode="drop")
    lowest = worst_cosine.at[place_b].min(cosine_b, mode="drop")
    # The first point at the new minimum, found by a second minimum, for scatters have no order.
    worst = jnp.where(lowest < worst_cosine, _NO_POINT, worst)
    is_lowest = cosine_b == lowest.at[place_b].get(mode="fill", fill_value=jnp.nan)
    number_b = first + jnp.arange(len(cosine_b), dtype=jnp.int32)
    worst = worst.at[jnp.where(is_lowest, place_b, len(sizes))].min(number_b, mode="drop")
    return sums, sizes, cosines, worst, lowest


def update_centers(found: Pass, centers_kE: Float32[np.ndarray, "k E"], points: Points) -> Float32[np.ndarray, "k E"]:
    """Returns the mean directions after a pass; a center without points takes half of the next largest cluster.

    The halves start on both sides of that cluster's center, along the direction to its worst point. A center stays if its
    points cancel out, or if it has none and no cluster is left to split.
    """
    cancels = np.linalg.norm(found.sums, axis=1, keepdims=True) < 1e-12
    centers = unit(np.where(cancels, centers_kE, found.sums))
    empty = np.flatnonzero(found.sizes == 0)
    if len(empty):
        donors = np.argsort(-found.sizes, kind="stable")
        donors = donors[(found.sizes[donors] > 1) & (found.worst_cosine[donors] < 1 - _ALIKE)][: len(empty)]
        empty = empty[: len(donors)]
        center = centers[donors]
        away = unit(points.rows(found.worst[donors]))
        away = unit(away - (away * center).sum(1, keepdims=True) * center)
        centers[empty], centers[donors] = unit(center + _SPLIT * away), unit(center - _SPLIT * away)
    return centers
