"""The encoder on a mesh, to be differentiated, and the norms of its gradient by part.

Every device embeds its own samples inside `shard_map`, so that attention kernels see ordinary arrays and nothing is moved
that is not named here: of sharded parameters (`ove.train.sharding`) those outside of the blocks are all-gathered once, those of
the blocks layer by layer. Differentiation turns each all-gather into a reduce-scatter, and sums what is replicated.

With A > 1 gradient accumulation steps this is GradCache (arXiv:2101.06983): the microbatches are embedded one after the other
and only their embeddings are kept; the banks see the whole batch; then each microbatch is embedded again and differentiated.
Losses and gradients are those of one large batch, for the price of a second forward pass.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh
from jaxtyping import Array, Float, Float32

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.encoder.encoder import Params
from ove.train.sharding import AllGather, placement, sharded_axes, sharded_axes_of_layer

Encode = Callable[[Params, dict[str, dict[str, Array]]], dict[str, Float[Array, "B E"]]]


def make_encode(config: EncoderConfig, mesh: Mesh, specs: Any, accumulate: int) -> Encode:
    """Returns `encode(params, batch)`, the embeddings of each bank's samples; for parameters that are sharded by `specs`."""
    of_layer = sharded_axes_of_layer(specs["blocks"])
    gather_layer = AllGather(of_layer, config.compute, config.compute) if of_layer else None
    # In float32, so that the gradients of several banks and microbatches are summed in it.
    gather_rest = AllGather(sharded_axes(_but_blocks(specs)), config.compute, "float32")

    def embed(params: Params, samples: dict[str, Array]) -> Array:
        pooled = encoder.apply(config, params, samples["patches"], samples["positions"], fetch=gather_layer).pooled
        assert pooled is not None, "train() refuses an encoder without a head"
        return pooled

    def on_device(params: Params, batch: dict[str, dict[str, Array]]) -> dict[str, Array]:
        params = params | gather_rest(_but_blocks(params))

        def embed_all(samples: dict[str, Array]) -> Array:
            if accumulate == 1:
                return embed(params, samples)
            microbatches = jax.tree.map(lambda x: rearrange(x, "(a b) ... -> a b ...", a=accumulate), samples)
            again = jax.checkpoint(partial(embed, params), prevent_cse=False)
            return rearrange(jax.lax.map(again, microbatches), "a b e -> (a b) e")

        return {bank: embed_all(samples) for bank, samples in batch.items()}

    samples = placement(mesh).samples
    return jax.shard_map(on_device, mesh=mesh, in_specs=(specs, samples), out_specs=samples, check_vma=False)


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
