"""One training step: a pure function of the state and a batch per bank."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Float32

from ove.centers.bank import Bank
from ove.centers.objective import BankGradient, BankPlan, bank_gradient, bank_update
from ove.centers.rows import RowAdamW
from ove.config import HeadConfig, RunConfig
from ove.encoder.encoder import Params
from ove.train.encoder_grads import make_encode, part_norms
from ove.train.init import TrainState, n_negatives
from ove.train.monitor.guards import apply_update, detect_spikes
from ove.train.optimizer import at_step, clip, learning_rate, make_optimizer
from ove.train.sharding import batch_sharding, check_division, placement

BatchArrays = dict[str, dict[str, Array]]
"""By bank: `patches` (B, N, P) uint8, `positions` (B, N, 3) and `labels` (B, M) int32."""
Metrics = dict[str, Array]


def make_step(
    config: RunConfig, mesh: Mesh, shardings: TrainState, n_centers: dict[str, int] | None = None
) -> jax.stages.Wrapped:
    """Compiles `step(state, batch) -> (state, metrics)`; the state is donated. Metrics are float32 scalars.

    `n_centers` of each bank; without it, all rows of a bank are taken for centers, which they are where none was padded.
    """
    check_division(config, mesh.size)
    optimizer, specs = make_optimizer(config.train), jax.tree.map(lambda at: at.spec, shardings.params)
    replicated = NamedSharding(mesh, PartitionSpec())
    train, place = config.train, placement(mesh)
    encode = make_encode(config.encoder, mesh, specs, train.grad_accum_steps)

    def plans_of(banks: dict[str, Bank]) -> dict[str, BankPlan]:
        return {
            str(head.bank): plan_of(head, (n_centers or {}).get(head.bank, len(banks[head.bank].rows)))
            for head in config.batches.heads
        }

    def step(state: TrainState, batch: BatchArrays) -> tuple[TrainState, Metrics]:
        key, plans = jax.random.fold_in(state.rng, state.step), plans_of(state.banks)

        def loss_of(params: Params) -> tuple[Array, list[BankGradient]]:
            embeddings, loss = encode(params, batch), jnp.zeros(())
            found: list[BankGradient] = []
            for number, head in enumerate(config.batches.heads):
                name: str = head.bank
                gradient = bank_gradient(
                    state.banks[name],
                    jax.lax.stop_gradient(embeddings[name]),
                    batch[name]["labels"],
                    jax.random.fold_in(key, number),
                    plan=plans[name],
                    placement=place,
                    config=config.centers,
                )
                loss += with_gradient(head.weight * gradient.loss, embeddings[name], gradient.embeddings)
                found.append(gradient)
            return loss, found

        (loss, of_heads), grads = jax.value_and_grad(loss_of, has_aux=True)(state.params)
        found = dict(zip(plans, of_heads, strict=True))
        norms = part_norms(grads)
        is_spike, recent_losses = detect_spikes(
            state.recent_losses, jnp.stack([f.loss for f in found.values()]), train.spike_mads
        )
        applied = apply_update(train, is_spike)
        rates = {name: learning_rate(train, train.rate_of(name))(state.step) for name in plans}
        banks = {
            name: bank_update(
                state.banks[name],
                gradient,
                state.step,
                RowAdamW(rates[name], train.weight_decay, train.b1, train.b2, train.adam_eps, train.clip_norm),
                plan=plans[name],
                placement=place,
                config=config.centers,
                applied=applied,
            )
            for name, gradient in found.items()
        }
        clipped = clip(grads, norms["grad_norm/encoder"], train.clip_norm)
        updates, opt_state = optimizer.update(clipped, at_step(state.opt_state, state.step), state.params)
        changed = optax.apply_updates(state.params, updates), opt_state
        params, opt_state = jax.tree.map(partial(jnp.where, applied), changed, (state.params, state.opt_state))
        metrics: Metrics = {f"loss/{name}": f.loss for name, f in found.items()}
        metrics |= {f"{what}/{name}": value for name, f in found.items() for what, value in f.metrics.items()}
        metrics |= {f"spike/{name}": is_spike[i].astype(jnp.float32) for i, name in enumerate(found)}
        metrics |= norms | {"loss": loss, "skipped": 1.0 - applied.astype(jnp.float32)}
        metrics |= {f"lr_bank/{name}": rate for name, rate in rates.items()}
        metrics["lr"] = learning_rate(train, train.lr)(state.step)
        return TrainState(state.step + 1, params, banks, opt_state, state.rng, recent_losses), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def plan_of(head: HeadConfig, n_centers: int) -> BankPlan:
    """Returns what a step takes from the bank of a head."""
    negatives = n_negatives(head.negatives, n_centers)
    return BankPlan(head.bank, n_centers, negatives, head.labels_per_step, head.weight)


@jax.custom_vjp
def with_gradient(
    loss: Float32[Array, ""], embeddings: Float[Array, "B E"], gradient: Float32[Array, "B E"]
) -> Float32[Array, ""]:
    """Returns `loss`, whose gradient by the embeddings is the one given: nothing is differentiated through a bank."""
    return loss


def _with_gradient_forward(loss: Array, embeddings: Array, gradient: Array) -> tuple[Array, Array]:
    return loss, gradient.astype(embeddings.dtype)


def _with_gradient_backward(gradient: Array, cotangent: Array) -> tuple[None, Array, None]:
    return None, cotangent.astype(gradient.dtype) * gradient, None


with_gradient.defvjp(_with_gradient_forward, _with_gradient_backward)
