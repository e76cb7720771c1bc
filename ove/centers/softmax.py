"""The margin softmax of the reference: for each drawn label one softmax over that label and the sampled rows.

All softmaxes of an embedding share the sum over rows that are not among its drawn labels. The first pass over the chunks
computes that sum and the labels' cosines, the second the gradients.
"""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Bool, Float32

from ove.centers.losses import LossInputs, LossParts, Unit, dot, normalize, over_chunks
from ove.config import CentersConfig


def margin_softmax_parts(at: LossInputs) -> LossParts:
    """Returns the contribution of one shard to the mean over labels of −log softmax.

    Logits are scale times: cosine − margin for the label; cosine, or 0 if above the filter, for every other row of the sample,
    the embedding's other labels included. Each of its drawn labels has a softmax; the mean is over all that exist. Spec §3.
    """
    config, slot, seen = at.config, at.chosen, normalize(at.embeddings)
    n_samples, ids = len(at.embeddings), at.sample.ids
    sample_number = jnp.arange(n_samples)[:, None]
    scale, cosine_sum = config.softmax_scale, seen.vectors.sum(0)
    is_used = ids < len(at.bank.rows)

    def cosines_of(chunk_rows: Float32[Array, "s E"]) -> tuple[Unit, Float32[Array, "B s"]]:
        right = normalize(chunk_rows)
        return right, dot(config, "be,se->bs", seen.vectors, right.vectors)

    def count(sums: tuple, chunk_rows: Array, used: Array, place: Array) -> tuple[tuple, None]:
        others, label_cosine, total = sums
        right, cosine = cosines_of(chunk_rows)
        label_cosine += cosine.at[sample_number, place].get(mode="fill", fill_value=0.0)
        terms = jnp.where(used, jnp.exp(scale * _filtered(cosine, config)), 0)
        others += terms.at[sample_number, place].set(0.0, mode="drop").sum(1)
        return (others, label_cosine, total + jnp.where(used, right.vectors @ cosine_sum, 0).sum()), None

    zero = jnp.zeros(n_samples), jnp.zeros(slot.shape), jnp.zeros(())
    (others, label_cosine, total), _ = over_chunks(count, zero, at, slot, is_used)
    is_here = slot < len(ids)
    others, label_cosine, exists = at.placement.psum_bank(others, label_cosine, is_here.astype(jnp.float32))
    labels = _labels(others, label_cosine, exists > 0, at)

    def pull(grad: Array, chunk_rows: Array, used: Array, place: Array) -> tuple[Array, Array]:
        right, cosine = cosines_of(chunk_rows)
        terms = jnp.where(used & (cosine <= config.softmax_filter), jnp.exp(scale * cosine), 0)
        slope = scale * terms * labels.weight
        slope = slope.at[sample_number, place].set(labels.slope, mode="drop")
        rows_grad = right.back(dot(config, "bs,be->es", slope, seen.vectors).T)
        return grad + dot(config, "bs,se->be", slope, right.vectors), rows_grad

    grad, rows_grad = over_chunks(pull, jnp.zeros(at.embeddings.shape), at, slot, is_used)
    label_sum, n_labels = jnp.where(is_here, label_cosine, 0).sum(), is_here.sum().astype(jnp.float32)
    return LossParts(
        jnp.where(is_here, labels.losses, 0).sum(),
        seen.back(grad),
        rows_grad,
        jnp.zeros(2),
        jnp.stack([scale * label_sum, n_labels]),
        jnp.stack([scale * (total - label_sum), is_used.sum() * float(n_samples) - n_labels]),
    )


class _Labels(NamedTuple):
    losses: Float32[Array, "B M"]
    """Loss of each softmax, divided by the number of labels."""
    weight: Float32[Array, "B 1"]
    """Sum over the softmaxes of an embedding of 1 / denominator, divided by the number of labels."""
    slope: Float32[Array, "B M"]
    """Derivative by the label's cosine, through its own softmax and those of the other labels."""


def _labels(others: Float32[Array, "B"], cosine: Float32[Array, "B M"], exists: Bool[Array, "B M"], at: LossInputs) -> _Labels:
    config, scale, mean = at.config, at.config.softmax_scale, 1 / at.n_labels
    as_other = jnp.where(exists, jnp.exp(scale * _filtered(cosine, config)), 0)
    target = scale * (cosine - config.softmax_margin)
    # Leave-one-out sums: subtracting a large term afterwards would cancel the small ones.
    but_own = jnp.where(jnp.eye(cosine.shape[1], dtype=bool), 0, as_other[:, None, :]).sum(2)
    denominator = others[:, None] + but_own + jnp.exp(target)
    inverse = jnp.where(exists, mean / denominator, 0)
    weight = inverse.sum(1, keepdims=True)
    through_others = jnp.where(jnp.eye(cosine.shape[1], dtype=bool), 0, inverse[:, None, :]).sum(2)
    passes = cosine <= config.softmax_filter
    slope = scale * (jnp.exp(target) * inverse - jnp.where(exists, mean, 0) + passes * as_other * through_others)
    return _Labels(mean * (jnp.log(denominator) - target), weight, slope)


def _filtered(cosine: Float32[Array, "*n"], config: CentersConfig) -> Float32[Array, "*n"]:
    return jnp.where(cosine > config.softmax_filter, 0.0, cosine)
