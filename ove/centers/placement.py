"""Mesh axes that shard a bank and a batch, and the collectives between the two."""

import math
from dataclasses import dataclass

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float32, Int32, Shaped

from ove.errors import ConfigError


@dataclass(frozen=True)
class BankPlacement:
    """A bank is sharded by row over `bank_axes`, a batch over `batch_axes`; both are replicated along the other axes.

    The two may share axes. ConfigError for an axis that the mesh lacks.
    """

    mesh: Mesh
    bank_axes: tuple[str, ...]
    batch_axes: tuple[str, ...]

    def __post_init__(self) -> None:
        for axis in (*self.bank_axes, *self.batch_axes):
            if axis not in self.mesh.axis_names:
                raise ConfigError(f"the mesh has no axis {axis!r}, only {', '.join(self.mesh.axis_names)}; name one of these.")

    @property
    def n_shards(self) -> int:
        """Number of shards of a bank."""
        return math.prod(self.mesh.shape[axis] for axis in self.bank_axes)

    @property
    def n_batch_shards(self) -> int:
        """Number of shards of a batch."""
        return math.prod(self.mesh.shape[axis] for axis in self.batch_axes)

    @property
    def rows(self) -> PartitionSpec:
        """Spec of arrays with one row per center."""
        return PartitionSpec(self.bank_axes)

    @property
    def samples(self) -> PartitionSpec:
        """Spec of arrays with one row per sample."""
        return PartitionSpec(self.batch_axes)

    def sharding(self, spec: PartitionSpec) -> NamedSharding:
        """Returns a spec as a sharding of this mesh."""
        return NamedSharding(self.mesh, spec)

    def shard(self) -> Int32[Array, ""]:
        """Returns the index of this device's shard of the bank; inside `shard_map`."""
        return jax.lax.axis_index(self.bank_axes)

    def all_gather_batch(self, part: Shaped[Array, "b ..."]) -> Shaped[Array, "B ..."]:
        """All-gathers the rows of all devices' samples; inside `shard_map`."""
        return jax.lax.all_gather(part, self.batch_axes, tiled=True) if self.batch_axes else part

    def psum_bank(self, *parts: Float32[Array, "..."]) -> list[Float32[Array, "..."]]:
        """Sums arrays over the shards of the bank in one psum; inside `shard_map`."""
        total = jax.lax.psum(jnp.concatenate([part.ravel() for part in parts]), self.bank_axes)
        ends = np.cumsum([part.size for part in parts])[:-1]
        return [flat.reshape(part.shape) for flat, part in zip(jnp.split(total, ends), parts, strict=True)]

    def reduce_scatter_batch(self, part: Shaped[Array, "B ..."]) -> Shaped[Array, "b ..."]:
        """Sums over the shards of the bank and returns the rows of this device's samples; inside `shard_map`."""
        only_bank = tuple(axis for axis in self.bank_axes if axis not in self.batch_axes)
        part = jax.lax.psum(part, only_bank) if only_bank else part
        for axis in self.batch_axes:
            if axis in self.bank_axes:
                part = jax.lax.psum_scatter(part, axis, tiled=True)
            else:
                length = part.shape[0] // self.mesh.shape[axis]
                part = jax.lax.dynamic_slice_in_dim(part, jax.lax.axis_index(axis) * length, length)
        return part


def padded(n_centers: int, n_shards: int) -> int:
    """Returns the rows of a bank of `n_centers` padded to equal shards; padding is 0 and never read or updated."""
    return -(-n_centers // n_shards) * n_shards
