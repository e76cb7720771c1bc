"""The attentive probe: one learned query pools the tokens of a frozen encoder, LayerNorm, linear classifier (spec §6)."""

from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jaxtyping import Array, Float

from ove.config import EncoderConfig, ProbeConfig
from ove.encoder.pool import Pool
from ove.probe.features import Features

_LINEAR_SCALE = 1e-3
"""Of the classifier's initial weights (spec §6)."""
_SCORED_AT_ONCE = 64


@dataclass(frozen=True)
class Scores:
    """Top-1 accuracy on the validation set, 0…1."""

    top1_last: float
    top1_best: float
    """Over the epochs; chosen on the validation set, so an upper bound."""
    train_top1_last: float


class Probe(nnx.Module):
    """MAP pool with heads of width 64 and an MLP of four times the width, LayerNorm, linear."""

    def __init__(self, width: int, n_classes: int, norm_eps: float, *, rngs: nnx.Rngs):
        self.pool = Pool(width, max(1, width // 64), 4 * width, norm_eps, init_std=width**-0.5, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=norm_eps, rngs=rngs)
        self.linear = nnx.Linear(width, n_classes, rngs=rngs)
        self.linear.kernel[...] *= _LINEAR_SCALE

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B classes"]:
        """Logits."""
        return self.linear(self.norm(self.pool(tokens)))


def fit(encoder_config: EncoderConfig, config: ProbeConfig, n_classes: int, train: Features, val: Features) -> Scores:
    """Trains a probe on `train` and scores every sample of `val` once an epoch; a function of `config.seed`."""
    n = len(train.labels)
    batch_size = min(config.batch_size, n)
    per_epoch = n // batch_size
    optimizer = optax.chain(
        optax.clip_by_global_norm(config.clip_norm),
        optax.adamw(optax.linear_schedule(config.lr, config.lr_end, per_epoch * config.epochs), weight_decay=0.0),
    )
    graphdef, params = nnx.split(Probe(encoder_config.width, n_classes, encoder_config.norm_eps, rngs=nnx.Rngs(config.seed)))

    def logits_of(params: Any, tokens: Array) -> Array:
        return nnx.merge(graphdef, params)(tokens.astype(jnp.float32))

    def loss_of(params: Any, tokens: Array, labels: Array) -> Array:
        smooth = optax.smooth_labels(jax.nn.one_hot(labels, n_classes), config.label_smoothing)
        return optax.softmax_cross_entropy(logits_of(params, tokens), smooth).mean()

    # Tokens and labels are arguments: taken from the scope, the program would hold them as constants.
    @jax.jit
    def epoch(state: tuple, order: Array, tokens: Array, labels: Array) -> tuple:
        def step(state: tuple, indices: Array) -> tuple[tuple, None]:
            params, opt_state = state
            grads = jax.grad(loss_of)(params, tokens[indices], labels[indices])
            updates, opt_state = optimizer.update(grads, opt_state, params)
            return (optax.apply_updates(params, updates), opt_state), None

        return jax.lax.scan(step, state, order)[0]

    predict = jax.jit(lambda params, tokens: logits_of(params, tokens).argmax(-1))
    tokens, labels = jnp.asarray(train.tokens), jnp.asarray(train.labels)
    rng = np.random.default_rng(config.seed)
    state = (params, optimizer.init(params))
    top1 = []
    for _ in range(config.epochs):
        order = rng.permutation(n)[: per_epoch * batch_size].reshape(per_epoch, batch_size)
        state = epoch(state, jnp.asarray(order), tokens, labels)
        top1.append(_accuracy(predict, state[0], val))
    return Scores(top1[-1], max(top1), _accuracy(predict, state[0], train))


def _accuracy(predict: jax.stages.Wrapped, params: Any, features: Features) -> float:
    """Share of samples whose class is the most probable one."""
    right = 0
    for start in range(0, len(features.labels), _SCORED_AT_ONCE):
        part = slice(start, start + _SCORED_AT_ONCE)
        right += int((np.asarray(predict(params, features.tokens[part])) == features.labels[part]).sum())
    return right / len(features.labels)
