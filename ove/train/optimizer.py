"""AdamW for the encoder, its schedule, and which parameters decay. The banks have their own: `ove.centers.rows`."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32, Int

from ove.config import TrainConfig
from ove.named import named

_DECAYED = ("kernel",)
"""Matrices decay; norms, biases and the pooling probe do not."""


def _linear(peak: float, steps: int) -> optax.Schedule:
    return optax.linear_schedule(peak, 0.0, steps)


SCHEDULES: dict[str, Callable[[float, int], optax.Schedule]] = {"linear": _linear, "cosine": optax.cosine_decay_schedule}
"""`train.schedule`: the peak, and the steps after the warm-up → a schedule of these, which begins at the peak."""


def learning_rate(config: TrainConfig, peak: float) -> optax.Schedule:
    """Returns step → rate: linear warm-up to `peak`, then by an entry of `SCHEDULES`, ours to 0 at `config.steps` (spec §4)."""
    warmup = min(config.warmup_steps, config.steps)
    decay = max(config.steps - warmup, 1)
    after = named(SCHEDULES, config.schedule, "train.schedule")(peak, decay)
    return optax.join_schedules([optax.linear_schedule(0.0, peak, max(warmup, 1)), after], [warmup])


def make_optimizer(config: TrainConfig) -> optax.GradientTransformation:
    """Returns AdamW with the schedule of `config`, for gradients that are clipped already."""
    return optax.adamw(
        learning_rate(config, config.lr),
        b1=config.b1,
        b2=config.b2,
        eps=config.adam_eps,
        weight_decay=config.weight_decay,
        mask=_decays,
    )


def at_step(opt_state: Any, step: Int[Array, ""]) -> Any:
    """Sets the schedule of `make_optimizer`'s state to `step`: skipped steps change no moments, but count in the rate."""
    *moments, schedule = opt_state
    return (*moments, schedule._replace(count=step))


def clip(grads: Any, norm: Float32[Array, ""], most: float) -> Any:
    """Returns gradients of global norm `norm` scaled down to norm `most` if they exceed it."""
    return jax.tree.map(lambda grad: grad * (most / jnp.maximum(norm, most)), grads)


def _decays(params: Any) -> Any:
    return jax.tree_util.tree_map_with_path(lambda path, _: getattr(path[-1], "key", None) in _DECAYED, params)
