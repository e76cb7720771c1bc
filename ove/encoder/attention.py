"""Scaled dot-product attention of heads that lie before tokens."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float


def attend(q: Float[Array, "B A N K"], k: Float[Array, "B A N K"], v: Float[Array, "B A N K"]) -> Float[Array, "B A N K"]:
    """Each query's mean of the values, weighted by softmax(q·k/√K); the result has the dtype of `q`."""
    return reference(q, k, v)


def reference(q: Float[Array, "B A N K"], k: Float[Array, "B A N K"], v: Float[Array, "B A N K"]) -> Float[Array, "B A N K"]:
    """Attention as it is written on paper; scores and softmax in float32."""
    scores = jnp.einsum("bank,bamk->banm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("banm,bamk->bank", weights.astype(v.dtype), v)
