"""The encoder's part of a step on a mesh: embeddings of the whole batch, later the gradient of the parameters.

Every device works on its own samples inside `shard_map`, so that attention kernels see ordinary arrays and nothing is moved
that is not named here: of cut parameters (`ove.train.sharding`) those outside of the blocks are gathered once, those of the
blocks layer by layer, and gradients are summed at the end.

With `accumulate` microbatches the embeddings come first, without keeping anything for the backward pass; then the banks see
the whole batch; then each microbatch is embedded again and differentiated. Losses and gradients are those of one large batch,
for the price of a second forward pass."""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jax.sharding import Mesh, PartitionSpec
from jaxtyping import Array, Float, Float32

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.encoder.encoder import Params
from ove.train.sharding import FSDP, Fetch, cuts_of, cuts_of_layer, in_order, one_of, placement, scatter

_JOINED = 2**16
"""Gradients of at most so many numbers are summed over the devices together."""


class Held(NamedTuple):
    """What one bank's samples were, and what their backward pass needs."""

    patches: Array
    positions: Array
    residuals: list[Array]
    """Piled up by device; none where microbatches are embedded again."""


class Encoding:
    """Forward and backward pass on a mesh for parameters that lie there by `specs`; for one trace of a step."""

    def __init__(self, config: EncoderConfig, mesh: Mesh, specs: Any, accumulate: int) -> None:
        self._config, self._mesh, self._specs, self._accumulate = config, mesh, specs, accumulate
        self._outside = cuts_of({name: part for name, part in specs.items() if name != "blocks"})
        of_layer = cuts_of_layer(specs["blocks"])
        self._fetch = Fetch(of_layer, config.compute) if of_layer else None
        whole: Any = PartitionSpec()
        # Of what `gathered` gives: only the blocks are still cut.
        self._gathered_specs = {name: specs[name] if name == "blocks" else whole for name in specs}
        self._samples, self._pile = placement(mesh).samples, PartitionSpec(mesh.axis_names)
        self._pull: list[Any] = []

    def gathered(self, params: Params) -> tuple[Params, Float[Array, ""]]:
        """The parameters with those outside of the blocks whole, and a number that is there when they are."""

        def on_device(params: Params) -> tuple[Params, Array]:
            outside = Fetch(self._outside, self._config.compute)(_but_blocks(params))
            return params | outside, one_of(*jax.tree.leaves(outside))

        if not self._outside:
            return params, jnp.zeros(())
        return self._mapped(on_device, (self._specs,), (self._gathered_specs, PartitionSpec()))(params)

    def forward(
        self, params: Params, batch: dict[str, Array], earlier: Float[Array, ""]
    ) -> tuple[Float[Array, "B E"], Held, Float[Array, ""]]:
        """The embeddings of one bank's samples, what `backward` needs, and a number that is there when the embeddings are.

        `params`: as `gathered`. Not before `earlier` is there, a number of that kind (`ove.train.sharding.in_order`).
        """
        patches, positions = batch["patches"], batch["positions"]
        number = len(self._pull)
        self._pull.append(None)

        def on_device(params: Params, patches: Array, positions: Array, earlier: Array) -> tuple[Array, list[Array], Array]:
            if self._fetch:
                positions = in_order(positions, earlier)
            if self._accumulate > 1:
                pooled = jax.lax.map(lambda seen: self._embed(params, *seen), self._split(patches, positions))
                return rearrange(pooled, "a b e -> (a b) e"), [], one_of(pooled)
            pooled, pull = jax.vjp(lambda params: self._embed(params, patches, positions), params)
            residuals, self._pull[number] = jax.tree.flatten(pull)
            return pooled, [residual[None] for residual in residuals], one_of(pooled)

        in_specs = self._gathered_specs, self._samples, self._samples, PartitionSpec()
        mapped = self._mapped(on_device, in_specs, (self._samples, self._pile, PartitionSpec()))
        pooled, residuals, done = mapped(params, patches, positions, earlier)
        return pooled, Held(patches, positions, residuals), done

    def backward(
        self, params: Params, held: list[Held], slopes: list[Float[Array, "B E"]]
    ) -> tuple[Params, dict[str, Float32[Array, ""]]]:
        """The gradient of the parameters, cut as they are, from that of each bank's embeddings; and its norms, `part_norms`.

        `params`: as `gathered`.
        """

        def on_device(params: Params, held: list[Held], slopes: list[Array]) -> tuple[Params, dict[str, Array]]:
            grads = jax.tree.map(lambda leaf: jnp.zeros(leaf.shape, jnp.float32), params)
            earlier = jnp.zeros(())
            for number, (one, slope) in enumerate(zip(held, slopes, strict=True)):
                grads = self._pull_back(params, number, Held(*one), in_order(slope, earlier), grads)
                earlier = one_of(*jax.tree.leaves(grads))
            grads = grads | scatter(self._outside, _but_blocks(grads), earlier)
            return self._summed(grads, one_of(*jax.tree.leaves(grads)))

        as_samples: Any = self._samples
        as_pile: list[Any] = [self._pile]
        held_specs = [Held(as_samples, as_samples, as_pile * len(one.residuals)) for one in held]
        in_specs = self._gathered_specs, held_specs, self._samples
        return self._mapped(on_device, in_specs, (self._specs, PartitionSpec()))(params, held, slopes)

    def _embed(self, params: Params, patches: Array, positions: Array) -> Array:
        pooled = encoder.apply(self._config, params, patches, positions, fetch=self._fetch).pooled
        assert pooled is not None, "train() refuses an encoder without a head"
        return pooled

    def _pull_back(self, params: Params, number: int, held: Held, slope: Array, grads: Params) -> Params:
        """`grads` and those of one bank's samples."""
        if self._accumulate == 1:
            residuals = [residual[0] for residual in held.residuals]
            (more,) = jax.tree.unflatten(self._pull[number], residuals)(slope)
            return jax.tree.map(jnp.add, grads, more)

        def add(grads: Params, seen: tuple[Array, ...]) -> tuple[Params, None]:
            patches, positions, slope = seen
            pull = jax.vjp(lambda params: self._embed(params, patches, positions), params)[1]
            return jax.tree.map(jnp.add, grads, pull(slope)[0]), None

        return jax.lax.scan(add, grads, self._split(held.patches, held.positions, slope))[0]

    def _split(self, *arrays: Array) -> tuple[Array, ...]:
        """A device's samples as microbatches; no sample changes its device."""
        return tuple(rearrange(x, "(a b) ... -> a b ...", a=self._accumulate) for x in arrays)

    def _summed(self, grads: Params, earlier: Array) -> tuple[Params, dict[str, Array]]:
        """Over the devices that saw other samples; pieces of `fsdp` have been summed over that axis already."""
        leaves, structure = jax.tree.flatten(grads)
        specs = jax.tree.leaves(self._specs, is_leaf=lambda leaf: isinstance(leaf, PartitionSpec))
        is_cut = [FSDP in tuple(spec) for spec in specs]
        axes = [tuple(a for a in self._mesh.axis_names if not (cut and a == FSDP)) for cut in is_cut]
        small = [i for i, leaf in enumerate(leaves) if leaf.size <= _JOINED and not is_cut[i]]
        joined = jnp.concatenate([leaves[i].ravel() for i in small])
        joined = jax.lax.psum(in_order(joined, earlier), self._mesh.axis_names)
        earlier, place = one_of(joined), 0
        for i in small:
            leaves[i] = joined[place : place + leaves[i].size].reshape(leaves[i].shape)
            place += leaves[i].size
        for i, leaf in enumerate(leaves):
            if i not in small:
                leaves[i] = jax.lax.psum(in_order(leaf, earlier), axes[i])
                earlier = one_of(leaves[i])
        squares = [
            jnp.square(leaf).sum() / (1 if cut else self._mesh.shape.get(FSDP, 1))
            for leaf, cut in zip(leaves, is_cut, strict=True)
        ]

        def over_pieces(parts: Array) -> Array:
            return jax.lax.psum(in_order(parts, earlier), FSDP) if any(is_cut) else parts

        return jax.tree.unflatten(structure, leaves), part_norms(jax.tree.unflatten(structure, squares), over_pieces)

    def _mapped(self, function: Any, in_specs: Any, out_specs: Any) -> Any:
        # Unchecked: what is called whole is the same everywhere, for it was summed over all devices, or serves only to wait.
        return jax.shard_map(function, mesh=self._mesh, in_specs=in_specs, out_specs=out_specs, check_vma=False)


def _but_blocks(params: Params) -> Params:
    return {name: part for name, part in params.items() if name != "blocks"}


PARTS = {
    "patch": ("patch", "pre_norm"),
    "blocks": ("blocks",),
    "head": ("post_norm", "pool"),
}
"""Part → the modules of the encoder that it consists of."""


def part_norms(
    squares: dict[str, Any], over_devices: Callable[[Float32[Array, "parts"]], Float32[Array, "parts"]] = lambda parts: parts
) -> dict[str, Float32[Array, ""]]:
    """`grad_norm/patch`, `/blocks`, `/head`, and `/encoder` over all of them, from the sum of squares of each gradient.

    Euclidean norms before clipping. `squares` is nested as the encoder's parameters; `over_devices` adds up what several
    devices hold. The squares of the parts add up to that of the encoder.
    """
    sums = [
        sum(jax.tree.leaves([squares[module] for module in modules if module in squares]), jnp.zeros(()))
        for modules in PARTS.values()
    ]
    parts = over_devices(jnp.stack(sums))
    norms = {f"grad_norm/{part}": jnp.sqrt(parts[i]) for i, part in enumerate(PARTS)}
    return norms | {"grad_norm/encoder": jnp.sqrt(parts.sum())}
