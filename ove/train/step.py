"""One training step: a pure function of the state and a batch per bank."""

from functools import partial

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ove.centers.bank import Bank
from ove.centers.gradient import BankPlan
from ove.centers.objective import bank_update
from ove.centers.rows import RowAdamW
from ove.config import HeadConfig, RunConfig
from ove.train.encoder_grads import BatchArrays, make_gradients, part_norms
from ove.train.init import TrainState, n_negatives
from ove.train.monitor.guards import apply_update, detect_spikes
from ove.train.optimizer import at_step, clip, learning_rate, make_optimizer
from ove.train.sharding import batch_sharding, check_division, placement

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

    def plans_of(banks: dict[str, Bank]) -> dict[str, BankPlan]:
        return {
            str(head.bank): plan_of(head, (n_centers or {}).get(head.bank, len(banks[head.bank].rows)))
            for head in config.batches.heads
        }

    def step(state: TrainState, batch: BatchArrays) -> tuple[TrainState, Metrics]:
        key, plans = jax.random.fold_in(state.rng, state.step), plans_of(state.banks)
        grads, found = make_gradients(config, mesh, specs, plans)(state.params, state.banks, batch, key)
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
        metrics: Metrics = {"loss": sum((plans[name].weight * f.loss for name, f in found.items()), jnp.zeros(()))}
        metrics |= {f"loss/{name}": f.loss for name, f in found.items()}
        metrics |= {f"{what}/{name}": value for name, f in found.items() for what, value in f.metrics.items()}
        metrics |= {f"spike/{name}": is_spike[i].astype(jnp.float32) for i, name in enumerate(found)}
        metrics |= norms | {"skipped": 1.0 - applied.astype(jnp.float32)}
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
