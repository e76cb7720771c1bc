"""The training step of one bank, on any mesh and at the cost of what is sampled.

    placement = Placement(mesh, bank_axes=("data",), batch_axes=("data",))
    out = bank_step(bank, embeddings, labels, key, step, adamw, plan=plan, placement=placement, config=config)
    out.bank, out.loss, out.embeddings, out.metrics       # the gradient of the embeddings goes into the encoder's vjp

The next bank's embeddings, and what goes into the encoder, must `follow` `out.done` (`ove.centers.placement`).

Everything happens inside `shard_map`, and nothing is differentiated through the bank: each device gathers the embeddings and
labels of the whole batch, samples its own rows, computes its part of loss and gradients and updates its rows in place; the
gradient of the embeddings is reduce-scattered. To be called under `jax.jit` with the bank donated, or it is copied.
"""

from dataclasses import dataclass
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Float, Float32, Int, Int32, Key, Shaped

from ove.centers.bank import Bank
from ove.centers.check import check_label_type
from ove.centers.health import Counted, Metrics, count, metrics_of
from ove.centers.losses import Parts, sigmoid_parts
from ove.centers.placement import Placement, follow, padded
from ove.centers.rows import RowAdamW, RowGradient, update_rows
from ove.centers.sample import Sample, check_draw, draw_labels, each_once, rows_of_labels, sample_shard, slots
from ove.centers.softmax import margin_softmax_parts
from ove.config import CentersConfig
from ove.errors import ConfigError


@dataclass(frozen=True)
class Plan:
    """What a step takes from a bank."""

    name: str
    """Of the bank, for messages."""
    n_centers: int
    n_negatives: int
    """Rows drawn in each step."""
    labels_per_step: int
    weight: float = 1.0
    """Of this bank's loss among others: the gradients are multiplied by it, the loss is not."""

    def __post_init__(self) -> None:
        check_draw(self.n_centers, self.n_negatives)


class BankStep(NamedTuple):
    """What comes out of a step."""

    bank: Bank
    loss: Float32[Array, ""]
    embeddings: Float32[Array, "B E"]
    """Gradient of weight · loss."""
    metrics: Metrics
    """Without the bank's name; `grad_norm` is that of weight · loss by the sampled rows, scale and bias, before clipping."""
    done: Float32[Array, ""]
    """A number that is there when no device waits for another any more: what the next such wait should `follow`."""


def bank_step(
    bank: Bank,
    embeddings: Float[Array, "B E"],
    labels: Shaped[Array, "B L"],
    key: Key[Array, ""],
    step: int | Int[Array, ""],
    adamw: RowAdamW,
    *,
    plan: Plan,
    placement: Placement,
    config: CentersConfig,
) -> BankStep:
    """The bank after one step, the loss before it, and the gradient that the encoder needs.

    `labels`: integers in −1…n_centers − 1, −1 for missing ones (other numbers make the loss NaN; `check_labels` finds them
    beforehand). `step`: how many were done. All is computed in float32. BadInput for labels that are no integers,
    ConfigError for a bank, batch or sample that do not fit each other.
    """
    check_label_type(labels.dtype, plan.name)
    _check_shapes(bank, embeddings, plan, placement)
    by_row, by_sample, whole = placement.rows, placement.samples, PartitionSpec()
    bank_specs: Any = tuple(by_row if name.startswith("rows") else whole for name in Bank._fields)

    def in_shard(bank: tuple, embeddings: Array, labels: Array, key: Array, step: Array, lr: Array) -> tuple:
        settings = RowAdamW(lr, adamw.weight_decay, adamw.b1, adamw.b2, adamw.eps, adamw.clip_norm)
        batch = placement.whole_batch(embeddings.astype(jnp.float32), labels.astype(jnp.int32))
        out = _shard_step(Bank(*bank), *batch, key, step, settings, plan, placement, config)
        return tuple(out.bank), *out[1:]

    out = jax.shard_map(
        in_shard,
        mesh=placement.mesh,
        in_specs=(bank_specs, by_sample, by_sample, whole, whole, whole),
        out_specs=(bank_specs, whole, by_sample, whole, whole),
        check_vma=False,  # what is called whole is the same everywhere, for it was summed over the bank
    )(tuple(bank), embeddings, labels, key, jnp.asarray(step), jnp.asarray(adamw.lr, jnp.float32))
    return BankStep(Bank(*out[0]), *out[1:])


