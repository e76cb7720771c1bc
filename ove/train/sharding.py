"""The mesh over the devices there are, and which array is split over it: rules of (path regex, spec), first match wins."""

import re
from typing import Any

import jax
import numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ove.centers.placement import Placement

REPEATED = "model"
"""An axis of this name, which parts of the encoder may be spread over, repeats the batch; banks are cut over all axes."""
RULES: tuple[tuple[str, bool], ...] = ((r"^banks/[^/]+/rows", True), (r".*", False))
"""Whether an array is cut by its first axis: banks by row; all else is repeated."""


def make_mesh(devices: list[jax.Device] | None = None) -> Mesh:
    """One axis, `data`, over all devices."""
    return Mesh(np.array(devices if devices is not None else jax.devices()), ("data",))


def placement(mesh: Mesh) -> Placement:
    """Where banks and batches lie on a mesh of any shape."""
    return Placement(mesh, mesh.axis_names, tuple(axis for axis in mesh.axis_names if axis != REPEATED))


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an (abstract) train state."""

    def choose(path: Any, leaf: Any) -> NamedSharding:
        name = leaf_name(path)
        is_cut = next(cut for pattern, cut in RULES if re.search(pattern, name))
        return NamedSharding(mesh, placement(mesh).rows if is_cut else PartitionSpec())

    return jax.tree_util.tree_map_with_path(choose, state)


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples are split over the axes that do not repeat them."""
    return NamedSharding(mesh, placement(mesh).samples)


def leaf_name(path: Any) -> str:
    """`banks/vid/rows` for a key path of jax.tree_util."""
    return jax.tree_util.keystr(path, simple=True, separator="/")
