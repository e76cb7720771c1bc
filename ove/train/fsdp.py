"""Parameters of which each device keeps a piece: gathered when a layer needs them, their gradients reduced and scattered."""

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Shaped

from ove.encoder.encoder import Params

AXIS = "fsdp"
Cuts = tuple[tuple[str, int], ...]
"""Names of the parameters that are cut, within some nested dictionary, and the axis along which each is."""


@dataclass(frozen=True)
class Fetch:
    """Gathers the cut ones of some parameters inside `shard_map`, in the dtype of the computation; see `encoder.apply`.

    Backward, each gradient is summed in float32 over the axis and its piece stays here (a reduce-scatter).
    """

    cuts: Cuts
    dtype: str

    def __call__(self, part: Params) -> Params:
        """The same nested dictionary with whole arrays."""
        return _over_cuts(self.cuts, part, lambda axes, pieces: _gather(axes, self.dtype, pieces))


def scatter(cuts: Cuts, grads: Params, earlier: Float[Array, ""]) -> Params:
    """Pieces of the gradients of gathered parameters, summed over the axis, and of the others what was given."""
    return _over_cuts(cuts, grads, lambda axes, whole: _scatter(axes, earlier, whole))


def cuts_of(specs: Any) -> Cuts:
    """Which of the parameters with these specs are cut."""
    flat = jax.tree_util.tree_flatten_with_path(specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))[0]
    return tuple((leaf_name(path), tuple(spec).index(AXIS)) for path, spec in flat if AXIS in tuple(spec))


def cuts_of_layer(specs_of_blocks: Any) -> Cuts:
    """The same of one layer, from the specs of all: the first axis, that of the layers, is not there."""
    return tuple((name, axis - 1) for name, axis in cuts_of(specs_of_blocks))


def _over_cuts(cuts: Cuts, part: Params, function: Callable[[tuple[int, ...], list[Array]], list[Array]]) -> Params:
    flat, structure = jax.tree_util.tree_flatten_with_path(part)
    axes, leaves = dict(cuts), {leaf_name(path): leaf for path, leaf in flat}
    chosen = [name for name in leaves if name in axes]
    if chosen:
        found = function(tuple(axes[name] for name in chosen), [leaves[name] for name in chosen])
        leaves |= dict(zip(chosen, found, strict=True))
    return jax.tree_util.tree_unflatten(structure, list(leaves.values()))


def leaf_name(path: Any) -> str:
    """`banks/vid/rows` for a key path of jax.tree_util."""
    return jax.tree_util.keystr(path, simple=True, separator="/")


def in_order(x: Shaped[Array, "..."], earlier: Float[Array, ""]) -> Shaped[Array, "..."]:
    """`x`, on a CPU of several devices not before `earlier` is there; elsewhere `x` itself.

    For what goes into a sum or gather over devices: see `ove.centers.placement.follow`. Accelerators start these in one order.
    """
    if jax.default_backend() != "cpu" or jax.device_count() == 1:
        return x
    bits = jax.lax.bitcast_convert_type(earlier.astype(jnp.float32), jnp.uint32)
    return x + ((bits >> 31) >> 1).astype(x.dtype)  # a zero that XLA does not see through


def one_of(*arrays: Shaped[Array, "..."]) -> Float32[Array, ""]:
    """A number that is there once all of the arrays are."""
    return sum((x[(0,) * x.ndim].astype(jnp.float32) for x in arrays), jnp.zeros(()))


@functools.partial(jax.custom_vjp, nondiff_argnums=(0, 1))
def _gather(axes: tuple[int, ...], dtype: str, pieces: list[Array]) -> list[Array]:
    return _gather_forward(axes, dtype, pieces)[0]


def _gather_forward(axes: tuple[int, ...], dtype: str, pieces: list[Array]) -> tuple[list[Array], Array]:
    whole, earlier = [], jnp.zeros(())
    for axis, piece in zip(axes, pieces, strict=True):
        whole.append(jax.lax.all_gather(in_order(piece.astype(dtype), earlier), AXIS, axis=axis, tiled=True))
        earlier = one_of(whole[-1])
    return whole, earlier


def _gather_backward(axes: tuple[int, ...], dtype: str, earlier: Array, grads: list[Array]) -> tuple[list[Array]]:
    return (_scatter(axes, earlier, grads),)


def _scatter(axes: tuple[int, ...], earlier: Array, grads: list[Array]) -> list[Array]:
    pieces, earlier = [], one_of(earlier, *grads)
    for axis, grad in zip(axes, grads, strict=True):
        grad = in_order(grad.astype(jnp.float32), earlier)
        pieces.append(jax.lax.psum_scatter(grad, AXIS, scatter_dimension=axis, tiled=True))
        earlier = one_of(pieces[-1])
    return pieces


_gather.defvjp(_gather_forward, _gather_backward)
