"""The train state, one frozen pytree, and its initial value."""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int, Key

from ove.centers.bank import Bank, init_bank
from ove.config import RunConfig
from ove.encoder import encoder
from ove.train.monitor.guards import init_loss_window
from ove.train.optimizer import make_optimizer


class TrainState(NamedTuple):
    """The state after `step` steps; a pytree."""

    step: Int[Array, ""]
    params: Any
    """Of the encoder."""
    banks: dict[str, Bank]
    opt_state: Any
    rng: Key[Array, ""]
    """Never changes: every use folds in the step and a purpose."""
    recent_losses: Float32[Array, "banks window"]
    """Of each bank in the order of the heads (`ove.train.monitor.guards`)."""


def init_state(config: RunConfig, n_centers: dict[str, int], n_shards: int = 1) -> TrainState:
    """Initialises the state at step 0 for banks of `n_centers` centers, by `config.train.seed`; works under jit and eval_shape.

    Banks are padded so that they can be cut into `n_shards` equal parts; nothing else depends on it.
    """
    root = jax.random.key(config.train.seed)
    key_params, key_banks, rng = jax.random.split(root, 3)
    params = encoder.init(config.encoder, key_params)
    banks: dict[str, Bank] = {}
    for number, head in enumerate(config.batches.heads):
        banks[head.bank] = init_bank(
            jax.random.fold_in(key_banks, number),
            n_centers[head.bank],
            config.encoder.embedding_width,
            config.centers,
            positives=head.labels_per_step,
            negatives=n_negatives(head.negatives, n_centers[head.bank]),
            n_shards=n_shards,
        )
    opt_state = make_optimizer(config.train).init(params)
    return TrainState(jnp.zeros((), jnp.int32), params, banks, opt_state, rng, init_loss_window(len(banks)))


def n_negatives(fraction: float, n_centers: int) -> int:
    """Centers drawn as negatives in a step: the fraction r of the bank, at least one."""
    return max(1, min(n_centers, round(fraction * n_centers)))
