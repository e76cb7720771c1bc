"""The mesh over the devices there are, and which array is split over it: rules of (path regex, spec), first match wins."""

import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.experimental import mesh_utils
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ove.centers.placement import BankPlacement
from ove.config import MeshConfig, RunConfig
from ove.encoder.encoder import Params
from ove.errors import ConfigError

DATA, FSDP, BANK = "data", "fsdp", "bank"
ROWS = "rows"
"""In a spec: the axes that banks are cut over."""
SHARDING_RULES: tuple[tuple[str, tuple[str | None, ...]], ...] = (
    (r"^banks/[^/]+/rows", (ROWS,)),
    (r"/blocks/.*kernel$", (None, None, FSDP)),
    (r"/pool/.*kernel$", (None, FSDP)),
    (r"/patch/kernel$", (None, FSDP)),
    (r".*", ()),
)
"""How an array of a train state is sharded, axis by axis; axes past the end of a spec are replicated.

Moments have the paths of their parameters, after the name of the optimizer's part. Blocks have the layers as their first axis,
which is not cut: a layer is gathered when it is computed.
"""


def make_mesh(config: MeshConfig | None = None, devices: Sequence[jax.Device] | None = None) -> Mesh:
    """Makes the axes data, fsdp and, if there is one, bank over all devices; ConfigError if these cannot be divided so.

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
    """Returns name → size of each axis, from the farthest devices to the nearest; ConfigError unless they make up all."""
    inner = config.fsdp * max(config.bank, 1)
    data = config.data or n_devices // inner
    if data * inner != n_devices:
        raise ConfigError(
            f"mesh.data = {config.data}, mesh.fsdp = {config.fsdp} and mesh.bank = {config.bank} do not make up the "
            f"{n_devices} devices; give numbers whose product that is, or 0 for mesh.data and others that divide it."
        )
    return {DATA: data, FSDP: config.fsdp} | ({BANK: config.bank} if config.bank else {})


def placement(mesh: Mesh) -> BankPlacement:
    """Samples are sharded over all axes; banks too, or over all but `data` if there is an axis `bank`."""
    axes = mesh.axis_names
    return BankPlacement(mesh, tuple(axis for axis in axes if axis != DATA) if BANK in axes else axes, axes)


def check_division(config: RunConfig, n_devices: int) -> None:
    """Raises ConfigError if batches do not divide by devices and microbatches, or parameters by the axis fsdp."""
    parts, accumulate, fsdp = n_devices, config.train.grad_accum_steps, config.mesh.fsdp
    for head in config.batches.heads:
        if head.batch_size % (parts * accumulate):
            times = f" times train.grad_accum_steps = {accumulate} microbatches" if accumulate > 1 else ""
            raise ConfigError(
                f"batch_size {head.batch_size} of head {head.bank} cannot be split over {parts} devices{times}; give a "
                f"multiple of {parts * accumulate}."
            )
    for name in ("width", "mlp", "embedding"):
        if getattr(config.encoder, name) % fsdp:
            raise ConfigError(f"mesh.fsdp = {fsdp} does not divide encoder.{name} = {getattr(config.encoder, name)}.")


def state_shardings(state: Any, mesh: Mesh) -> Any:
    """Returns the sharding of every leaf of an (abstract) train state."""
    return jax.tree_util.tree_map_with_path(lambda path, leaf: NamedSharding(mesh, spec_of(leaf_name(path), mesh)), state)


def spec_of(name: str, mesh: Mesh) -> PartitionSpec:
    """Returns how the leaf of that name is sharded on a mesh; axes of size 1 are left out."""
    rule = rule_of(name)
    if ROWS in rule:
        return placement(mesh).rows
    if any(axis and mesh.shape.get(axis, 1) > 1 for axis in rule):
        return PartitionSpec(*rule)
    return PartitionSpec()


def rule_of(name: str) -> tuple[str | None, ...]:
    """Returns the spec of the first rule that matches the leaf."""
    return next(spec for pattern, spec in SHARDING_RULES if re.search(pattern, name))


def batch_sharding(mesh: Mesh) -> NamedSharding:
    """Samples are split over all axes."""
    return NamedSharding(mesh, placement(mesh).samples)


ShardedAxes = tuple[tuple[str, int], ...]
"""Names of the sharded parameters within some nested dictionary, and the axis along which each is."""


@dataclass(frozen=True)
class AllGather:
    """Gathers the sharded ones of some parameters inside `shard_map`; see `encoder.apply`.

    They travel as `wire` and come out as `dtype`. Backward, each gradient is summed in float32 over the axis and its shard
    stays here (a reduce-scatter).
    """

    axes: ShardedAxes
    wire: str
    dtype: str

    def __call__(self, part: Params) -> Params:
        """Returns the same nested dictionary with whole arrays."""
        axes = dict(self.axes)

        def whole(path: Any, leaf: Array) -> Array:
            axis = axes.get(leaf_name(path))
            return leaf if axis is None else _all_gather(axis, self.wire, self.dtype, leaf)

        return jax.tree_util.tree_map_with_path(whole, part)


def sharded_axes(specs: Any) -> ShardedAxes:
    """Returns which of the parameters with these specs are sharded over fsdp, and along which axis."""
    flat = jax.tree_util.tree_flatten_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))[0]
    return tuple((leaf_name(path), tuple(spec).index(FSDP)) for path, spec in flat if FSDP in tuple(spec))


def sharded_axes_of_layer(specs_of_blocks: Any) -> ShardedAxes:
    """Returns the same of one layer, from the specs of all: without the first axis, that of the layers."""
    return tuple((name, axis - 1) for name, axis in sharded_axes(specs_of_blocks))


def leaf_name(path: Any) -> str:
    """Returns `banks/vid/rows` for a key path of jax.tree_util."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1, 2))
def _all_gather(axis: int, wire: str, dtype: str, shard: Array) -> Array:
    return jax.lax.all_gather(shard.astype(wire), FSDP, axis=axis, tiled=True).astype(dtype)


def _all_gather_forward(axis: int, wire: str, dtype: str, shard: Array) -> tuple[Array, None]:
    return _all_gather(axis, wire, dtype, shard), None


def _all_gather_backward(axis: int, wire: str, dtype: str, _: None, grad: Array) -> tuple[Array]:
    return (jax.lax.psum_scatter(grad.astype(jnp.float32), FSDP, scatter_dimension=axis, tiled=True),)


_all_gather.defvjp(_all_gather_forward, _all_gather_backward)
