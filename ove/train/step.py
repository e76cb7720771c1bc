"""One training step: a pure function of the state and a batch per bank."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ove.centers.objective import Plan, bank_step
from ove.centers.placement import follow
from ove.centers.rows import RowAdamW
from ove.config import HeadConfig, RunConfig
from ove.encoder import encoder
from ove.train.optimizer import learning_rate, make_optimizer
from ove.train.sharding import batch_sharding, placement
from ove.train.state import TrainState, n_negatives

DeviceBatch = dict[str, dict[str, Array]]
"""By bank: `patches` (B, N, P) uint8, `positions` (B, N, 3) and `labels` (B, M) int32."""
Metrics = dict[str, Array]


def make_step(
    config: RunConfig, mesh: Mesh, shardings: TrainState, n_centers: dict[str, int] | None = None
) -> jax.stages.Wrapped:
    """The compiled `step(state, batch) -> (state, metrics)`; the state is donated. Metrics are float32 scalars.

    `n_centers` of each bank; without it, all rows of a bank are taken for centers, which they are where none was padded.
    """
    optimizer = make_optimizer(config.train)
    replicated = NamedSharding(mesh, PartitionSpec())
    train, place = config.train, placement(mesh)

    def step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.rng, state.step)

        def embed(params: Any) -> dict[str, Array]:
            pooled: dict[str, Array] = {}
            for head in config.batches.heads:
                seen = batch[head.bank]
                found = encoder.apply(config.encoder, params, seen["patches"], seen["positions"]).pooled
                assert found is not None, "train() refuses an encoder without a head"
                pooled[str(head.bank)] = found
            return pooled

        pooled, pull_back = jax.vjp(embed, state.params)
        lr_bank = learning_rate(train, train.lr_bank)(state.step)
        adamw = RowAdamW(lr_bank, train.weight_decay, train.b1, train.b2, train.adam_eps, train.clip_norm)
        banks, slopes, total, done = dict(state.banks), {}, jnp.zeros(()), jnp.zeros(())
        metrics: Metrics = {}
        for number, head in enumerate(config.batches.heads):
            name: str = head.bank
            out = bank_step(
                state.banks[name],
                follow(pooled[name], done),
                batch[name]["labels"],
                jax.random.fold_in(key, number),
                state.step,
                adamw,
                plan=plan_of(head, (n_centers or {}).get(name, len(state.banks[name].rows))),
                placement=place,
                config=config.centers,
            )
            banks[name], slopes[name] = out.bank, out.embeddings.astype(pooled[name].dtype)
            total, done = total + head.weight * out.loss, out.done
            metrics |= {f"loss/{name}": out.loss} | {f"{what}/{name}": value for what, value in out.metrics.items()}

        (grads,) = pull_back({name: follow(slope, done) for name, slope in slopes.items()})
        updates, opt_state = optimizer.update(grads, state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        metrics |= {"loss": total, "grad_norm/encoder": optax.tree.norm(grads)}
        metrics["lr"] = learning_rate(train, train.lr)(state.step)
        return TrainState(state.step + 1, params, banks, opt_state, state.rng), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )


def plan_of(head: HeadConfig, n_centers: int) -> Plan:
    """What a step takes from the bank of a head."""
    negatives = n_negatives(head.negatives, n_centers)
    return Plan(head.bank, n_centers, negatives, head.labels_per_step, head.weight)
