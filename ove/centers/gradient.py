"""The gradient of a bank, on one device inside `shard_map`: rows are drawn once for a batch, which then comes in microbatches.

    drawn = draw_batch(bank, labels, key, n_microbatches, …)
    cotangent, sums = microbatch_gradient(bank, drawn, known, chosen, embeddings, …)      # of each microbatch
    found = total_gradient(bank, drawn, total of all sums, …)

Every loss is a sum over the samples of the batch, against one sample of rows; so what is added up over the microbatches is
what one large batch gives, and the embeddings of a microbatch have their gradient as soon as they are there.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float, Float32, Int32, Integer, Key

from ove.centers.bank import Bank
from ove.centers.health import BankMetrics, Counted, count_rows, metrics_of
from ove.centers.losses import Loss, LossInputs, normalize, own_parts, raw_parts, sigmoid_parts
from ove.centers.placement import BankPlacement
from ove.centers.rows import RowGradient
from ove.centers.sample import RowSample, check_draw, draw_labels, each_once, rows_of_labels, sample_shard, slots
from ove.centers.softmax import margin_softmax_parts
from ove.config import CentersConfig
from ove.named import named


@dataclass(frozen=True)
class BankPlan:
    """Sizes of a bank and of its sample in each step."""

    name: str
    """Name of the bank, for messages."""
    n_centers: int
    n_negatives: int
    """Rows drawn per step."""
    labels_per_step: int
    weight: float = 1.0
    """Factor of the gradients; the reported loss is not multiplied."""

    def __post_init__(self) -> None:
        check_draw(self.n_centers, self.n_negatives)


class BankGradient(NamedTuple):
    """Loss, gradients of the bank and metrics of a batch."""

    loss: Float32[Array, ""]
    metrics: BankMetrics
    """Without the bank's name; `grad_norm`: of weight · loss by the sampled rows, scale and bias, before clipping."""
    rows: RowGradient
    """Gradients of this shard; outside of `shard_map` of all shards, concatenated."""
    first_time: Float32[Array, ""]
    """Number of rows that are positives for the first time."""


class Drawn(NamedTuple):
    """What a step takes of one shard of a bank, for A microbatches of b samples on all devices together."""

    sample: RowSample
    known: Int32[Array, "A b L"]
    """Slots of the distinct labels of each sample; S for labels in other shards and missing ones."""
    chosen: Int32[Array, "A b M"]
    """The same of the labels drawn for this step."""
    n_samples: Float32[Array, ""]
    """Of the whole batch. NaN if a label is outside the bank, and then so are loss and gradients."""
    n_labels: Float32[Array, ""]
    """Drawn labels of the whole batch, at least 1; NaN as above."""


class Sums(NamedTuple):
    """What a shard adds up over the microbatches; fields as in `LossParts`."""

    loss: Float32[Array, ""]
    rows: Float32[Array, "S E"]
    logit: Float32[Array, "2"]
    positives: Float32[Array, "2"]
    negatives: Float32[Array, "2"]
    seen: Float32[Array, "E"]
    """Sum of the normalised embeddings."""


