"""AdamW on the rows of a bank that a step has sampled, and on its scale and bias."""

import jax.numpy as jnp
from jaxtyping import Array, Float, Float32, Int

from ove.centers.bank import Bank, Sampled
from ove.centers.sample import Drawn


def update_rows(
    bank: Bank,
    drawn: Drawn,
    grads: Sampled,
    *,
    lr: float | Float[Array, ""],
    weight_decay: float,
    b1: float,
    b2: float,
    eps: float,
    clip_norm: float,
) -> Bank:
    """The bank after one step of AdamW on the drawn rows alone, and of Adam without decay on scale and bias.

    `grads` is the gradient with respect to `objective.gather(bank, drawn)`; unused slots have no effect. The gradient is
    first scaled so that the norm of all of it is at most `clip_norm`. Each row's bias correction goes by its own count.
    Decay acts only on drawn rows, hence about r times as often as in a dense update. Spec §3, §4.
    """
    grads = _clip(grads, clip_norm)
    ids = drawn.ids
    count = bank.rows_count.at[ids].get(mode="fill", fill_value=0) + 1
    rows, m, v = (table.at[ids].get(mode="fill", fill_value=0.0) for table in (bank.rows, bank.rows_m, bank.rows_v))
    step, m, v = _adam(grads.rows, m, v, count[:, None], b1, b2, eps)

    logit = jnp.stack([bank.scale, bank.bias])
    logit_count = bank.logit_count + 1
    logit_grad = jnp.stack([grads.scale, grads.bias])
    logit_step, logit_m, logit_v = _adam(logit_grad, bank.logit_m, bank.logit_v, logit_count, b1, b2, eps)
    scale, bias = logit - lr * logit_step

    return Bank(
        rows=bank.rows.at[ids].set(rows - lr * (step + weight_decay * rows), mode="drop"),
        rows_m=bank.rows_m.at[ids].set(m, mode="drop"),
        rows_v=bank.rows_v.at[ids].set(v, mode="drop"),
        rows_count=bank.rows_count.at[ids].set(count, mode="drop"),
        scale=scale,
        bias=bias,
        logit_m=logit_m,
        logit_v=logit_v,
        logit_count=logit_count,
    )


def _clip(grads: Sampled, clip_norm: float) -> Sampled:
    norm = jnp.sqrt(jnp.square(grads.rows).sum() + grads.scale**2 + grads.bias**2)
    factor = clip_norm / jnp.maximum(norm, clip_norm)
    return Sampled(grads.rows * factor, grads.scale * factor, grads.bias * factor)


def _adam(
    grad: Float32[Array, "*R"],
    m: Float32[Array, "*R"],
    v: Float32[Array, "*R"],
    count: Int[Array, "*#R"],
    b1: float,
    b2: float,
    eps: float,
) -> tuple[Float32[Array, "*R"], Float32[Array, "*R"], Float32[Array, "*R"]]:
    m = b1 * m + (1 - b1) * grad
    v = b2 * v + (1 - b2) * jnp.square(grad)
    step = (m / (1 - b1**count)) / (jnp.sqrt(v / (1 - b2**count)) + eps)
    return step, m, v
