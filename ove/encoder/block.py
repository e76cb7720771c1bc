"""The parts of a transformer block: norm, self-attention with RoPE, MLP."""

import functools
import math

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ove.config import EncoderConfig
from ove.encoder.attention import attend
from ove.encoder.order import after
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
        bias = self.bias[...] if self.kind == "layer_norm" else None
        return normed(self.eps, x, self.scale[...], bias)


class Mlp(nnx.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, width: int, hidden: int, *, init_std: float, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(init_std)
        self.fc1 = nnx.Linear(width, hidden, kernel_init=normal, rngs=rngs)
        self.fc2 = nnx.Linear(hidden, width, kernel_init=normal, rngs=rngs)

    def __call__(self, x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
        return self.contract(self.expand(x))

    def expand(self, x: Float[Array, "*B D"]) -> Float[Array, "*B F"]:
        """The first half, up to the GELU."""
        return linear(self.fc1, x)

    def contract(self, h: Float[Array, "*B F"]) -> Float[Array, "*B D"]:
        """The second half, from what `expand` gives."""
        return linear(self.fc2, gelu(h))


class SelfAttention(nnx.Module):
    """Attention of all tokens to all tokens (of their segment), queries and keys turned by their positions."""

    def __init__(self, width: int, heads: int, *, backend: str = "auto", init_std: float, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(init_std)
        self.heads = heads
        self.backend = backend
        self.qkv = nnx.Linear(width, 3 * width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)

    def project(
        self, x: Float[Array, "B N D"], cos: Float[Array, "B 1 N K"], sin: Float[Array, "B 1 N K"]
    ) -> tuple[Float[Array, "B A N K"], Float[Array, "B A N K"], Float[Array, "B A N K"]]:
        """Queries and keys, turned, and values."""
        q, k, v = rearrange(linear(self.qkv, x), "b n (three a k) -> three b a n k", three=3, a=self.heads)
        return rotate(q, cos, sin), rotate(k, cos, sin), v

    def merge(self, mixed: Float[Array, "B A N K"]) -> Float[Array, "B N D"]:
        """The output projection of what the heads have attended to."""
        return linear(self.out, rearrange(mixed, "b a n k -> b n (a k)"))


class Block(nnx.Module):
    """x + attention(norm(x)), then x + MLP(norm(x))."""

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
        # For the backward pass only x, the projections and the hidden values before the GELU are kept; norms and GELU are
        # computed again, which costs less than storing what they put out: the tiny encoder takes 11 % less time and half
        # the memory (N = 512, CPU). Without the barriers of prevent_cse, which a scan does not need.
        again = functools.partial(jax.checkpoint, prevent_cse=False)
        q, k, v = again(lambda x: self.attention.project(self.norm1(x), cos, sin))(x)
        # Named, as what `attend` keeps, for remat (encoder.py).
        x = checkpoint_name(x + again(self.attention.merge)(attend(q, k, v, segment_ids, self.attention.backend)), "block")
        hidden = checkpoint_name(again(lambda x: self.mlp.expand(self.norm2(x)))(x), "block")
        return x + again(self.mlp.contract)(hidden)


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def normed(
    eps: float, x: Float[Array, "*B D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None
) -> Float[Array, "*B D"]:
    """LayerNorm of x, or RMSNorm if there is no bias; statistics in float32, the result in x's dtype."""
    y = _standardised(eps, x, centred=bias is not None)[0] * scale
    return (y if bias is None else y + bias).astype(x.dtype)


def _normed_forward(eps: float, x: Array, scale: Array, bias: Array | None) -> tuple[Array, tuple[Array, Array, Array | None]]:
    return normed(eps, x, scale, bias), (x, scale, bias)


def _normed_backward(eps: float, kept: tuple[Array, Array, Array | None], dy: Array) -> tuple[Array, Array, Array | None]:
    x, scale, bias = kept
    y, inverse_std = _standardised(eps, x, centred=bias is not None)
    dy = dy.astype(jnp.float32)
    dy_y = dy * y
    # XLA's CPU backend takes 40 times as long for a sum of products as for the same as a matrix product, which is why this is
    # not left to differentiation.
    mean = functools.partial(jnp.einsum, "...d,d->...", precision=jax.lax.Precision.HIGHEST)
    dx = dy * scale - y * (mean(dy_y, scale) / x.shape[-1])[..., None]
    leading = tuple(range(x.ndim - 1))
    if bias is None:
        return (dx * inverse_std).astype(x.dtype), dy_y.sum(leading), None
    dx = dx - (mean(dy, scale) / x.shape[-1])[..., None]
    return (dx * inverse_std).astype(x.dtype), dy_y.sum(leading), dy.sum(leading)


normed.defvjp(_normed_forward, _normed_backward)


def _standardised(eps: float, x: Array, *, centred: bool) -> tuple[Array, Array]:
    """x of mean 0 (if centred) and mean square 1 in float32, and by what it was multiplied for that."""
    x = x.astype(jnp.float32)
    if centred:
        x = x - x.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    return x * inverse_std, inverse_std


@jax.custom_vjp
def gelu(x: Float[Array, "*B D"]) -> Float[Array, "*B D"]:
    """The exact GELU, x·(1 + erf(x/√2))/2."""
    # jax.nn.gelu goes by erfc, which on a CPU costs four times as much and differs by less than 1e-7·|x|.
    return 0.5 * x * (1 + jax.lax.erf(x * 0.5**0.5))


def _gelu_forward(x: Array) -> tuple[Array, Array]:
    return gelu(x), x


def _gelu_backward(x: Array, dy: Array) -> tuple[Array]:
    # erf is computed again once dy is there, not kept from when gelu(x) was: memory is dearer.
    x = after(x, dy)
    cumulative = 0.5 * (1 + jax.lax.erf(x * 0.5**0.5))
    density = jnp.exp(-0.5 * jnp.square(x)) * (2 * math.pi) ** -0.5
    return (dy * (cumulative + x * density),)


gelu.defvjp(_gelu_forward, _gelu_backward)


def linear(layer: nnx.Linear, x: Float[Array, "*B I"]) -> Float[Array, "*B O"]:
    """x·kernel + bias (if the layer has one) in x's dtype; the float32 parameters are cast to it."""
    # As one matrix product: with several leading axes XLA's CPU backend copies both gradients (1.3–1.7 times the time).
    y = times(x.reshape(-1, x.shape[-1]), layer.kernel[...].astype(x.dtype))
    if layer.bias is not None:
        y = y + layer.bias[...].astype(x.dtype)
    return y.reshape(*x.shape[:-1], y.shape[-1])


@jax.custom_vjp
def times(x: Float[Array, "N I"], kernel: Float[Array, "I O"]) -> Float[Array, "N O"]:
    """x·kernel; the gradient of the kernel is computed before that of x, and the kernel is fetched only when it is needed."""
    return x @ after(kernel, x)


def _times_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return times(x, kernel), (x, kernel)


def _times_backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    d_kernel = x.T @ dy
    return dy @ after(kernel, d_kernel).T, d_kernel


times.defvjp(_times_forward, _times_backward)
