"""Losses of a batch against the sampled rows of one shard; the sigmoid ones with gradients in one pass, chunk by chunk.

The terms are softplus(−y·z) with y = ±1. Each chunk computes the logits z of all pairs as negatives with dense products; the
few positive pairs are masked and added with their own sign. No sign matrix is materialised; only sums and the rows' gradient
outlive a chunk.
"""

from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int32

from ove.centers.bank import Bank
from ove.centers.placement import BankPlacement
from ove.centers.sample import RowSample, chunks
from ove.config import CentersConfig

NORM_FLOOR = 1e-12
"""Minimum squared norm in a cosine: unused slots hold zero rows, which must have no gradient."""
_NEVER = -1e30
"""A logit whose softplus, and its derivative, is exactly 0."""


class LossInputs(NamedTuple):
    """What a loss gets, inside `shard_map`: B samples of a batch, or all of them, and one shard of the bank."""

    embeddings: Float[Array, "B E"]
    bank: Bank
    sample: RowSample
    known: Int32[Array, "B L"]
    """Slots of the distinct labels of each embedding; S for labels in other shards and missing ones."""
    chosen: Int32[Array, "B M"]
    """The same of the labels drawn for this step."""
    n_samples: Float32[Array, ""]
    """Of the whole batch: what sums over samples are divided by."""
    n_labels: Float32[Array, ""]
    """Labels drawn for the whole batch, at least 1."""
    fraction: float
    """Share of the bank's centers that is drawn."""
    placement: BankPlacement
    config: CentersConfig

    def counts_for_others(self) -> Bool[Array, "S"]:
        """Rows that are negatives for embeddings without their label (`config.undrawn_positives`)."""
        is_used = self.sample.ids < len(self.bank.rows)
        return is_used & self.sample.is_drawn if self.config.undrawn_positives == "ignore" else is_used


class LossParts(NamedTuple):
    """Contribution of these samples and this shard to loss and gradients of the batch, divided by its samples or labels."""

    loss: Float32[Array, ""]
    embeddings: Float32[Array, "B E"]
    """Gradient; so are the next two."""
    rows: Float32[Array, "S E"]
    logit: Float32[Array, "2"]
    """Gradient with respect to scale and bias."""
    positives: Float32[Array, "2"]
    """Sum of the logits of the positive pairs, and their number."""
    negatives: Float32[Array, "2"]


class Unit(NamedTuple):
    """L2-normalised vectors with their inverse norms."""

    vectors: Float32[Array, "n E"]
    inverse_norm: Float32[Array, "n 1"]

    def back(self, gradient: Float32[Array, "n E"]) -> Float32[Array, "n E"]:
        """Pulls a gradient with respect to the unit vectors back to the original ones."""
        radial = (gradient * self.vectors).sum(-1, keepdims=True)
        return (gradient - radial * self.vectors) * self.inverse_norm


def normalize(x: Float[Array, "n E"]) -> Unit:
    """L2-normalises vectors in float32."""
    x32 = x.astype(jnp.float32)
    inverse_norm = jax.lax.rsqrt(jnp.maximum(jnp.square(x32).sum(-1, keepdims=True), NORM_FLOOR))
    return Unit(x32 * inverse_norm, inverse_norm)


class _Raw(NamedTuple):
    """Vectors that are taken as they are, where `Unit` normalises."""

    vectors: Float32[Array, "n E"]

    def back(self, gradient: Float32[Array, "n E"]) -> Float32[Array, "n E"]:
        return gradient


def sigmoid_parts(at: LossInputs) -> LossParts:
    """Computes `_softplus_parts` of scale · cosine + bias."""
    seen, scale = normalize(at.embeddings), at.bank.scale
    found = _softplus_parts(at, scale * seen.vectors, at.bank.bias, normalize)
    scale_grad = (found.embeddings * seen.vectors).sum()
    return found._replace(embeddings=seen.back(scale * found.embeddings), logit=found.logit.at[0].set(scale_grad))


def raw_parts(at: LossInputs) -> LossParts:
    """Computes `_softplus_parts` of the dot product; scale and bias get a gradient of 0."""
    found = _softplus_parts(at, at.embeddings.astype(jnp.float32), jnp.zeros(()), _Raw)
    return found._replace(logit=jnp.zeros(2))


