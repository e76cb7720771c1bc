"""Norm, GELU and linear layer for XLA's CPU backend, with gradients written by hand (reverse mode only).

What each computes is what its namesake in block.py computes; only time and memory differ, as said beside each.
"""

import functools
import math

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Shaped

from ove.encoder import machine


@functools.partial(jax.custom_vjp, nondiff_argnums=(0,))
def norm(
    eps: float, x: Float[Array, "*B D"], scale: Float[Array, " D"], bias: Float[Array, " D"] | None
) -> Float[Array, "*B D"]:
    """Applies LayerNorm, or RMSNorm without a bias; its gradient sums by matrix products, for XLA takes 40 times as long
    for sums of products."""
    y = _standardize(eps, x, centred=bias is not None)[0] * scale
    return (y if bias is None else y + bias).astype(x.dtype)


def _norm_forward(eps: float, x: Array, scale: Array, bias: Array | None) -> tuple[Array, tuple[Array, Array, Array | None]]:
    return norm(eps, x, scale, bias), (x, scale, bias)


def _norm_backward(eps: float, kept: tuple[Array, Array, Array | None], dy: Array) -> tuple[Array, Array, Array | None]:
    x, scale, bias = kept
    y, inverse_std = _standardize(eps, x, centred=bias is not None)
    dy = dy.astype(jnp.float32)
    dy_y = dy * y
    mean = functools.partial(jnp.einsum, "...d,d->...", precision=jax.lax.Precision.HIGHEST)
    dx = dy * scale - y * (mean(dy_y, scale) / x.shape[-1])[..., None]
    leading = tuple(range(x.ndim - 1))
    if bias is None:
        return (dx * inverse_std).astype(x.dtype), dy_y.sum(leading), None
    dx = dx - (mean(dy, scale) / x.shape[-1])[..., None]
    return (dx * inverse_std).astype(x.dtype), dy_y.sum(leading), dy.sum(leading)


norm.defvjp(_norm_forward, _norm_backward)


def _standardize(eps: float, x: Array, *, centred: bool) -> tuple[Array, Array]:
    """Returns x with mean 0 (if centred) and mean square 1 in float32, and the factor that made it so."""
    x = x.astype(jnp.float32)
    if centred:
        x = x - x.mean(-1, keepdims=True)
    inverse_std = jax.lax.rsqrt(jnp.square(x).mean(-1, keepdims=True) + eps)
    return x * inverse_std, inverse_std


@jax.custom_vjp
def gelu(x: Float[Array, "*B F"]) -> Float[Array, "*B F"]:
    """Computes x·(1 + erf(x/√2))/2; `jax.nn.gelu` uses erfc, takes four times as long and differs by less than 1e-7·|x|."""
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


def linear(x: Float[Array, "*B I"], kernel: Float[Array, "I O"], bias: Float[Array, " O"] | None) -> Float[Array, "*B O"]:
    """Computes x·kernel + bias with two axes only: with more XLA copies both gradients (1.3–1.7 times the time)."""
    y = _product(x.reshape(-1, x.shape[-1]), kernel)
    if bias is not None:
        y = y + bias
    return y.reshape(*x.shape[:-1], y.shape[-1])


@jax.custom_vjp
def _product(x: Array, kernel: Array) -> Array:
    # The kernel is fetched only when it is needed, and its gradient computed before that of x.
    return x @ after(kernel, x)


def _product_forward(x: Array, kernel: Array) -> tuple[Array, tuple[Array, Array]]:
    return _product(x, kernel), (x, kernel)


def _product_backward(kept: tuple[Array, Array], dy: Array) -> tuple[Array, Array]:
    x, kernel = kept
    d_kernel = x.T @ dy
    return dy @ after(kernel, d_kernel).T, d_kernel


_product.defvjp(_product_forward, _product_backward)


def after(x: Shaped[Array, "..."], y: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """Returns `x`, available only once `y` is computed; floats of any shapes.

    XLA's CPU backend starts all that it can at once. What is cut out of a stack for later, such as a layer's weights and what
    was kept for its backward pass, then lies about as a copy for as long as the layer takes. With this it waits: a third less
    memory for a training step, in no more time. Elsewhere, and where several devices would have to agree, it is `x` itself.
    """
    if machine.current().kind != "cpu" or jax.device_count() > 1:
        return x
    # A zero that XLA does not see through, and that is one even if y is not finite. (XLA drops an optimization_barrier before
    # it chooses the order.)
    bits = jax.lax.bitcast_convert_type(y[(0,) * y.ndim].astype(jnp.float32), jnp.uint32)
    return x + ((bits >> 31) >> 1).astype(x.dtype)
