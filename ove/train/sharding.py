"""The mesh over the devices there are, and which array is split over it: rules of (path regex, spec), first match wins."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

RULES: tuple[tuple[str, PartitionSpec], ...] = (
    (r"^banks/[^/]+/rows", PartitionSpec("data")),
    (r".*", PartitionSpec()),
)
"""Banks are split by row over the data axis where it divides them; all else is replicated."""


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis, `data`, over all devices."""
    return Mesh(np.array(devices if devices is not None else jax.devices()), ("data",))


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an (abstract) train state."""

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        spec = next(spec for pattern, spec in RULES if re.search(pattern, name))
        if spec and leaf.shape and leaf.shape[0] % mesh.size:
            spec = PartitionSpec()
        return NamedSharding(mesh, spec)

    return jax.tree_util.tree_map_with_path(choose, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples are split over the data axis."""
    return NamedSharding(mesh, PartitionSpec("data"))


def leaf_name(path: Any) -> str:
    """`banks/vid/rows` for a key path of jax.tree_util."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