def _softplus_parts(
    at: LossInputs,
    left: Float32[Array, "B E"],
    shift: Float32[Array, ""],
    prepare: Callable[[Float32[Array, "s E"]], Unit | _Raw],
) -> LossParts:
    """Returns the contribution of one shard to the sum over centers, mean over embeddings, of softplus(−y·z).

    z = left · prepare(rows) + shift; the gradients `embeddings` and `logit` are those of `left` and (0, shift). Positives of an
    embedding are all its labels, negatives all other rows of the sample (`config.undrawn_positives`), weighted by 1, or
    1/fraction. Spec §3, paper eq. 9.
    """
    n_samples, config = len(left), at.config
    left_sum, sample_number = left.sum(0), jnp.arange(n_samples)[:, None]
    negative_weight = 1 / at.fraction if config.negative_weight == "1/r" else 1.0

    def of_chunk(
        sums: tuple, chunk_rows: Float32[Array, "s E"], is_negative: Bool[Array, "s"], place: Int32[Array, "B L"]
    ) -> tuple[tuple, Float32[Array, "s E"]]:
        loss, embeddings_grad, bias_grad, positives, negatives = sums
        right = prepare(chunk_rows)
        logits = dot(config, "be,se->bs", left, right.vectors) + shift
        is_here = place < len(chunk_rows)
        label_logits = logits.at[sample_number, place].get(mode="fill", fill_value=0.0)
        logits = logits.at[sample_number, place].set(_NEVER, mode="drop")
        small = jnp.exp(-jnp.abs(logits))
        weight = jnp.where(is_negative, negative_weight, 0.0)
        loss += (weight * (jnp.maximum(logits, 0) + jnp.log1p(small))).sum(1)
        loss += jnp.where(is_here, jax.nn.softplus(-label_logits), 0).sum(1)
        slope = weight * jnp.where(logits >= 0, 1.0, small) / (1 + small)
        slope = slope.at[sample_number, place].set(-jax.nn.sigmoid(-label_logits), mode="drop")
        embeddings_grad += dot(config, "bs,se->be", slope, right.vectors)
        bias_grad += slope.sum(1)
        n_negative, n_here = is_negative.sum(), is_here.sum()
        # Over rows that count as negatives; labels among them are subtracted below.
        all_logits = jnp.where(is_negative, right.vectors @ left_sum + n_samples * shift, 0).sum()
        both = is_here & is_negative.at[place].get(mode="fill", fill_value=False)
        positives += jnp.stack([jnp.where(is_here, label_logits, 0).sum(), n_here])
        negatives += jnp.stack(
            [all_logits - jnp.where(both, label_logits, 0).sum(), n_negative * float(n_samples) - both.sum()]
        )
        # Contracting the first axes is faster on a CPU, and equal on accelerators.
        rows_grad = dot(config, "bs,be->es", slope, left).T / at.n_samples
        return (loss, embeddings_grad, bias_grad, positives, negatives), right.back(rows_grad)

    zero = jnp.zeros(n_samples), jnp.zeros(left.shape), jnp.zeros(n_samples), jnp.zeros(2), jnp.zeros(2)
    sums, rows_grad = over_chunks(of_chunk, zero, at, at.known, at.counts_for_others())
    loss, embeddings_grad, bias_grad, positives, negatives = sums
    logit_grad = jnp.stack([jnp.zeros(()), bias_grad.sum() / at.n_samples])
    return LossParts(loss.sum() / at.n_samples, embeddings_grad / at.n_samples, rows_grad, logit_grad, positives, negatives)


OwnLoss = Callable[..., Float32[Array, ""]]
"""(embeddings (B, E), rows (S, E), is_positive (B, S), is_negative (B, S), scale, bias) → the sum over all pairs, float32."""


def own_parts(loss: OwnLoss, at: LossInputs) -> LossParts:
    """Computes one shard's part of a user's loss, a sum over pairs, divided by the samples.

    Gradients are automatic. Only the sampled rows are differentiated, all at once: memory grows with B · S. Unused slots hold
    rows of 0 and are neither positive nor negative. Metrics of logits are those of cosines.
    """
    embeddings, ids, n_samples = at.embeddings.astype(jnp.float32), at.sample.ids, len(at.embeddings)
    taken = at.bank.rows.at[ids].get(mode="fill", fill_value=0.0)
    positive = jnp.zeros((n_samples, len(ids)), bool)
    positive = positive.at[jnp.arange(n_samples)[:, None], at.known].set(True, mode="drop")
    negative = at.counts_for_others() & ~positive

    def mean(*arrays: Array) -> Float32[Array, ""]:
        return loss(arrays[0], arrays[1], positive, negative, *arrays[2:]) / at.n_samples

    value, grads = jax.value_and_grad(mean, argnums=(0, 1, 2, 3))(embeddings, taken, at.bank.scale, at.bank.bias)
    cosine = dot(at.config, "be,se->bs", normalize(embeddings).vectors, normalize(taken).vectors)
    sums = [jnp.stack([jnp.where(each, cosine, 0).sum(), each.sum().astype(jnp.float32)]) for each in (positive, negative)]
    return LossParts(value, grads[0], grads[1], jnp.stack(grads[2:]), *sums)


def over_chunks(
    of_chunk: Callable,
    sums: Any,
    at: LossInputs,
    slot: Int32[Array, "B L"],
    flag: Bool[Array, "S"],
) -> tuple:
    """Scans `of_chunk(sums, rows, flag, place) -> (sums, result)` over the chunks of a sample.

    `rows` are the chunk's rows of the shard, 0 for unused slots; `place` is `slot` relative to the chunk, or its length for
    slots outside. Returns the sums and the concatenated results.
    """
    rows, all_ids = at.bank.rows, at.sample.ids
    n_chunks, length = chunks(len(all_ids), at.config.chunk_rows)

    def body(sums: Any, chunk: tuple) -> tuple:
        ids, chunk_flag, start = chunk
        place = jnp.where((slot >= start) & (slot < start + length), slot - start, length)
        return of_chunk(sums, rows.at[ids].get(mode="fill", fill_value=0.0), chunk_flag, place)

    if n_chunks == 1:
        return body(sums, (all_ids, flag, 0))
    parts = all_ids.reshape(n_chunks, length), flag.reshape(n_chunks, length)
    result: Array | None
    sums, result = jax.lax.scan(body, sums, (*parts, length * jnp.arange(n_chunks, dtype=jnp.int32)))
    return sums, result if result is None else result.reshape(n_chunks * length, -1)


class Loss(NamedTuple):
    """A loss and what it costs, for `ove.plan` and the rates of a run."""

    parts: Callable[[LossInputs], LossParts]
    flops: int = 6
    """Of a pair of embedding and sampled row, for each of their E numbers: 2 for each product, forward and backward."""
    sums: tuple[int, int] = (0, 0)
    """Numbers for each embedding, and for each of its drawn labels, in sums over the shards of the loss's own."""


def dot(config: CentersConfig, axes: str, a: Float32[Array, "..."], b: Float32[Array, "..."]) -> Float32[Array, "..."]:
    """Contracts float32 numbers in `config.precision`; accelerators default to fewer bits."""
    return jnp.einsum(axes, a, b, precision=config.precision)
