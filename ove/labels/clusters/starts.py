"""Initial centers of k-means: k-means++, random points, or clusters of clusters."""

import functools
import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh
from jaxtyping import Array, Float32, Int, Int32

from ove.distributed import broadcast_one_to_all, processes_of
from ove.labels.clusters.points import Points, unit

POINTS_A_CENTER = 128
"""Most points per center that the two-level start reads."""
_INNER_ITERATIONS = 8
_TILE = 1024
"""Points of a cluster compared with its centers at once."""
_TRIES = 4
"""Points drawn per center, for some may be zero."""


def kmeans_plus_plus(points: Float32[np.ndarray, "N E"], k: int, seed: int) -> Float32[np.ndarray, "k E"]:
    """Returns k of the points (of length 1) by k-means++ with 1 − cosine, half the squared distance.

    Takes time O(N·k), and all points in memory.
    """
    return points[np.asarray(_spread(jnp.asarray(points), jax.random.key(seed), k))]


def random_points(points: Points, k: int, seed: int) -> Float32[np.ndarray, "k E"]:
    """Draws k different non-zero points, scaled to length 1; fewer if there are fewer."""
    index = _draw(len(points), min(len(points), _TRIES * k), seed)
    rows = points.rows(index[: k + k // 8 + 8])
    if np.any(rows, axis=1).sum() < k:
        rows = points.rows(index)
    if np.any(rows, axis=1).sum() < k and len(index) < len(points):
        rows = points.rows(_draw(len(points), len(points), seed))
    return unit(rows[np.any(rows, axis=1)][:k])


def two_level(
    points: Points,
    k: int,
    seed: int,
    mesh: Mesh,
    coarse: Callable[[Points, int], Float32[np.ndarray, "c E"]],
    nearest: Callable[[Points, Float32[np.ndarray, "c E"]], Int32[np.ndarray, "n"]],
) -> Float32[np.ndarray, "k E"]:
    """Returns k centers from about √k clusters, each clustered into a share of k in proportion to its points.

    `coarse` clusters, `nearest` assigns points to clusters. Reads at most `POINTS_A_CENTER`·k points, one cluster in memory at
    a time; the processes of the mesh share the clusters. Takes time O(N·√k).
    """
    index = np.sort(_draw(len(points), min(len(points), POINTS_A_CENTER * k), seed))
    sample = points.subset(index)
    n_coarse = max(1, round(math.sqrt(k)))
    few = np.sort(_draw(len(sample), min(len(sample), POINTS_A_CENTER * n_coarse), seed + 1))
    cluster = nearest(sample, coarse(sample.subset(few), n_coarse))
    members = [np.flatnonzero(cluster == c) for c in range(n_coarse)]
    shares = shares_of(k, np.array([len(m) for m in members]))
    processes = processes_of(mesh)
    parts = {process: np.flatnonzero(shares)[place :: len(processes)] for place, process in enumerate(processes)}
    mine = _clusters(sample, members, shares, parts[jax.process_index()].tolist(), seed, mesh)
    cluster_of, centers = np.repeat(np.arange(n_coarse), shares), np.empty((k, points.width), np.float32)
    for process, part in parts.items():
        theirs = np.isin(cluster_of, part)
        rows = mine if process == jax.process_index() else np.empty((theirs.sum(), points.width), np.float32)
        centers[theirs] = broadcast_one_to_all(mesh, rows, process)
    return centers


def _clusters(
    sample: Points, members: list[np.ndarray], shares: np.ndarray, numbers: list[int], seed: int, mesh: Mesh
) -> Float32[np.ndarray, "n E"]:
    """Returns the centers of some clusters, computed on the devices of this process."""
    devices = [device for device in mesh.devices.flat if device.process_index == jax.process_index()]
    most = max(map(len, members)), int(shares.max())
    pending: list[tuple[Array, int]] = []
    centers = [np.empty((0, sample.width), np.float32)]
    for place, number in enumerate(numbers):
        chances = np.random.default_rng((seed, number)).random(most[1], np.float32)
        device, share = devices[place % len(devices)], int(shares[number])
        pending.append((_inner(sample.rows(members[number]), share, most[0], chances, device), share))
        if len(pending) > len(devices):  # at most this many in flight
            centers.append(_first(*pending.pop(0)))
    return np.concatenate(centers + [_first(*some) for some in pending])


def shares_of(k: int, sizes: Int[np.ndarray, "c"]) -> Int[np.ndarray, "c"]:
    """Divides k in proportion to the sizes, none above its size; k is at most their sum."""
    exact = k * sizes / sizes.sum()
    shares = np.minimum(np.floor(exact).astype(int), sizes)
    while (lacking := k - shares.sum()) > 0:
        room = np.flatnonzero(shares < sizes)
        most = room[np.argsort(shares[room] - exact[room], kind="stable")[:lacking]]
        shares[most] += 1
    return shares


def _draw(n: int, count: int, seed: int) -> Int[np.ndarray, "count"]:
    """Draws different numbers below n in random order, in O(count) memory."""
    rng = np.random.default_rng((seed, n, count))
    if count * 4 > n:
        return rng.permutation(n)[:count]
    # One from each of equal strata, so none twice.
    edges = np.linspace(0, n, count + 1).astype(np.int64)
    return rng.permutation(rng.integers(edges[:-1], edges[1:]))


def _inner(rows: np.ndarray, k: int, most: int, chances: np.ndarray, device: jax.Device) -> Float32[Array, "K E"]:
    """Returns k centers of the points of one cluster; rows beyond the first k are padding.

    All clusters are padded to `most` points and len(chances) centers, so that one program serves all.
    """
    padded = np.zeros((math.ceil(most / _TILE), _TILE, rows.shape[1]), np.float32)
    padded.reshape(-1, rows.shape[1])[: len(rows)] = unit(rows)
    return _cluster(*jax.device_put((padded, chances, np.int32(k), np.int32(len(rows))), device))


def _first(found: Array, share: int) -> Float32[np.ndarray, "k E"]:
    return np.asarray(found)[:share]


@jax.jit
def _cluster(points_TbE: Array, chances_K: Array, k: Array, count: Array) -> Float32[Array, "K E"]:
    """Runs spherical k-means, started by k-means++, on `count` points, tile by tile; centers from k on are padding."""
    most, shape = len(chances_K), points_TbE.shape[:2]
    tiles = (count + shape[1] - 1) // shape[1]
    real_Tb = jnp.arange(shape[0] * shape[1]).reshape(shape) < count

    def draw(i: Any, drawn: tuple[Array, Array]) -> tuple[Array, Array]:
        far_Tb, centers = drawn
        total_N = jnp.cumsum(far_Tb.ravel())
        # All 0 if every point coincides with one drawn: then the last is taken.
        index = jnp.searchsorted(total_N, chances_K[i] * total_N[-1], side="right").clip(0, count - 1)
        center = points_TbE.reshape(-1, points_TbE.shape[2])[index]

        def nearer(t: Any, far_Tb: Array) -> Array:
            return far_Tb.at[t].min(jnp.maximum(1 - _dot(points_TbE[t], center), 0))

        return jax.lax.fori_loop(0, tiles, nearer, far_Tb), centers.at[i].set(center)

    start = real_Tb.astype(jnp.float32), jnp.zeros((most, points_TbE.shape[2]))
    centers = jax.lax.fori_loop(0, k, draw, start)[1]

    def iterate(_: Any, centers: Array) -> Array:
        def add(t: Any, sums: Array) -> Array:
            cosine_Kb = jnp.where(jnp.arange(most)[:, None] < k, _dot(centers, points_TbE[t].T), -jnp.inf)
            nearest_b = jnp.where(real_Tb[t], jnp.argmax(cosine_Kb, axis=0), most)
            return sums.at[nearest_b].add(points_TbE[t], mode="drop")

        sums = jax.lax.fori_loop(0, tiles, add, jnp.zeros_like(centers))
        length = jnp.linalg.norm(sums, axis=1, keepdims=True)
        return jnp.where(length > 1e-12, sums / jnp.where(length > 0, length, 1), centers)

    return jax.lax.fori_loop(0, _INNER_ITERATIONS, iterate, centers)


@functools.partial(jax.jit, static_argnums=2)
def _spread(unit_NE: Float32[Array, "N E"], key: Array, k: int) -> Int32[Array, "k"]:
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, len(unit_NE))

    def draw(near: Float32[Array, "N"], key: Array) -> tuple[Float32[Array, "N"], Int32[Array, ""]]:
        # If all points coincide with drawn ones, all weights are 0 and index 0 is drawn.
        index = jax.random.categorical(key, jnp.log(jnp.maximum(1 - near, 0)))
        return jnp.maximum(near, _dot(unit_NE, unit_NE[index])), index

    _, others = jax.lax.scan(draw, _dot(unit_NE, unit_NE[first]), jax.random.split(key, k - 1))
    return jnp.concatenate([first[None], others]).astype(jnp.int32)


def _dot(a: Array, b: Array) -> Array:
    # Full float32 even where the hardware rounds factors by default.
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)
