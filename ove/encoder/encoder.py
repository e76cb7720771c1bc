"""The encoder: patches and their positions to tokens and one embedding."""

import functools
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Int, Key, UInt8

from ove.config import EncoderConfig
from ove.encoder.block import Block, Norm, linear
from ove.encoder.pool import Pool
from ove.encoder.rope3d import angles

MEAN_RGB = (0.48145466, 0.4578275, 0.40821073)
STD_RGB = (0.26862954, 0.26130258, 0.27577711)
"""Of pixels between 0 and 1 (spec §4)."""

Params = dict[str, Any]
"""Nested dictionary of float32 arrays; those of `blocks` have the layers as their first axis."""


class Encoded(NamedTuple):
    """What the encoder makes of a batch."""

    tokens: Float[Array, "B N D"]
    """After the last norm; before any norm if the encoder has no head (as in the published format)."""
    pooled: Float[Array, "B D"] | None
    """The embedding; None if the encoder has no head."""
    hidden: Float[Array, "layers B N D"] | None
    """Output of each block, on request."""


class Encoder(nnx.Module):
    """A vision transformer over a set of patches (spec §1); the order of the tokens carries no meaning."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        normal = nnx.initializers.normal(config.init_std)
        self.patch = nnx.Linear(config.patch_values, config.width, use_bias=False, kernel_init=normal, rngs=rngs)
        self.pre_norm = Norm(config.width, config.norm, config.norm_eps)

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        if config.head:
            self.post_norm = Norm(config.width, config.norm, config.norm_eps)
            self.pool = Pool(config.width, config.heads, config.mlp, config.norm_eps, init_std=config.init_std, rngs=rngs)

    def __call__(self, patches: Float[Array, "B N P"], positions: Int[Array, "B N 3"], *, hidden: bool = False) -> Encoded:
        """Normalised patches and their (t, y, x) to tokens and embedding, in the compute dtype."""
        config = self.config
        dtype = jnp.dtype(config.compute)
        turns = angles(positions, config.head_width, config.rope_theta, config.rope)[:, None]
        cos, sin = jnp.cos(turns).astype(dtype), jnp.sin(turns).astype(dtype)
        x = self.pre_norm(linear(self.patch, patches.astype(dtype)))

        graphdef, layers = nnx.split(self.blocks)

        def body(x: Array, layer: Any) -> tuple[Array, Array | None]:
            x = nnx.merge(graphdef, layer)(x, cos, sin)
            return x, (x if hidden else None)

        x, seen = jax.lax.scan(_remat(body, config.remat), x, layers)
        if not config.head:
            return Encoded(x, None, seen)
        x = self.post_norm(x)
        return Encoded(x, self.pool(x), seen)


def normalise(patches: UInt8[Array, "B N P"]) -> Float[Array, "B N P"]:
    """Flattened RGB patches of bytes to float32 of zero mean and unit variance over natural images (spec §4)."""
    n_pixels = patches.shape[-1] // 3
    scale = 1 / (255 * jnp.tile(jnp.array(STD_RGB, jnp.float32), n_pixels))
    shift = jnp.tile(jnp.array(MEAN_RGB, jnp.float32) / jnp.array(STD_RGB, jnp.float32), n_pixels)
    return patches.astype(jnp.float32) * scale - shift


def init(config: EncoderConfig, key: Key[Array, ""]) -> Params:
    """Fresh float32 parameters of the encoder; works under jit and eval_shape.

    Kernels N(0, config.init_std), probe N(0, 1), biases 0, norms 1 (spec §1).
    """
    return nnx.to_pure_dict(nnx.state(Encoder(config, rngs=nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: EncoderConfig,
    params: Params,
    patches: UInt8[Array, "B N P"],
    positions: Int[Array, "B N 3"],
    *,
    hidden: bool = False,
) -> Encoded:
    """Patches of bytes and their (t, y, x) to tokens and embedding, by the parameters that `init` gives."""
    model = nnx.merge(_graphdef(config), params)
    return model(normalise(patches), positions, hidden=hidden)


@functools.lru_cache(maxsize=16)
def _graphdef(config: EncoderConfig) -> nnx.GraphDef[Encoder]:
    model = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(model, nnx.Param, ...)[0]


def _remat(body: Any, mode: str) -> Any:
    if mode == "none":
        return body
    policy = jax.checkpoint_policies.dots_with_no_batch_dims_saveable if mode == "dots" else None
    return jax.checkpoint(body, policy=policy, prevent_cse=False)
