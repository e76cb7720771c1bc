"""The training step of one bank, on any mesh and at the cost of what is sampled.

    placement = BankPlacement(mesh, bank_axes=("data",), batch_axes=("data",))
    out = bank_step(bank, embeddings, labels, key, step, adamw, plan=plan, placement=placement, config=config)
    out.bank, out.loss, out.embeddings, out.metrics       # the gradient of the embeddings goes into the encoder's vjp

`bank_step` is `bank_gradient` and `bank_update`; apart, all banks' losses are known before the first of them is changed.

Everything happens inside `shard_map`, and nothing is differentiated through the bank: each device gathers the embeddings and
labels of the whole batch, samples its own rows, computes its part of loss and gradients and updates its rows in place; the
gradient of the embeddings is reduce-scattered. To be called under `jax.jit` with the bank donated, or it is copied.
"""

from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Int32, Key, Shaped

from ove.centers.bank import Bank
from ove.centers.health import BankMetrics, Counted, count_rows, metrics_of
from ove.centers.losses import Loss, LossInputs, own_parts, raw_parts, sigmoid_parts
from ove.centers.placement import BankPlacement, padded
from ove.centers.rows import RowAdamW, RowGradient, update_rows
from ove.centers.sample import check_draw, check_label_type, draw_labels, each_once, rows_of_labels, sample_shard, slots
from ove.centers.softmax import margin_softmax_parts
from ove.config import CentersConfig
from ove.errors import ConfigError
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
    """Loss, gradients and metrics of a bank for a batch."""

    loss: Float32[Array, ""]
    embeddings: Float32[Array, "B E"]
    """Gradient of weight · loss with respect to the embeddings."""
    metrics: BankMetrics
    """Without the bank's name; `grad_norm`: of weight · loss by the sampled rows, scale and bias, before clipping."""
    rows: RowGradient
    """Gradients of all shards, concatenated."""
    first_time: Float32[Array, ""]
    """Number of rows that are positives for the first time."""


class BankStep(NamedTuple):
    """Result of a step; fields as in `BankGradient`."""

    bank: Bank
    loss: Float32[Array, ""]
    embeddings: Float32[Array, "B E"]
    metrics: BankMetrics


