"""The gradients of a step: of the encoder, and of every bank's sampled rows; and the norms of the encoder's by part.

    Σ over banks:  weight · ∂loss/∂params = Σ over microbatches (∂embeddings/∂params)ᵀ · weight · ∂loss/∂embeddings

A bank's loss is a sum over samples against rows that are drawn once for the whole batch (`ove.centers.gradient`). So each
microbatch is embedded, meets the bank, and goes back through the encoder; only gradients are added up, in float32. They are
those of one large batch, and no sample is embedded twice.

All of it happens inside one `shard_map`: every device embeds its own samples, attention kernels see ordinary arrays, and
nothing is moved that is not named here. Of sharded parameters (`ove.train.sharding`) those outside of the blocks are
all-gathered once, those of the blocks layer by layer; their gradients are reduce-scattered, and what is replicated is summed
once, at the end.
"""

from collections.abc import Callable, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float32, Key

from ove.centers.bank import Bank
from ove.centers.gradient import BankGradient, BankPlan, draw_batch, microbatch_gradient, no_sums, total_gradient
from ove.centers.objective import bank_specs, check_bank, gradient_specs
from ove.config import RunConfig
from ove.encoder import encoder
from ove.encoder.encoder import Params
from ove.train.sharding import AllGather, placement, sharded_axes, sharded_axes_of_layer

BatchArrays = dict[str, dict[str, Array]]
"""By bank: `patches` (B, N, P) uint8, `positions` (B, N, 3) and `labels` (B, M) int32."""
Gradients = tuple[Params, dict[str, BankGradient]]
"""Of Σ weight · loss by the encoder's parameters, and by each bank."""


def make_gradients(
    config: RunConfig, mesh: Mesh, specs: Any, plans: Mapping[str, BankPlan]
) -> Callable[[Params, dict[str, Bank], BatchArrays, Key[Array, ""]], Gradients]:
    """Returns `gradients(params, banks, batch, key)`, for parameters that are sharded by `specs` and banks by `placement`."""
    place, n_microbatches = placement(mesh), config.train.grad_accum_steps
    embed, gather_rest = make_embed(config, specs)

    def of_bank(
        grads: Params, params: Params, plan: BankPlan, bank: Bank, batch: dict[str, Array], key: Array
    ) -> tuple[Params, BankGradient]:
        """Adds a bank's part to the encoder's gradients."""
        drawn = draw_batch(bank, batch["labels"], key, n_microbatches, plan, place, config.centers)

        def microbatch(total: Any, at: tuple[Array, ...]) -> tuple[Any, None]:
            patches, positions, known, chosen = at
            embeddings, pull = jax.vjp(partial(embed, patches=patches, positions=positions), params)
            cotangent, sums = microbatch_gradient(bank, drawn, known, chosen, embeddings, plan, place, config.centers)
            return jax.tree.map(jnp.add, total, (*pull(cotangent), sums)), None

        samples = (rearrange(batch[name], "(a b) ... -> a b ...", a=n_microbatches) for name in ("patches", "positions"))
        (grads, sums), _ = jax.lax.scan(microbatch, (grads, no_sums(bank, drawn)), (*samples, drawn.known, drawn.chosen))
        return grads, total_gradient(bank, drawn, sums, plan, place)

    def on_device(params: Params, banks: dict[str, Bank], batch: BatchArrays, key: Array) -> Gradients:
        rest, scatter_rest = jax.vjp(gather_rest, _but_blocks(params))
        whole, found = params | rest, {}
        grads = jax.tree.map(jnp.zeros_like, whole)
        for number, (name, plan) in enumerate(plans.items()):
            # Bank after bank: XLA would embed for all of them first, and hold the activations of all.
            whole, grads["patch"] = jax.lax.optimization_barrier((whole, grads["patch"]))
            key_of_bank = jax.random.fold_in(key, number)
            grads, found[name] = of_bank(grads, whole, plan, banks[name], batch[name], key_of_bank)
        (scattered,) = scatter_rest(_but_blocks(grads))
        return jax.tree.map(partial(_sum_over_copies, mesh), grads | scattered, specs), found

    def gradients(params: Params, banks: dict[str, Bank], batch: BatchArrays, key: Key[Array, ""]) -> Gradients:
        for name, plan in plans.items():
            check_bank(banks[name], batch[name]["labels"], plan, place, config.encoder.embedding_width)
        grads, found = jax.shard_map(
            on_device,
            mesh=mesh,
            in_specs=(specs, dict.fromkeys(plans, bank_specs(place)), place.samples, PartitionSpec()),
            out_specs=(specs, dict.fromkeys(plans, gradient_specs(place))),
            check_vma=False,  # outputs with an empty spec were summed, hence are replicated
        )(params, banks, batch, key)
        return grads, {name: found[name] for name in plans}  # JAX has sorted them by name

    return gradients


def make_embed(config: RunConfig, specs: Any) -> tuple[Callable[..., Array], AllGather]:
    """Returns `embed(params, patches, positions)` for a device, and what makes its parameters outside of the blocks whole."""
    compute, of_layer = config.encoder.compute, sharded_axes_of_layer(specs["blocks"])
    gather_layer = AllGather(of_layer, compute, compute) if of_layer else None

    def embed(params: Params, patches: Array, positions: Array) -> Array:
        pooled = encoder.apply(config.encoder, params, patches, positions, fetch=gather_layer).pooled
        assert pooled is not None, "train() refuses an encoder without a head"
        return pooled

    # In float32, so that the gradients of several banks and microbatches are summed in it.
    return embed, AllGather(sharded_axes(_but_blocks(specs)), compute, "float32")


def _sum_over_copies(mesh: Mesh, grad: Array, spec: PartitionSpec) -> Array:
    """Sums a gradient over the axes along which its parameter is replicated."""
    return jax.lax.psum(grad, tuple(axis for axis in mesh.axis_names if axis not in tuple(spec)))


def _but_blocks(params: Params) -> Params:
    return {name: part for name, part in params.items() if name != "blocks"}


PARTS = {
    "patch": ("patch", "pre_norm"),
    "blocks": ("blocks",),
    "head": ("post_norm", "pool"),
}
"""Part → the modules of the encoder that it consists of."""


def part_norms(grads: Params) -> dict[str, Float32[Array, ""]]:
    """Returns `grad_norm/patch`, `/blocks`, `/head` and `/encoder` (all of them): Euclidean norms of the gradient's parts.

    The squares of the parts add up to that of the encoder.
    """
    squares = {
        part: sum((jnp.square(leaf).sum() for name in names for leaf in jax.tree.leaves(grads.get(name, {}))), jnp.zeros(()))
        for part, names in PARTS.items()
    }
    squares["encoder"] = sum(squares.values(), jnp.zeros(()))
    return {f"grad_norm/{part}": jnp.sqrt(square) for part, square in squares.items()}
