"""Similarities of vectors with row-sharded centers, for k-means and assignment."""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int32

from ove.labels.clusters.points import Points

ScoreDtype = Literal["float32", "bfloat16"]
"""Dtype of the factors; products are summed in float32 either way."""
ROW_AXIS = "rows"
"""The mesh's only axis, over rows of centers and of a block of points."""
_TILES = {"cpu": (2048, 512)}
_TILE = (8192, 4096)
"""Points and centers compared at once, by platform; on a CPU they fit its caches."""
_TILES_A_BLOCK = 8
"""Tiles of points sent to the devices at once."""


def row_mesh(devices: Sequence[Any] | None = None) -> Mesh:
    """Returns a mesh of the given devices (default: all of all processes) along one axis, ordered by process."""
    found = sorted(jax.devices() if devices is None else devices, key=lambda device: (device.process_index, device.id))
    return Mesh(np.array(found), (ROW_AXIS,))


class Shape:
    """The tiling of N points and k centers on a mesh."""

    def __init__(self, n_points: int, k: int, mesh: Mesh) -> None:
        points, centers = _TILES.get(mesh.devices.flat[0].platform, _TILE)
        n = mesh.devices.size
        self.tile_points = math.ceil(min(points, n_points) / n) * n
        self.block_points = self.tile_points * min(_TILES_A_BLOCK, math.ceil(n_points / self.tile_points))
        local = math.ceil(k / n)
        self.tile_centers = min(centers, math.ceil(local / 8) * 8)
        self.padded_centers = math.ceil(local / self.tile_centers) * self.tile_centers * n


def put_rows(mesh: Mesh, rows: np.ndarray, length: int | None = None) -> Array:
    """Shards rows over the mesh, padded with zeros to `length` rows; each device gets its shard alone."""
    length = len(rows) if length is None else length

    def piece(index: tuple[slice, ...] | None) -> np.ndarray:
        cut = index[0] if index else slice(None)
        start, stop = cut.start or 0, length if cut.stop is None else cut.stop
        part = rows[start:stop]
        if len(part) == stop - start:
            return part
        return np.concatenate([part, np.zeros((stop - start - len(part), *rows.shape[1:]), rows.dtype)])

    return jax.make_array_from_callback((length, *rows.shape[1:]), NamedSharding(mesh, PartitionSpec(ROW_AXIS)), piece)


def put_blocks(mesh: Mesh, points: Points, length: int) -> Iterator[tuple[int, Array]]:
    """Yields all points in sharded blocks of `length` rows, padded with zeros, with the index of the first.

    A process reads, a thread ahead, only the rows of its own devices.
    """
    sharding, shape = NamedSharding(mesh, PartitionSpec(ROW_AXIS)), (length, points.width)
    each = length // mesh.devices.size
    places = [place for place, device in enumerate(mesh.devices.flat) if device.process_index == jax.process_index()]
    mine = slice(places[0] * each, (places[-1] + 1) * each)

    def piece(index: tuple[slice, ...], block: np.ndarray) -> np.ndarray:
        first, last, _ = index[0].indices(length)
        return block[first - mine.start : last - mine.start]

    for start, block in points.blocks(length, mine):
        yield start, jax.make_array_from_callback(shape, sharding, functools.partial(piece, block=block))


def tiles_of(block_nE: Float[Array, "n E"], tile: int) -> tuple[Float32[Array, "tiles b E"], Bool[Array, "tiles b"]]:
    """Gathers the rows of all devices as tiles of unit vectors in float32, and which of them are not zero.

    Inside shard_map.
    """
    all_NE = jax.lax.all_gather(block_nE, ROW_AXIS, tiled=True).astype(jnp.float32)
    length = jnp.linalg.norm(all_NE, axis=1, keepdims=True)
    unit = (all_NE / jnp.where(length > 0, length, 1)).reshape(-1, tile, all_NE.shape[1])
    return unit, (length[:, 0] > 0).reshape(-1, tile)


def similarities(a_nE: Float[Array, "n E"], b_mE: Float[Array, "m E"], scores: ScoreDtype) -> Float32[Array, "n m"]:
    """Returns all dot products, summed in float32."""
    if scores == "bfloat16":
        a_nE, b_mE = a_nE.astype(jnp.bfloat16), b_mE.astype(jnp.bfloat16)
    # Full float32 even where the hardware rounds factors by default: near ties must not depend on it.
    precision = jax.lax.Precision.HIGHEST
    contract = (((1,), (1,)), ((), ()))
    return jax.lax.dot_general(a_nE, b_mE, contract, precision=precision, preferred_element_type=jnp.float32)


def nearest_of_mine(
    points_bE: Float32[Array, "b E"], centers_kE: Float32[Array, "k E"], tile: int, n_centers: int, scores: ScoreDtype
) -> tuple[Float32[Array, "b"], Int32[Array, "b"]]:
    """Returns the largest similarity of each point with this device's centers, and that center's index over all devices.

    Ties go to the first. Centers from `n_centers` on are padding. Inside shard_map.
    """
    offset = (jax.lax.axis_index(ROW_AXIS) * len(centers_kE)).astype(jnp.int32)
    rows = jnp.arange(tile, dtype=jnp.int32)[:, None]

    def step(best: tuple[Array, Array], here: tuple[Array, Array]) -> tuple[tuple[Array, Array], None]:
        centers_cE, first = here
        found_cb = similarities(centers_cE, points_bE, scores)  # maxima over the first axis are fast on every platform
        found_cb = jnp.where(rows < n_centers - first, found_cb, -jnp.inf)
        top_b = found_cb.max(0)
        where_b = first + jnp.where(found_cb == top_b, rows, tile).min(0)
        return (jnp.maximum(best[0], top_b), jnp.where(top_b > best[0], where_b, best[1])), None

    start = (jnp.full(len(points_bE), -jnp.inf), jnp.zeros(len(points_bE), jnp.int32))
    tiles = centers_kE.reshape(-1, tile, centers_kE.shape[1])
    firsts = offset + jnp.arange(0, len(centers_kE), tile, dtype=jnp.int32)
    return jax.lax.scan(step, start, (tiles, firsts))[0]


def nearest_of_all(best_b: Float32[Array, "b"], index_b: Int32[Array, "b"]) -> tuple[Float32[Array, "b"], Int32[Array, "b"]]:
    """Reduces `nearest_of_mine` over the devices; ties go to the lower index. Inside shard_map."""
    best_nb, index_nb = jax.lax.all_gather(best_b, ROW_AXIS), jax.lax.all_gather(index_b, ROW_AXIS)
    top_b = best_nb.max(0)
    return top_b, jnp.where(best_nb == top_b, index_nb, jnp.iinfo(jnp.int32).max).min(0)


def shard_mapped(mesh: Mesh, in_specs: Any, out_specs: Any) -> Any:
    """Returns a decorator that runs a function on each device's rows."""
    return functools.partial(jax.shard_map, mesh=mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)
