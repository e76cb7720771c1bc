"""Scaled dot-product attention of heads that lie before tokens: one front end, one implementation a kind of machine."""

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

from ove.encoder.attention_cpu import attend_in_chunks


def attend(q: Float[Array, "B A N K"], k: Float[Array, "B A N K"], v: Float[Array, "B A N K"]) -> Float[Array, "B A N K"]:
    """Each query's mean of the values, weighted by softmax(q·k/√K); the result has the dtype of `q`.

    On a CPU `attend_in_chunks`, elsewhere what JAX offers.
    """
    if jax.default_backend() == "cpu":
        return attend_in_chunks(q, k, v)
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    return rearrange(jax.nn.dot_product_attention(q, k, v), "b n a k -> b a n k")


def reference(q: Float[Array, "B A N K"], k: Float[Array, "B A N K"], v: Float[Array, "B A N K"]) -> Float[Array, "B A N K"]:
    """Attention as it is written on paper; scores and softmax in float32."""
    scores = jnp.einsum("bank,bamk->banm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("banm,bamk->bank", weights.astype(v.dtype), v)