def _shard_step(
    bank: Bank,
    embeddings: Float32[Array, "B E"],
    labels: Int32[Array, "B L"],
    key: Key[Array, ""],
    step: Int[Array, ""],
    adamw: RowAdamW,
    plan: Plan,
    placement: Placement,
    config: CentersConfig,
) -> BankStep:
    """The step on one shard of the bank, with the whole batch."""
    key_labels, key_rows = jax.random.split(key)
    is_wrong = ((labels < -1) | (labels >= plan.n_centers)).any()
    rows = rows_of_labels(labels, plan.n_centers)
    known, chosen = each_once(rows), each_once(draw_labels(key_labels, rows, plan.labels_per_step))
    first = placement.shard() * len(bank.rows)
    sample = sample_shard(
        key_rows,
        chosen,
        first,
        len(bank.rows),
        n_centers=plan.n_centers,
        n_negatives=plan.n_negatives,
        n_shards=placement.n_shards,
        config=config,
    )
    parts = _parts(bank, embeddings, chosen, known, sample, first, plan, placement, config)
    counted = count(bank, sample, parts, placement)
    squares = jnp.square(parts.rows).sum()
    loss, logit, squares, *sums = placement.over_bank(parts.loss, parts.logit, squares, *counted)
    loss, counted = jnp.where(is_wrong, jnp.nan, loss), Counted(*sums)
    grad_norm = plan.weight * jnp.sqrt(squares + jnp.square(logit).sum())
    updated = update_rows(
        bank,
        RowGradient(sample.ids, sample.is_positive, parts.rows, logit),
        adamw,
        plan.weight * adamw.clip_norm / jnp.maximum(grad_norm, adamw.clip_norm),
        step=step,
        decay=config.decay,
        chunk_rows=config.chunk_rows,
    )
    ever_positive = bank.ever_positive + counted.first_time.astype(jnp.int32)
    slope = placement.my_samples(follow(plan.weight * parts.embeddings, loss))
    metrics = metrics_of(counted, ever_positive, embeddings) | {"grad_norm": grad_norm}
    return BankStep(updated._replace(ever_positive=ever_positive), loss, slope, metrics, slope.ravel()[0])


def _parts(
    bank: Bank,
    embeddings: Float[Array, "B E"],
    chosen: Int32[Array, "B M"],
    known: Int32[Array, "B L"],
    sample: Sample,
    first: Int32[Array, ""],
    plan: Plan,
    placement: Placement,
    config: CentersConfig,
) -> Parts:
    length = len(bank.rows)
    if config.loss == "margin_softmax":
        slot = slots(sample.ids, chosen, first, length)
        return margin_softmax_parts(embeddings, bank.rows, sample, slot, placement, config)
    slot = slots(sample.ids, known, first, length)
    fraction = plan.n_negatives / plan.n_centers
    return sigmoid_parts(embeddings, bank.rows, bank.scale, bank.bias, sample, slot, fraction, config)


def _check_shapes(bank: Bank, embeddings: Float[Array, "B E"], plan: Plan, placement: Placement) -> None:
    n_rows, width = bank.rows.shape
    if n_rows != padded(plan.n_centers, placement.n_shards):
        raise ConfigError(
            f"bank {plan.name}: has {n_rows} rows, but {plan.n_centers} centers in {placement.n_shards} shards need "
            f"{padded(plan.n_centers, placement.n_shards)}; make it with init_bank(…, n_shards={placement.n_shards})."
        )
    if width != embeddings.shape[1]:
        raise ConfigError(f"bank {plan.name}: its rows have {width} numbers, the embeddings {embeddings.shape[1]}.")
