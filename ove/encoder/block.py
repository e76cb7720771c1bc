"""The parts of a transformer block: norm, self-attention with RoPE, MLP."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ove.config import EncoderConfig
from ove.encoder.attention import attend
from ove.encoder.rope3d import rotate

KERNEL_STD = 0.02
"""Of all initial kernels (spec §1)."""


class Norm(nnx.Module):
    """LayerNorm, or RMSNorm (which has no bias); statistics in float32, the result in x's dtype."""

    def __init__(self, width: int, kind: str, eps: float):
        self.kind = kind
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        if kind == "layer_norm":
            self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        x32 = x.astype(jnp.float32)
        if self.kind == "layer_norm":
            x32 = x32 - x32.mean(-1, keepdims=True)
        x32 = x32 * jax.lax.rsqrt(jnp.square(x32).mean(-1, keepdims=True) + self.eps) * self.scale[...]
        if self.kind == "layer_norm":
            x32 = x32 + self.bias[...]
        return x32.astype(x.dtype)


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(KERNEL_STD)
        self.fc1 = nnx.Linear(width, hidden, kernel_init=normal, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, kernel_init=normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return linear(self.fc2, jax.nn.gelu(linear(self.fc1, x), approximate=False))


class SelfAttention(nnx.Module):
    """Attention of all tokens to all tokens, queries and keys turned by their positions."""

    def __init__(self, width: int, heads: int, *, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(KERNEL_STD)
        self.heads = heads
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], cos: Float[Array, "B 1 N K"], sin: Float[Array, "B 1 N K"]
    ) -> Float[Array, "B N D"]:
        q, k, v = rearrange(linear(self.qkv, x), "b n (three a k) -> three b a n k", three=3, a=self.heads)
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v)
        return linear(self.out, rearrange(mixed, "b a n k -> b n (a k)"))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.norm1 = Norm(config.width, config.norm, config.norm_eps)
        self.attention = SelfAttention(config.width, config.heads, rngs=rngs)
        self.norm2 = Norm(config.width, config.norm, config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp, rngs=rngs)

    def __call__(
        self, x: Float[Array, "B N D"], cos: Float[Array, "B 1 N K"], sin: Float[Array, "B 1 N K"]
    ) -> Float[Array, "B N D"]:
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


def linear(layer: nnx.Linear, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """x·kernel + bias (if the layer has one) in x's dtype; the float32 parameters are cast to it."""
    y = x @ layer.kernel[...].astype(x.dtype)
    return y if layer.bias is None else y + layer.bias[...].astype(x.dtype)
