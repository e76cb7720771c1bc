"""Finds duplicates by equal pixels or similar embeddings, and keeps one sample of each set."""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import lru_cache, partial
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float32, Int64, UInt64
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from ove.labels.clusters.assign import nearest
from ove.labels.clusters.kmeans import kmeans
from ove.labels.clusters.points import Points, unit
from ove.labels.clusters.search import ROW_AXIS, put_rows, row_mesh

SAMPLES_A_CELL = 200_000
"""Default size of a cell; up to twice as many samples are compared all with all."""
_BLOCK = 4096
"""Rows and columns of a block of cosines."""
_CELL_SAMPLE = 256
"""Samples per cell that the cells are clustered from."""
_ITERATIONS = 8


@dataclass(frozen=True)
class Duplicates:
    """The duplicates among N samples."""

    pairs: Int64[np.ndarray, "P 2"]
    """Similar samples, the lower index first; equal ones form a chain."""
    cosines: Float32[np.ndarray, "P"]
    """Cosine of each pair; 1 for equal pixels."""
    sets: list[Int64[np.ndarray, "_"]]
    """Connected components of two or more samples, largest first; in each the kept sample, then the others, ascending."""
    keep: Bool[np.ndarray, "N"]
    """False for all but the first of each set."""


def find_duplicates(
    points: Points,
    hashes: UInt64[np.ndarray, "N 2"],
    pixels: Int64[np.ndarray, "N"],
    threshold: float | None,
    cells: int = 0,
    seed: int = 0,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> Duplicates:
    """Joins samples of equal hashes and, unless `threshold` is None, of at least that cosine, and keeps one of each set.

    Kept is the one with the most `pixels`, then of the lowest index. With one cell all pairs are compared; with several
    `cells` (0: one for every 200,000 samples) only those that share one of their two nearest cluster centers. Samples of zeros
    have no near-duplicates. `progress(done, total)` counts samples. `mesh`: devices of this process, by default all of them.
    """
    equal = _equal(hashes)
    found = [(equal, np.ones(len(equal), np.float32))]
    if threshold is not None:
        cells, mesh = cells or -(-len(points) // SAMPLES_A_CELL), mesh or row_mesh(jax.local_devices())
        found += _near(points, threshold, cells, seed, mesh, progress)
    pairs = np.concatenate([p for p, _ in found])
    cosines = np.concatenate([c for _, c in found])
    pairs, first = np.unique(pairs, axis=0, return_index=True)  # cells overlap
    sets = _sets(pairs, pixels)
    keep = np.ones(len(points), bool)
    for members in sets:
        keep[members[1:]] = False
    return Duplicates(pairs, cosines[first], sets, keep)


def _equal(hashes: UInt64[np.ndarray, "N 2"]) -> Int64[np.ndarray, "P 2"]:
    """Returns neighbours in a chain through all samples of equal hash."""
    order = np.lexsort((np.arange(len(hashes)), hashes[:, 1], hashes[:, 0]))
    same = (hashes[order[1:]] == hashes[order[:-1]]).all(1)
    return np.stack([order[:-1][same], order[1:][same]], axis=1).astype(np.int64)


def _sets(pairs: Int64[np.ndarray, "P 2"], pixels: Int64[np.ndarray, "N"]) -> list[Int64[np.ndarray, "_"]]:
    graph = coo_array((np.ones(len(pairs), bool), (pairs[:, 0], pairs[:, 1])), shape=(len(pixels), len(pixels)))
    _, component = connected_components(graph, directed=False)
    involved = np.unique(pairs)
    order = involved[np.lexsort((involved, component[involved]))]
    sets = np.split(order, np.flatnonzero(np.diff(component[order])) + 1) if len(order) else []

    def best_first(members: np.ndarray) -> np.ndarray:
        best = members[np.argmax(pixels[members])]  # the first of equals, for members ascend
        return np.concatenate([[best], members[members != best]])

    return sorted(map(best_first, sets), key=lambda members: (-len(members), int(members[0])))


def _near(
    points: Points, threshold: float, cells: int, seed: int, mesh: Mesh, progress: Callable[[int, int], None]
) -> Iterator[tuple[Int64[np.ndarray, "P 2"], Float32[np.ndarray, "P"]]]:
    groups = [np.arange(len(points))] if cells < 2 else _cells(points, cells, seed, mesh)
    total, done = sum(map(len, groups)), 0

    def tell(n: int) -> None:
        progress(done + n, total)

    for group in groups:
        yield from _within(points.subset(group), group, threshold, mesh, tell)
        done += len(group)


def _cells(points: Points, cells: int, seed: int, mesh: Mesh) -> list[Int64[np.ndarray, "_"]]:
    """Returns for each cell the samples that have it among their two nearest."""
    some = np.unique(np.linspace(0, len(points) - 1, min(len(points), _CELL_SAMPLE * cells)).astype(np.int64))
    centers = kmeans(points.subset(some), cells, _ITERATIONS, seed, mesh=mesh).centers
    two = nearest(points, centers, 2, mesh)
    order = np.argsort(two, axis=None, kind="stable")
    ends = np.searchsorted(two.ravel()[order], np.arange(1, cells))
    return [np.sort(part // 2) for part in np.split(order, ends)]


def _within(
    points: Points, index: Int64[np.ndarray, "n"], threshold: float, mesh: Mesh, progress: Callable[[int], None]
) -> Iterator[tuple[Int64[np.ndarray, "P 2"], Float32[np.ndarray, "P"]]]:
    """Yields all pairs of points whose cosine reaches the threshold, block against block, as indices `index`."""
    n = mesh.devices.size
    block = min(_BLOCK, -(-len(points) // n) * n)
    compare, everywhere = _compare(mesh), NamedSharding(mesh, PartitionSpec())
    for row, rows in points.blocks(block):
        left = unit(rows)
        placed = put_rows(mesh, left)
        for column in range(row, len(points), block):
            right = left if column == row else unit(points.block(column, block))
            cosine, alike = compare(placed, jax.device_put(right, everywhere), np.float32(threshold), np.int32(row - column))
            if alike:  # rarely; only then are the cosines fetched
                found = np.asarray(cosine)
                a, b = np.nonzero(found >= threshold)
                yield np.stack([index[row + a], index[column + b]], axis=1), found[a, b]
        progress(min(row + block, len(points)))


@lru_cache(maxsize=4)
def _compare(mesh: Mesh) -> Any:
    rows = NamedSharding(mesh, PartitionSpec(ROW_AXIS))
    everywhere = NamedSharding(mesh, PartitionSpec())

    @partial(jax.jit, in_shardings=(rows, everywhere, None, None), out_shardings=(rows, everywhere))
    def compare(left: Array, right: Array, threshold: Array, ahead: Array) -> tuple[Array, Array]:
        """Returns all cosines, −2 where the right sample is not after the left one, and whether any reaches the threshold."""
        cosine = jnp.dot(left, right.T, precision=jax.lax.Precision.HIGHEST)
        later = jnp.arange(len(right))[None] > jnp.arange(len(left))[:, None] + ahead
        cosine = jnp.where(later, cosine, -2)
        return cosine, (cosine >= threshold).any()

    return compare