def bank_step(
    bank: Bank,
    embeddings: Float[Array, "B E"],
    labels: Shaped[Array, "B L"],
    key: Key[Array, ""],
    step: int | Int[Array, ""],
    adamw: RowAdamW,
    *,
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> BankStep:
    """Runs `bank_gradient` and `bank_update`."""
    found = bank_gradient(bank, embeddings, labels, key, plan=plan, placement=placement, config=config)
    updated = bank_update(bank, found, step, adamw, plan=plan, placement=placement, config=config)
    return BankStep(updated, found.loss, found.embeddings, found.metrics)


def bank_gradient(
    bank: Bank,
    embeddings: Float[Array, "B E"],
    labels: Shaped[Array, "B L"],
    key: Key[Array, ""],
    *,
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> BankGradient:
    """Computes loss and gradients of a batch, in float32.

    `labels`: integers in −1…n_centers − 1, −1 for missing ones; others make the loss NaN (`check_labels` rejects them before).
    BadInput for labels of another type, ConfigError for shapes that do not fit.
    """
    check_label_type(labels.dtype, plan.name)
    _check_shapes(bank, embeddings, plan, placement)
    by_row, by_sample, whole = placement.rows, placement.samples, PartitionSpec()

    def in_shard(bank: tuple, embeddings: Array, labels: Array, key: Array) -> tuple:
        batch = placement.all_gather_batch(embeddings.astype(jnp.float32), labels.astype(jnp.int32))
        out = _shard_gradient(Bank(*bank), *batch, key, plan, placement, config)
        return *out[:3], tuple(out.rows), out.first_time

    out = jax.shard_map(
        in_shard,
        mesh=placement.mesh,
        in_specs=(_bank_specs(placement), by_sample, by_sample, whole),
        out_specs=(whole, by_sample, whole, (by_row, by_row, by_row, whole), whole),
        check_vma=False,  # outputs with the spec `whole` were summed over the bank, hence are replicated
    )(tuple(bank), embeddings, labels, key)
    loss, cotangent, metrics, rows, first_time = out
    return BankGradient(loss, cotangent, metrics, RowGradient(*rows), first_time)


def bank_update(
    bank: Bank,
    found: BankGradient,
    step: int | Int[Array, ""],
    adamw: RowAdamW,
    *,
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
    applied: Bool[Array, ""] | None = None,
) -> Bank:
    """Returns the bank after an AdamW step, or unchanged where `applied` is false; uses no collectives.

    `step`: completed steps. The gradient is clipped to `adamw.clip_norm`, then multiplied by the bank's weight.
    """
    by_row, whole = placement.rows, PartitionSpec()
    factor = plan.weight * adamw.clip_norm / jnp.maximum(found.metrics["grad_norm"], adamw.clip_norm)
    applied = jnp.asarray(True) if applied is None else applied

    def in_shard(bank: tuple, grads: tuple, first_time: Array, step: Array, lr: Array, factor: Array, applied: Array) -> tuple:
        old, settings = Bank(*bank), RowAdamW(lr, adamw.weight_decay, adamw.b1, adamw.b2, adamw.eps, adamw.clip_norm)
        length, ids = len(old.rows), grads[0]
        # Writes past the end are dropped, so a skipped step does not copy the bank.
        unused = length + jnp.arange(len(ids), dtype=ids.dtype)
        kept = RowGradient(jnp.where(applied, ids, unused), *grads[1:])
        new = update_rows(old, kept, settings, factor, step=step, decay=config.decay, chunk_rows=config.chunk_rows)
        new = new._replace(ever_positive=old.ever_positive + first_time.astype(jnp.int32))
        return tuple(
            after if name.startswith("rows") else jnp.where(applied, after, before)
            for name, after, before in zip(Bank._fields, new, old, strict=True)
        )

    specs = _bank_specs(placement)
    lr = jnp.asarray(adamw.lr, jnp.float32)
    updated = jax.shard_map(
        in_shard,
        mesh=placement.mesh,
        in_specs=(specs, (by_row, by_row, by_row, whole), *[whole] * 5),
        out_specs=specs,
        check_vma=False,
    )(tuple(bank), tuple(found.rows), found.first_time, jnp.asarray(step), lr, factor, applied)
    return Bank(*updated)


def _bank_specs(placement: BankPlacement) -> Any:
    return tuple(placement.rows if name.startswith("rows") else PartitionSpec() for name in Bank._fields)


def _shard_gradient(
    bank: Bank,
    embeddings: Float32[Array, "B E"],
    labels: Int32[Array, "B L"],
    key: Key[Array, ""],
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> BankGradient:
    """Computes the gradient of one shard of the bank for the whole batch."""
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
    known_slots, chosen_slots = (slots(sample.ids, labels, first, len(bank.rows)) for labels in (known, chosen))
    fraction = plan.n_negatives / plan.n_centers
    parts = loss_of(config).parts(LossInputs(embeddings, bank, sample, known_slots, chosen_slots, fraction, placement, config))
    counted = count_rows(bank, sample, parts, placement)
    squares = jnp.square(parts.rows).sum()
    loss, logit, squares, *sums = placement.psum_bank(parts.loss, parts.logit, squares, *counted)
    loss, counted = jnp.where(is_wrong, jnp.nan, loss), Counted(*sums)
    # Depends on the psum: on a CPU, independent collectives can deadlock (docs/centers.md).
    cotangent = placement.reduce_scatter_batch(jnp.where(jnp.isnan(loss), jnp.nan, plan.weight * parts.embeddings))
    ever_positive = bank.ever_positive + counted.first_time.astype(jnp.int32)
    metrics = metrics_of(counted, ever_positive, embeddings)
    metrics["grad_norm"] = plan.weight * jnp.sqrt(squares + jnp.square(logit).sum())
    gradient = RowGradient(sample.ids, sample.is_positive, parts.rows, logit)
    return BankGradient(loss, cotangent, metrics, gradient, counted.first_time)


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


def _check_shapes(bank: Bank, embeddings: Float[Array, "B E"], plan: BankPlan, placement: BankPlacement) -> None:
    n_rows, width = bank.rows.shape
    if n_rows != padded(plan.n_centers, placement.n_shards):
        raise ConfigError(
            f"bank {plan.name}: has {n_rows} rows, but {plan.n_centers} centers in {placement.n_shards} shards need "
            f"{padded(plan.n_centers, placement.n_shards)}; make it with init_bank(…, n_shards={placement.n_shards})."
        )
    if width != embeddings.shape[1]:
        raise ConfigError(f"bank {plan.name}: its rows have width {width}, the embeddings width {embeddings.shape[1]}.")