def draw_batch(
    bank: Bank,
    labels: Integer[Array, "b L"],
    key: Key[Array, ""],
    n_microbatches: int,
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> Drawn:
    """Draws labels and rows for the whole batch, of which `labels` are this device's.

    A device's samples make up its microbatches in their order. The draw depends on neither devices nor microbatches.
    """
    key_labels, key_rows = jax.random.split(key)
    whole = placement.all_gather_batch(labels.astype(jnp.int32))
    is_wrong = ((whole < -1) | (whole >= plan.n_centers)).any()
    rows = rows_of_labels(whole, plan.n_centers)
    known, chosen = each_once(rows), each_once(draw_labels(key_labels, rows, plan.labels_per_step))
    first, length = placement.shard() * len(bank.rows), len(bank.rows)
    sample = sample_shard(
        key_rows,
        chosen,
        first,
        length,
        n_centers=plan.n_centers,
        n_negatives=plan.n_negatives,
        n_shards=placement.n_shards,
        config=config,
    )
    by_device = {"d": placement.n_batch_shards, "a": n_microbatches}
    known_slots, chosen_slots = (
        rearrange(slots(sample.ids, of, first, length), "(d a b) l -> a (d b) l", **by_device) for of in (known, chosen)
    )
    n_labels = jnp.maximum((chosen >= 0).sum(), 1)
    n_samples, n_labels = (jnp.where(is_wrong, jnp.nan, n) for n in (float(len(whole)), n_labels.astype(jnp.float32)))
    return Drawn(sample, known_slots, chosen_slots, n_samples, n_labels)


def no_sums(bank: Bank, drawn: Drawn) -> Sums:
    """Returns the sums over no microbatch."""
    width = bank.rows.shape[1]
    return Sums(*(jnp.zeros(shape) for shape in ((), (len(drawn.sample.ids), width), 2, 2, 2, width)))


def microbatch_gradient(
    bank: Bank,
    drawn: Drawn,
    known: Int32[Array, "b L"],
    chosen: Int32[Array, "b M"],
    embeddings: Float[Array, "m E"],
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> tuple[Float[Array, "m E"], Sums]:
    """Returns the gradient of weight · loss by this device's embeddings, in their dtype, and what the shard adds to the sums.

    `known`, `chosen`: of `drawn`, one microbatch. The embeddings of all devices meet the shards of all devices, in float32.
    """
    # Depends on the labels: on a CPU, independent collectives can deadlock (docs/centers.md).
    sound = jnp.where(jnp.isnan(drawn.n_samples), jnp.nan, embeddings.astype(jnp.float32))
    whole = placement.all_gather_batch(sound)
    fraction = plan.n_negatives / plan.n_centers
    sizes = drawn.n_samples, drawn.n_labels, fraction
    parts = loss_of(config).parts(LossInputs(whole, bank, drawn.sample, known, chosen, *sizes, placement, config))
    cotangent = placement.reduce_scatter_batch(plan.weight * parts.embeddings)
    seen = normalize(whole).vectors.sum(0)
    sums = Sums(parts.loss, parts.rows, parts.logit, parts.positives, parts.negatives, seen)
    return cotangent.astype(embeddings.dtype), sums


def total_gradient(bank: Bank, drawn: Drawn, sums: Sums, plan: BankPlan, placement: BankPlacement) -> BankGradient:
    """Returns loss, gradient and metrics of the batch from the sums over its microbatches."""
    counted = count_rows(bank, drawn.sample, sums.positives, sums.negatives, placement)
    squares = jnp.square(sums.rows).sum()
    loss, logit, squares, *whole = placement.psum_bank(sums.loss, sums.logit, squares, *counted)
    counted = Counted(*whole)
    metrics = metrics_of(counted, bank.ever_positive, sums.seen, drawn.n_samples)
    metrics["grad_norm"] = plan.weight * jnp.sqrt(squares + jnp.square(logit).sum())
    rows = RowGradient(drawn.sample.ids, drawn.sample.is_positive, sums.rows, logit)
    return BankGradient(loss, metrics, rows, counted.first_time)


LOSSES: dict[str, Loss] = {
    "sigmoid": Loss(sigmoid_parts),
    "raw": Loss(raw_parts),
    "margin_softmax": Loss(margin_softmax_parts, flops=8, sums=(1, 2)),
}
"""`centers.loss`; a user's own is an `OwnLoss`."""


def loss_of(config: CentersConfig) -> Loss:
    """Returns the entry of `LOSSES`, or the user's function with its attribute `flops`, 6 without one."""
    found: Any = named(LOSSES, config.loss, "centers.loss")
    return found if isinstance(found, Loss) else Loss(partial(own_parts, found), getattr(found, "flops", 6))
