"""The parts of a transformer block: norm, self-attention with RoPE, MLP. On a CPU norm, GELU and linear are cpu.py's."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ove.config import EncoderConfig
from ove.encoder import cpu, machine
from ove.encoder.attention import attend
from ove.encoder.rope3d import rotate


class Norm(nnx.Module):
    """LayerNorm, or RMSNorm (which has no bias); statistics in float32, the result in x's dtype."""

    def __init__(self, width: int, kind: str, eps: float):
        self.kind = kind
        self.eps = eps
        self.scale = nnx.Param(jnp.ones(width, jnp.float32))
        if kind == "layer_norm":
            self.bias = nnx.Param(jnp.zeros(width, jnp.float32))

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        scale, bias = self.scale[...], self.bias[...] if self.kind == "layer_norm" else None
        if machine.current().kind == "cpu":
            return cpu.norm(self.eps, x, scale, bias)
        y = x.astype(jnp.float32)
        y = y if bias is None else y - y.mean(-1, keepdims=True)
        y = y * jax.lax.rsqrt(jnp.square(y).mean(-1, keepdims=True) + self.eps) * scale
        return (y if bias is None else y + bias).astype(x.dtype)


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int, *, init_std: float, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(init_std)
        self.fc1 = nnx.Linear(width, hidden, kernel_init=normal, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, kernel_init=normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return linear(self.fc2, gelu(checkpoint_name(linear(self.fc1, x), "mlp")))


class SelfAttention(nnx.Module):
    """Attention of all tokens to all tokens (of their segment); positions rotate queries and keys."""

    def __init__(self, width: int, heads: int, *, backend: str = "auto", init_std: float, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(init_std)
        self.heads = heads
        self.backend = backend
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        cos: Float[Array, "B 1 N K"],
        sin: Float[Array, "B 1 N K"],
        segment_ids: Int[Array, "B N"] | None = None,
    ) -> Float[Array, "B N D"]:
        q, k, v = to_heads(self.qkv, x, self.heads)
        mixed = attend(rotate(q, cos, sin), rotate(k, cos, sin), v, segment_ids, self.backend)
        return from_heads(self.out, mixed)


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x)). Names what a backward pass may keep (`remat`, encoder.py)."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.norm1 = Norm(config.width, config.norm, config.norm_eps)
        self.attention = SelfAttention(
            config.width, config.heads, backend=config.attention, init_std=config.init_std, rngs=rngs
        )
        self.norm2 = Norm(config.width, config.norm, config.norm_eps)
        self.mlp = Mlp(config.width, config.mlp, init_std=config.init_std, rngs=rngs)

    def __call__(
        self,
        x: Float[Array, "B N D"],
        cos: Float[Array, "B 1 N K"],
        sin: Float[Array, "B 1 N K"],
        segment_ids: Int[Array, "B N"] | None = None,
    ) -> Float[Array, "B N D"]:
        x = checkpoint_name(x + self.attention(self.norm1(x), cos, sin, segment_ids), "residual")
        return x + self.mlp(self.norm2(x))


def gelu(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """Computes the exact GELU, x·Φ(x)."""
    if machine.current().kind == "cpu":
        return cpu.gelu(x)
    # `jax.nn.gelu` uses erfc, which takes two approximations and a choice between them.
    y = x.astype(jnp.float32)
    return (0.5 * y * (1 + jax.lax.erf(y * 0.5**0.5))).astype(x.dtype)


def linear(layer: nnx.Linear, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """Computes x·kernel + bias (if the layer has one) in x's dtype, to which the float32 parameters are cast."""
    kernel, bias = _cast(layer, x)
    if machine.current().kind == "cpu":
        return cpu.linear(x, kernel, bias)
    return x @ kernel if bias is None else x @ kernel + bias


def to_heads(
    layer: nnx.Linear, x: Float[Array, "B N D"], heads: int
) -> tuple[Float[Array, "B A N K"], Float[Array, "B A N K"], Float[Array, "B A N K"]]:
    """Computes queries, keys and values, which `layer` makes side by side.

    On a TPU by a product each, which writes heads apart at once; there one product for all three would be copied several times.
    """
    if machine.current().kind != "tpu":
        q, k, v = rearrange(linear(layer, x), "b n (three a k) -> three b a n k", three=3, a=heads)
        return q, k, v
    kernels, biases = (rearrange(y, "... (three a k) -> three ... a k", three=3, a=heads) for y in _cast(layer, x))
    q, k, v = (jnp.einsum("bnd,dak->bank", x, w) + b[:, None] for w, b in zip(kernels, biases, strict=True))
    return q, k, v


def from_heads(layer: nnx.Linear, mixed: Float[Array, "B A N K"]) -> Float[Array, "B N D"]:
    """Applies `layer` to heads laid side by side; on a TPU without laying them."""
    if machine.current().kind != "tpu":
        return linear(layer, rearrange(mixed, "b a n k -> b n (a k)"))
    kernel, bias = _cast(layer, mixed)
    return jnp.einsum("bank,akd->bnd", mixed, rearrange(kernel, "(a k) d -> a k d", a=mixed.shape[1])) + bias


def _cast(layer: nnx.Linear, x: Array) -> tuple[Array, Any]:
    """Returns kernel and bias (or None) in x's dtype."""
    return layer.kernel[...].astype(x.dtype), None if layer.bias is None else layer.bias[...].astype(x.dtype)
