"""Spherical k-means: unit vectors → class centers, in blocks, on whatever device jax has."""

import functools
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from ove.errors import ConfigError

BLOCK = 2**24
"""Similarities of points and centers held at once (64 MiB): as many points at a time as this allows, at least one."""


@dataclass(frozen=True)
class Centroids:
    """What k-means found."""

    centers: Float32[np.ndarray, "k E"]
    """Of length 1 each."""
    objective: list[float]
    """Mean over the points of 1 − cosine with the nearest center: before the first step, and after each; never rising."""
    sizes: Int32[np.ndarray, "k"]
    """Points nearest to each center."""


def kmeans(points: Float[np.ndarray, "N E"], k: int, iterations: int, seed: int) -> Centroids:
    """k centers of N points by Lloyd's iterations with cosine similarity; the same every time for the same seed.

    It starts like k-means++ (points drawn with probability in proportion to 1 − cosine with the nearest center drawn so far)
    and ends early when no center moves. A center without points takes the point that fits a large cluster worst. Points need
    not have length 1; points of zeros have no direction and are left out. k above the number of the others raises ConfigError.
    """
    points = points[np.linalg.norm(points, axis=1) > 0]
    if not 1 <= k <= len(points):
        raise ConfigError(f"k-means cannot make {k} centers of {len(points)} points that are not 0; ask for 1…{len(points)}.")
    unit_NE = _unit(np.asarray(points, np.float32))
    blocks_BbE = _in_blocks(unit_NE, min(len(points), max(1, BLOCK // k)))
    first = _spread(jnp.asarray(unit_NE), jax.random.key(seed), k)
    centers_KE = unit_NE[np.asarray(first)]
    objective = []
    for step in range(iterations + 1):
        sums, nearest, cosine = (np.asarray(a) for a in _assign(blocks_BbE, jnp.asarray(centers_KE)))
        nearest, cosine = nearest.reshape(-1)[: len(points)], cosine.reshape(-1)[: len(points)]
        sizes = np.bincount(nearest, minlength=k).astype(np.int32)
        objective.append(float(np.mean(1 - cosine, dtype=np.float64)))
        if step == iterations:
            break
        moved = _moved(sums, sizes, nearest, cosine, unit_NE, centers_KE)
        if np.array_equal(moved, centers_KE):
            break
        centers_KE = moved
    return Centroids(centers_KE, objective, sizes)


@functools.partial(jax.jit, static_argnums=2)
def _spread(unit_NE: Float32[Array, "N E"], key: Array, k: int) -> Int32[Array, "k"]:
    """Indices of k points far from each other (k-means++ with 1 − cosine, which is half the squared distance)."""
    first_key, key = jax.random.split(key)
    first = jax.random.randint(first_key, (), 0, len(unit_NE))

    def draw(near: Float32[Array, "N"], key: Array) -> tuple[Float32[Array, "N"], Int32[Array, ""]]:
        # If all points coincide with one drawn already, every weight is 0 and log gives −inf everywhere: index 0 is drawn.
        index = jax.random.categorical(key, jnp.log(jnp.maximum(1 - near, 0)))
        return jnp.maximum(near, _dot(unit_NE, unit_NE[index])), index

    _, others = jax.lax.scan(draw, _dot(unit_NE, unit_NE[first]), jax.random.split(key, k - 1))
    return jnp.concatenate([first[None], others]).astype(jnp.int32)


@jax.jit
def _assign(
    blocks_BbE: Float32[Array, "B b E"], centers_KE: Float32[Array, "k E"]
) -> tuple[Float32[Array, "k E"], Int32[Array, "B b"], Float32[Array, "B b"]]:
    """Per center the sum of its points; per point its nearest center (ties: the lower index) and their cosine."""

    def block(sums_KE: Array, points_bE: Array) -> tuple[Array, tuple[Array, Array]]:
        cosine_bK = _dot(points_bE, centers_KE.T)
        nearest_b = jnp.argmax(cosine_bK, axis=1).astype(jnp.int32)
        cosine_b = jnp.max(cosine_bK, axis=1)
        return sums_KE.at[nearest_b].add(points_bE), (nearest_b, cosine_b)

    sums, (nearest, cosine) = jax.lax.scan(block, jnp.zeros_like(centers_KE), blocks_BbE)
    return sums, nearest, cosine


def _moved(
    sums: Float32[np.ndarray, "k E"],
    sizes: Int32[np.ndarray, "k"],
    nearest: Int32[np.ndarray, "N"],
    cosine: Float32[np.ndarray, "N"],
    unit_NE: Float32[np.ndarray, "N E"],
    centers_KE: Float32[np.ndarray, "k E"],
) -> Float32[np.ndarray, "k E"]:
    """The mean direction of each cluster; a center without points splits the next largest cluster at its worst point."""
    # A cluster of points that cancel out has no direction: its center stays where it is.
    cancels = np.linalg.norm(sums, axis=1, keepdims=True) < 1e-12
    moved = _unit(np.where(cancels, centers_KE, sums))
    donors = np.argsort(-sizes, kind="stable")
    donors = donors[sizes[donors] > 1]
    # Only the center that had no points moves here, so the objective cannot rise.
    for empty, donor in zip(np.flatnonzero(sizes == 0), donors, strict=False):
        members = np.flatnonzero(nearest == donor)
        moved[empty] = unit_NE[members[np.argmin(cosine[members])]]
    return moved


def _dot(a: Array, b: Array) -> Array:
    # Full float32 also where the hardware would rather round the factors: near ties must not depend on it.
    return jnp.dot(a, b, precision=jax.lax.Precision.HIGHEST)


def _in_blocks(unit_NE: Float32[np.ndarray, "N E"], length: int) -> Float32[Array, "B b E"]:
    """The points in blocks of equal length; the last is filled up with zeros, which add nothing to any sum."""
    count, width = unit_NE.shape
    blocks = np.zeros((-(-count // length), length, width), np.float32)
    blocks.reshape(-1, width)[:count] = unit_NE
    return jnp.asarray(blocks)


def _unit(rows: Float32[np.ndarray, "n E"]) -> Float32[np.ndarray, "n E"]:
    return rows / np.linalg.norm(rows, axis=1, keepdims=True)
