"""One training step: a pure function of the state and a batch per bank."""

from typing import Any

import jax
import jax.numpy as jnp
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jaxtyping import Array

from ove.centers import objective
from ove.centers.bank import Sampled
from ove.centers.rows import update_rows
from ove.centers.sample import Drawn
from ove.config import RunConfig
from ove.encoder import encoder
from ove.train.optimizer import learning_rate, make_optimizer
from ove.train.sharding import batch_sharding
from ove.train.state import TrainState, n_negatives

DeviceBatch = dict[str, dict[str, Array]]
"""By bank: `patches` (B, N, P) uint8, `positions` (B, N, 3) and `labels` (B, M) int32."""
Metrics = dict[str, Array]


def make_step(config: RunConfig, mesh: Mesh, shardings: TrainState) -> jax.stages.Wrapped:
    """The compiled `step(state, batch) -> (state, metrics)`; the state is donated. Metrics are float32 scalars."""
    optimizer = make_optimizer(config.train)
    replicated = NamedSharding(mesh, PartitionSpec())

    def step(state: TrainState, batch: DeviceBatch) -> tuple[TrainState, Metrics]:
        key = jax.random.fold_in(state.rng, state.step)
        drawn: dict[str, Drawn] = {}
        sampled: dict[str, Sampled] = {}
        for number, head in enumerate(config.batches.heads):
            bank = state.banks[head.bank]
            drawn[head.bank] = objective.draw(
                jax.random.fold_in(key, number),
                batch[head.bank]["labels"],
                bank.rows.shape[0],
                n_negatives=n_negatives(head.negatives, bank.rows.shape[0]),
                labels_per_step=head.labels_per_step,
            )
            sampled[head.bank] = objective.gather(bank, drawn[head.bank])

        def loss_of(params: Any, sampled: Any) -> tuple[Array, Metrics]:
            total, metrics = jnp.zeros(()), {}
            for head in config.batches.heads:
                seen = batch[head.bank]
                pooled = encoder.apply(config.encoder, params, seen["patches"], seen["positions"]).pooled
                assert pooled is not None, "train() refuses an encoder without a head"
                loss, aux = objective.loss(sampled[head.bank], drawn[head.bank], pooled, config.centers)
                total += head.weight * loss
                metrics[f"loss/{head.bank}"] = loss
                metrics |= {f"{name}/{head.bank}": value for name, value in aux.items()}
            return total, metrics | {"loss": total}

        grads, metrics = jax.grad(loss_of, argnums=(0, 1), has_aux=True)(state.params, sampled)
        updates, opt_state = optimizer.update(grads[0], state.opt_state, state.params)
        params = optax.apply_updates(state.params, updates)
        lr_bank = learning_rate(config.train, config.train.lr_bank)(state.step)
        banks = {
            name: update_rows(
                bank,
                drawn[name],
                grads[1][name],
                lr=lr_bank,
                weight_decay=config.train.weight_decay,
                b1=config.train.b1,
                b2=config.train.b2,
                eps=config.train.adam_eps,
                clip_norm=config.train.clip_norm,
            )
            for name, bank in state.banks.items()
        }
        metrics |= {f"grad_norm/{name}": optax.tree.norm(grads[1][name]) for name in banks}
        metrics["grad_norm/encoder"] = optax.tree.norm(grads[0])
        metrics["lr"] = learning_rate(config.train, config.train.lr)(state.step)
        return TrainState(state.step + 1, params, banks, opt_state, state.rng), metrics

    return jax.jit(
        step,
        in_shardings=(shardings, batch_sharding(mesh)),
        out_shardings=(shardings, replicated),
        donate_argnums=0,
    )
