"""Scaled dot-product attention of heads that lie before tokens: one front end, one implementation a kind of machine."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float, Int

from ove.encoder.attention_cpu import attend_in_chunks


def attend(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
    backend: str = "auto",
) -> Float[Array, "B A N K"]:
    """Each query's mean of the values, weighted by softmax(q·k/√K); the result has the dtype of `q`.

    With `segment_ids` tokens attend to those of the same id only (padding is a segment like any other).
    """
    return (reference if backend == "reference" else attend_in_chunks)(q, k, v, segment_ids)


def reference(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
) -> Float[Array, "B A N K"]:
    """Attention as it is written on paper; scores and softmax in float32. Memory grows with the square of N."""
    scores = jnp.einsum("bank,bamk->banm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if segment_ids is not None:
        together = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        scores = jnp.where(together, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("banm,bamk->bank", weights.astype(v.dtype), v)
