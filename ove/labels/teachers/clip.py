"""The vision tower of CLIP (spec §5)."""

import functools
from dataclasses import dataclass
from typing import Any, Literal

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from flax import nnx
from jaxtyping import Array, Float, UInt8

from ove.encoder.attention import attend
from ove.encoder.block import Norm, linear
from ove.records import MEAN_RGB, STD_RGB

Activation = Literal["quick_gelu", "gelu"]


@dataclass(frozen=True)
class ClipConfig:
    """Sizes of a tower. MetaCLIP H/14: 32 layers, width 1280, 16 heads, MLP 5120, patches of 14, 224 px, projection 1024."""

    layers: int
    width: int
    heads: int
    mlp: int
    patch_px: int
    image_px: int
    projection: int
    """E, the length of an embedding."""
    activation: Activation = "quick_gelu"
    norm_eps: float = 1e-5

    @property
    def patches(self) -> int:
        """Patches per picture."""
        return (self.image_px // self.patch_px) ** 2


class ClipBlock(nnx.Module):
    """A pre-norm transformer block: x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        width = config.width
        self.heads = config.heads
        self.activation = config.activation
        self.norm1 = Norm(width, "layer_norm", config.norm_eps)
        self.qkv = nnx.Linear(width, 3 * width, rngs=rngs)
        self.out = nnx.Linear(width, width, rngs=rngs)
        self.norm2 = Norm(width, "layer_norm", config.norm_eps)
        self.fc1 = nnx.Linear(width, config.mlp, rngs=rngs)
        self.fc2 = nnx.Linear(config.mlp, width, rngs=rngs)

    def __call__(self, x: Float[Array, "B N D"]) -> Float[Array, "B N D"]:
        q, k, v = rearrange(linear(self.qkv, self.norm1(x)), "b n (three a k) -> three b a n k", three=3, a=self.heads)
        x = x + linear(self.out, rearrange(attend(q, k, v), "b a n k -> b n (a k)"))
        h = linear(self.fc1, self.norm2(x))
        h = h * jax.nn.sigmoid(1.702 * h) if self.activation == "quick_gelu" else jax.nn.gelu(h, approximate=False)
        return x + linear(self.fc2, h)


class ClipTower(nnx.Module):
    """A vision transformer with a class token, learned positions and a projection of the class token."""

    def __init__(self, config: ClipConfig, *, rngs: nnx.Rngs):
        self.config = config
        self.patch = nnx.Linear(config.patch_px**2 * 3, config.width, use_bias=False, rngs=rngs)
        self.class_token = nnx.Param(jnp.zeros(config.width))
        self.positions = nnx.Param(jnp.zeros((config.patches + 1, config.width)))
        self.pre_norm = Norm(config.width, "layer_norm", config.norm_eps)

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs: nnx.Rngs) -> ClipBlock:
            return ClipBlock(config, rngs=rngs)

        self.blocks = stack(rngs)
        self.post_norm = Norm(config.width, "layer_norm", config.norm_eps)
        self.projection = nnx.Linear(config.width, config.projection, use_bias=False, rngs=rngs)

    def __call__(self, pictures: UInt8[Array, "B H W 3"], dtype: Any = jnp.float32) -> Float[Array, "B E"]:
        """Embeds pictures of side `image_px`, computing in `dtype`; returns float32, not normalised."""
        return self.embedding(self.blocks_of(pictures, dtype))

    def embedding(self, x: Float[Array, "B N D"]) -> Float[Array, "B E"]:
        """Projects the class token of `blocks_of`; returns float32."""
        return linear(self.projection, self.post_norm(x[:, 0])).astype(jnp.float32)

    def tokens(self, x: Float[Array, "B N D"]) -> Float[Array, "B n D"]:
        """Normalises the patches of `blocks_of`, without the class token."""
        return self.post_norm(x[:, 1:])

    def blocks_of(self, pictures: UInt8[Array, "B H W 3"], dtype: Any = jnp.float32) -> Float[Array, "B N D"]:
        """Returns the last block's output for the class token and the patches, computed in `dtype`."""
        p = self.config.patch_px
        pixels = (pictures.astype(jnp.float32) / 255 - jnp.array(MEAN_RGB)) / jnp.array(STD_RGB)
        side = self.config.image_px // p * p  # the remainder at the right and the bottom is dropped
        patches = rearrange(pixels[:, :side, :side], "b (y i) (x j) c -> b (y x) (i j c)", i=p, j=p)
        token = repeat(self.class_token[...], "d -> b 1 d", b=len(pictures))
        x = jnp.concatenate([token.astype(dtype), linear(self.patch, patches.astype(dtype))], axis=1)
        x = self.pre_norm(x + self.positions[...].astype(dtype))
        graphdef, layers = nnx.split(self.blocks)
        return jax.lax.scan(lambda x, layer: (nnx.merge(graphdef, layer)(x), None), x, layers)[0]


@functools.lru_cache(maxsize=8)
def tower_skeleton(config: ClipConfig) -> tuple[nnx.GraphDef[ClipTower], dict[str, Any]]:
    """Returns the tower's graph and the shapes of its parameters."""
    tower = nnx.eval_shape(lambda: ClipTower(config, rngs=nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(tower, nnx.Param, ...)[0], nnx.to_pure_dict(nnx.state(tower, nnx.Param))
