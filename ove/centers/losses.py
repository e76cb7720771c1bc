"""The cluster loss: each embedding against its positives and the drawn centers."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int

from ove.centers.bank import Sampled
from ove.centers.sample import Drawn

LogitMeans = dict[str, Float32[Array, ""]]
"""`positive_logit` and `negative_logit`, each the mean over its pairs; NaN where a batch has none."""
NORM_FLOOR = 1e-12
"""Least squared norm of a cosine's vectors: unused slots hold rows of 0, whose direction must have no gradient."""


def sigmoid_loss(embeddings: Float[Array, "B E"], sampled: Sampled, drawn: Drawn) -> tuple[Float32[Array, ""], LogitMeans]:
    """Sigmoid cluster loss of logits scale · cos(embedding, center) + bias, in float32.

    For each embedding the centers are its drawn labels and the drawn negatives; softplus(−y·logit), where y = 1 for all
    labels of the sample and −1 for the rest; the sum over centers, the mean over embeddings. A center counts once for an
    embedding, and none of its labels ever as a negative, even one that was not drawn in this step. Spec §3, paper eq. 9.
    """
    cosines = _dot(_unit(embeddings), _unit(sampled.rows))
    return _softplus_loss(sampled.scale * cosines + sampled.bias, drawn)


def raw_loss(embeddings: Float[Array, "B E"], sampled: Sampled, drawn: Drawn) -> tuple[Float32[Array, ""], LogitMeans]:
    """As `sigmoid_loss`, with the bare dot product as the logit (paper eq. 9); scale and bias get a gradient of 0."""
    return _softplus_loss(_dot(embeddings, sampled.rows), drawn)


def _softplus_loss(logits: Float32[Array, "B S"], drawn: Drawn) -> tuple[Float32[Array, ""], LogitMeans]:
    is_label = _holds(drawn.all_labels, drawn.ids)
    positive = is_label & (drawn.is_negative | _holds(drawn.labels, drawn.ids))
    negative = drawn.is_negative & ~is_label
    terms = jax.nn.softplus(jnp.where(positive, -logits, logits))
    loss = jnp.where(positive | negative, terms, 0.0).sum() / logits.shape[0]
    return loss, {"positive_logit": _mean_where(logits, positive), "negative_logit": _mean_where(logits, negative)}


def _holds(labels: Int[Array, "B M"], ids: Int[Array, "S"]) -> Bool[Array, "B S"]:
    return (labels[:, :, None] == ids).any(axis=1)


def _mean_where(logits: Float32[Array, "B S"], mask: Bool[Array, "B S"]) -> Float32[Array, ""]:
    return jax.lax.stop_gradient(jnp.where(mask, logits, 0.0).sum() / mask.sum())


def _unit(x: Float[Array, "R E"]) -> Float32[Array, "R E"]:
    x32 = x.astype(jnp.float32)
    return x32 * jax.lax.rsqrt(jnp.maximum(jnp.square(x32).sum(-1, keepdims=True), NORM_FLOOR))


def _dot(embeddings: Float[Array, "B E"], rows: Float[Array, "S E"]) -> Float32[Array, "B S"]:
    # "highest": accelerators otherwise multiply float32 in fewer bits.
    return jnp.einsum("be,se->bs", embeddings.astype(jnp.float32), rows, precision="highest")
