"""The training step of one bank, on any mesh and at the cost of what is sampled.

    placement = BankPlacement(mesh, bank_axes=("data",), batch_axes=("data",))
    out = bank_step(bank, embeddings, labels, key, step, adamw, plan=plan, placement=placement, config=config)
    out.bank, out.loss, out.embeddings, out.metrics       # the gradient of the embeddings goes into the encoder's vjp

`bank_step` is `bank_gradient` and `bank_update`; apart, all banks' losses are known before the first of them is changed.

Everything happens inside `shard_map`, and nothing is differentiated through the bank: each device gathers the embeddings and
labels of the whole batch, samples its own rows, computes its part of loss and gradients and updates its rows in place; the
gradient of the embeddings is reduce-scattered. To be called under `jax.jit` with the bank donated, or it is copied.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.sharding import PartitionSpec
from jaxtyping import Array, Bool, Float, Float32, Int, Key, Shaped

from ove.centers.bank import Bank
from ove.centers.gradient import BankGradient, BankPlan, draw_batch, microbatch_gradient, total_gradient
from ove.centers.health import BankMetrics
from ove.centers.placement import BankPlacement, padded
from ove.centers.rows import RowAdamW, RowGradient, update_rows
from ove.centers.sample import check_label_type
from ove.config import CentersConfig
from ove.errors import ConfigError


class BankStep(NamedTuple):
    """Result of a step."""

    bank: Bank
    loss: Float32[Array, ""]
    embeddings: Float32[Array, "B E"]
    """Gradient of weight · loss with respect to the embeddings."""
    metrics: BankMetrics
    """As in `BankGradient`."""


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
    found, cotangent = bank_gradient(bank, embeddings, labels, key, plan=plan, placement=placement, config=config)
    updated = bank_update(bank, found, step, adamw, plan=plan, placement=placement, config=config)
    return BankStep(updated, found.loss, cotangent, found.metrics)


def bank_gradient(
    bank: Bank,
    embeddings: Float[Array, "B E"],
    labels: Shaped[Array, "B L"],
    key: Key[Array, ""],
    *,
    plan: BankPlan,
    placement: BankPlacement,
    config: CentersConfig,
) -> tuple[BankGradient, Float32[Array, "B E"]]:
    """Computes loss and gradients of a batch, in float32; the second is that of weight · loss by the embeddings.

    `labels`: integers in −1…n_centers − 1, −1 for missing ones; others make the loss NaN (`check_labels` rejects them before).
    BadInput for labels of another type, ConfigError for shapes that do not fit.
    """
    check_bank(bank, labels, plan, placement, embeddings.shape[1])

    def in_shard(bank: Bank, embeddings: Array, labels: Array, key: Array) -> tuple[BankGradient, Array]:
        drawn = draw_batch(bank, labels, key, 1, plan, placement, config)
        slots = drawn.known[0], drawn.chosen[0]
        cotangent, sums = microbatch_gradient(bank, drawn, *slots, embeddings, plan, placement, config)
        return total_gradient(bank, drawn, sums, plan, placement), cotangent

    by_sample = placement.samples
    return jax.shard_map(
        in_shard,
        mesh=placement.mesh,
        in_specs=(bank_specs(placement), by_sample, by_sample, PartitionSpec()),
        out_specs=(gradient_specs(placement), by_sample),
        check_vma=False,  # outputs with an empty spec were summed over the bank, hence are replicated
    )(bank, embeddings.astype(jnp.float32), labels, key)


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
    whole = PartitionSpec()
    factor = plan.weight * adamw.clip_norm / jnp.maximum(found.metrics["grad_norm"], adamw.clip_norm)
    applied = jnp.asarray(True) if applied is None else applied

    def in_shard(
        old: Bank, grads: RowGradient, first_time: Array, step: Array, lr: Array, factor: Array, applied: Array
    ) -> Bank:
        settings = RowAdamW(lr, adamw.weight_decay, adamw.b1, adamw.b2, adamw.eps, adamw.clip_norm)
        length, ids = len(old.rows), grads.ids
        # Writes past the end are dropped, so a skipped step does not copy the bank.
        unused = length + jnp.arange(len(ids), dtype=ids.dtype)
        kept = grads._replace(ids=jnp.where(applied, ids, unused))
        new = update_rows(old, kept, settings, factor, step=step, decay=config.decay, chunk_rows=config.chunk_rows)
        new = new._replace(ever_positive=old.ever_positive + first_time.astype(jnp.int32))
        return Bank(
            *(
                after if name.startswith("rows") else jnp.where(applied, after, before)
                for name, after, before in zip(Bank._fields, new, old, strict=True)
            )
        )

    specs = bank_specs(placement)
    lr = jnp.asarray(adamw.lr, jnp.float32)
    return jax.shard_map(
        in_shard,
        mesh=placement.mesh,
        in_specs=(specs, gradient_specs(placement).rows, *[whole] * 5),
        out_specs=specs,
        check_vma=False,
    )(bank, found.rows, found.first_time, jnp.asarray(step), lr, factor, applied)


def bank_specs(placement: BankPlacement) -> Any:
    """Returns a `Bank` of how each part is sharded."""
    by_row: Any = placement.rows
    whole: Any = PartitionSpec()
    return Bank(*(by_row if name.startswith("rows") else whole for name in Bank._fields))


def gradient_specs(placement: BankPlacement) -> Any:
    """Returns a `BankGradient` of how each part is sharded."""
    by_row: Any = placement.rows
    whole: Any = PartitionSpec()
    return BankGradient(whole, whole, RowGradient(by_row, by_row, by_row, whole), whole)


def check_bank(bank: Bank, labels: Shaped[Array, "B L"], plan: BankPlan, placement: BankPlacement, width: int) -> None:
    """Raises BadInput for labels that are not integers, ConfigError for a bank of another size or not of this width."""
    check_label_type(labels.dtype, plan.name)
    n_rows, of_rows = bank.rows.shape
    if n_rows != padded(plan.n_centers, placement.n_shards):
        raise ConfigError(
            f"bank {plan.name}: has {n_rows} rows, but {plan.n_centers} centers in {placement.n_shards} shards need "
            f"{padded(plan.n_centers, placement.n_shards)}; make it with init_bank(…, n_shards={placement.n_shards})."
        )
    if of_rows != width:
        raise ConfigError(f"bank {plan.name}: its rows have width {of_rows}, the embeddings width {width}.")
