"""The mesh over the devices there are, and which array is split over it: rules of (path regex, spec), first match wins."""

import re
from collections.abc import Sequence
from typing import Any

import jax
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ove.centers.placement import Placement
from ove.config import MeshConfig, RunConfig
from ove.errors import ConfigError
from ove.train.fsdp import AXIS as FSDP
from ove.train.fsdp import leaf_name

DATA, BANK = "data", "bank"
ROWS = "rows"
"""In a spec: the axes that banks are cut over."""
RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"^banks/[^/]+/rows", (ROWS,)),
    (r"/blocks/.*kernel$", (None, None, FSDP)),
    (r"/pool/.*kernel$", (None, FSDP)),
    (r"/patch/kernel$", (None, FSDP)),
    (r".*", ()),
)
"""How an array of a train state is cut, axis by axis; what no rule names, and what past the end of a spec, is repeated.

Moments have the paths of their parameters, after the name of the optimizer's part. Blocks have the layers as their first axis,
which is not cut: a layer is gathered when it is computed.
"""


def make_mesh(config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """The axes data, fsdp and, if there is one, bank over all devices; ConfigError if these cannot be divided so.

    On TPUs neighbours in the mesh are neighbours in the machine; several slices lie along `data`.
    """
    devices = list(jax.devices() if devices is None else devices)
    sizes = axis_sizes(config or MeshConfig(), len(devices))
    shape, n_slices = list(sizes.values()), len({getattr(device, "slice_index", 0) for device in devices})
    if n_slices > 1 and shape[0] % n_slices == 0:
        within, between = [shape[0] // n_slices, *shape[1:]], [n_slices] + [1] * (len(shape) - 1)
        grid = mesh_utils.create_hybrid_device_mesh(within, between, devices, allow_split_physical_axes=True)
    else:
        grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, tuple(sizes))


def axis_sizes(config: MeshConfig, n_devices: int) -> dict[str, int]:
    """Name → size of each axis, from the farthest devices to the nearest; ConfigError if they do not make up the devices."""
    inner = config.fsdp * max(config.bank, 1)
    data = config.data or n_devices // inner
    if data * inner != n_devices:
        raise ConfigError(
            f"mesh.data = {config.data}, mesh.fsdp = {config.fsdp} and mesh.bank = {config.bank} do not make up the "
            f"{n_devices} devices; give numbers whose product that is, or 0 for mesh.data and others that divide it."
        )
    return {DATA: data, FSDP: config.fsdp} | ({BANK: config.bank} if config.bank else {})


def placement(mesh: Mesh) -> Placement:
    """Where banks and batches lie: samples over all axes, banks too, or over all but `data` where there is an axis `bank`."""
    axes = mesh.axis_names
    return Placement(mesh, tuple(axis for axis in axes if axis != DATA) if BANK in axes else axes, axes)


def check_division(config: RunConfig, n_devices: int) -> None:
    """ConfigError if batches cannot be split over the devices and microbatches, or parameters over the axis fsdp."""
    parts, accumulate, fsdp = n_devices, config.train.accumulate, config.mesh.fsdp
    for head in config.batches.heads:
        if head.batch_size % (parts * accumulate):
            times = f" times train.accumulate = {accumulate} microbatches" if accumulate > 1 else ""
            raise ConfigError(
                f"batch_size {head.batch_size} of head {head.bank} cannot be split over {parts} devices{times}; give a "
                f"multiple of {parts * accumulate}."
            )
    for name in ("width", "mlp", "embedding"):
        if getattr(config.encoder, name) % fsdp:
            raise ConfigError(f"mesh.fsdp = {fsdp} does not divide encoder.{name} = {getattr(config.encoder, name)}.")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """The sharding of every leaf of an (abstract) train state."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, spec_of(leaf_name(path), mesh)), state)


def spec_of(name: str, mesh: Mesh) -> PartitionSpec:
    """How the leaf of that name is cut on a mesh; axes of a single device cut nothing."""
    rule = rule_of(name)
    if ROWS in rule:
        return placement(mesh).rows
    if any(axis and mesh.shape.get(axis, 1) > 1 for axis in rule):
        return PartitionSpec(*rule)
    return PartitionSpec()


def rule_of(name: str) -> tuple[str | None, ...]:
    """The spec of the first rule that names the leaf."""
    return next(spec for pattern, spec in RULES if re.search(pattern, name))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples are split over all axes."""
    return NamedSharding(mesh, placement(mesh).samples)
