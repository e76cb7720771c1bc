"""Applies AdamW to the sampled rows of a shard, and Adam to the bank's scale and bias."""

from dataclasses import dataclass
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float, Float32, Int, Int32

from ove.centers.bank import Bank
from ove.centers.sample import chunks


@dataclass(frozen=True)
class RowAdamW:
    """AdamW hyperparameters of one step."""

    lr: float | Float[Array, ""]
    weight_decay: float = 0.2
    b1: float = 0.9
    b2: float = 0.999
    eps: float = 1e-8
    clip_norm: float = 5.0
    """Maximum global norm of the gradient of the sampled rows, scale and bias."""


class RowGradient(NamedTuple):
    """Gradient with respect to the sampled rows of a shard, scale and bias."""

    ids: Int32[Array, "S"]
    """Distinct rows of the shard; indices past its end are unused slots."""
    is_positive: Bool[Array, "S"]
    rows: Float32[Array, "S E"]
    logit: Float32[Array, "2"]
    """Gradient with respect to scale and bias."""


def update_rows(
    bank: Bank,
    grads: RowGradient,
    adamw: RowAdamW,
    factor: float | Float32[Array, ""] = 1.0,
    *,
    step: int | Int[Array, ""],
    decay: str = "sampled",
    chunk_rows: int = 4096,
) -> Bank:
    """Returns one shard of a bank after a step of AdamW on its sampled rows, and of Adam without decay on scale and bias.

    The gradient is multiplied by `factor` (clipping). Bias correction uses the count of each row. `decay`: "sampled" decays a
    row when it is sampled, about r times as often as a dense update; "elapsed" applies the decay of all steps since the row's
    last update, at the current rate. `step`: completed steps. The caller updates `ever_positive`, which depends on all
    shards. Spec §3, §4.
    """
    n_chunks, length = chunks(len(grads.ids), chunk_rows)
    tables = bank.rows, bank.rows_m, bank.rows_v, bank.rows_count, bank.rows_step, bank.rows_positive

    def of_chunk(tables: tuple, chunk: tuple) -> tuple[tuple, None]:
        ids, is_positive, grad = chunk
        rows, m, v, count, last, positive = (table.at[ids].get(mode="fill", fill_value=0) for table in tables)
        count += 1
        change, m, v = _adam(grad * factor, m, v, count[:, None], adamw)
        elapsed = (step + 1 - last)[:, None] if decay == "elapsed" else 1
        kept = (1 - adamw.lr * adamw.weight_decay) ** elapsed
        now = jnp.full_like(last, step + 1)
        new = rows * kept - adamw.lr * change, m, v, count, now, positive + is_positive
        # Unused slots have distinct indices past the end, so `unique_indices` holds.
        return tuple(
            table.at[ids].set(values, mode="drop", unique_indices=True, indices_are_sorted=True)
            for table, values in zip(tables, new, strict=True)
        ), None

    if n_chunks == 1:
        tables = of_chunk(tables, (grads.ids, grads.is_positive, grads.rows))[0]
    else:
        parts = (grads.ids.reshape(n_chunks, -1), grads.is_positive.reshape(n_chunks, -1))
        tables = jax.lax.scan(of_chunk, tables, (*parts, grads.rows.reshape(n_chunks, length, -1)))[0]

    logit_count = bank.logit_count + 1
    change, logit_m, logit_v = _adam(grads.logit * factor, bank.logit_m, bank.logit_v, logit_count, adamw)
    scale, bias = jnp.stack([bank.scale, bank.bias]) - adamw.lr * change
    return Bank(*tables, bank.ever_positive, scale=scale, bias=bias, logit_m=logit_m, logit_v=logit_v, logit_count=logit_count)


def _adam(
    grad: Float32[Array, "*R"],
    m: Float32[Array, "*R"],
    v: Float32[Array, "*R"],
    count: Int[Array, "*#R"],
    adamw: RowAdamW,
) -> tuple[Float32[Array, "*R"], Float32[Array, "*R"], Float32[Array, "*R"]]:
    m = adamw.b1 * m + (1 - adamw.b1) * grad
    v = adamw.b2 * v + (1 - adamw.b2) * jnp.square(grad)
    change = (m / (1 - adamw.b1**count)) / (jnp.sqrt(v / (1 - adamw.b2**count)) + adamw.eps)
    return change, m, v
