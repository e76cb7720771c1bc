"""The attentive probe: one learned query pools the tokens of a frozen encoder, LayerNorm, linear classifier (spec §6)."""

import functools
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax.experimental import multihost_utils
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float

from ove.config import ProbeConfig
from ove.encoder.pool import Pool
from ove.errors import BadInput
from ove.features.frozen import Frozen
from ove.prefetch import prefetch
from ove.probing.dataset import UNKNOWN
from ove.probing.features import TokenSource, of_all, part_of
from ove.probing.scores import Accuracies, Accuracy, Predictions, Scores

HEAD_WIDTH = 64
_LINEAR_SCALE = 1e-3
"""Factor of the classifier's initial weights (spec §6)."""
_SCORED_AT_ONCE = 64


class Probe(nnx.Module):
    """MAP pool with heads of width 64 and an MLP of four times the width, LayerNorm, linear."""

    def __init__(self, width: int, n_classes: int, norm_eps: float, *, rngs: nnx.Rngs):
        heads = max(1, width // HEAD_WIDTH)
        while width % heads:
            heads -= 1
        self.pool = Pool(width, heads, 4 * width, norm_eps, init_std=width**-0.5, rngs=rngs)
        self.norm = nnx.LayerNorm(width, epsilon=norm_eps, rngs=rngs)
        self.linear = nnx.Linear(width, n_classes, rngs=rngs)
        self.linear.kernel[...] *= _LINEAR_SCALE

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B classes"]:
        """Logits."""
        return self.linear(self.norm(self.pool(tokens)))


def fit(
    encoder: Frozen, config: ProbeConfig, n_classes: int, train: TokenSource, val: TokenSource, seed: int
) -> tuple[Scores, Predictions]:
    """Trains one probe, as `fit_seeds`."""
    return fit_seeds(encoder, config, n_classes, train, val, [seed])[0]


def fit_seeds(
    encoder: Frozen, config: ProbeConfig, n_classes: int, train: TokenSource, val: TokenSource, seeds: Sequence[int]
) -> list[tuple[Scores, Predictions]]:
    """Trains a probe for each seed on `train` and scores it on `val` after each epoch.

    Returns scores and the last epoch's predictions, by seed. The seed draws the initial weights; all probes see the same
    batches, so that tokens which are encoded on demand are encoded once for all. Each result depends on its own seed only. Of
    `encoder`, only the width, the eps of its norms and its part of the samples are used. Every epoch shuffles anew and drops
    the last incomplete batch. Devices share each batch; all processes train alike, and each scores its part of the samples.
    BadInput for training samples of an unknown class.
    """
    n = len(train.labels)
    if n == 0 or len(val.labels) == 0 or (train.labels == UNKNOWN).any():
        raise BadInput(
            "a probe needs at least one training sample and one validation sample, and training samples of known classes."
        )
    trainer = _Trainer(encoder, config, n_classes, n, seeds)
    rng = np.random.default_rng(0)
    of_epochs: list[list[tuple[Accuracy, Predictions]]] = []
    for epoch in range(config.epochs):
        order = rng.permutation(n)[: trainer.steps_per_epoch * trainer.batch_size].reshape(-1, trainer.batch_size)
        for tokens, labels in _batches(train, order, epoch):
            trainer.step(tokens, labels)
        of_epochs.append(trainer.score(val))
    results = []
    for number, (of_train, _) in enumerate(trainer.score(train)):
        mine = [found[number][0] for found in of_epochs]
        best = max(range(config.epochs), key=lambda epoch: (mine[epoch].top1, -epoch))
        results.append((Scores(mine[-1], mine[best], best + 1, of_train), of_epochs[-1][number][1]))
    return results


class _Program(NamedTuple):
    """Compiled functions, shared by probes that differ only in seed and data."""

    init: Callable[[Any], Any]
    """params → opt_state."""
    step: Callable[..., Any]
    """(params, opt_state), tokens, labels → the next state; the arguments are donated."""
    predict: Callable[[Any, Array], Array]
    """params, tokens → logits."""


@functools.lru_cache(maxsize=16)
def _program(
    width: int, norm_eps: float, n_classes: int, n_steps: int, lr: float, lr_end: float, smoothing: float, clip_norm: float
) -> _Program:
    graphdef = nnx.split(nnx.eval_shape(lambda: Probe(width, n_classes, norm_eps, rngs=nnx.Rngs(0))))[0]
    schedule = optax.linear_schedule(lr, lr_end, n_steps)
    optimizer = optax.chain(optax.clip_by_global_norm(clip_norm), optax.adamw(schedule, weight_decay=0.0))

    def predict(params: Any, tokens: Array) -> Array:
        return nnx.merge(graphdef, params)(tokens.astype(jnp.float32))

    def loss_of(params: Any, tokens: Array, labels: Array) -> Array:
        smooth = optax.smooth_labels(jax.nn.one_hot(labels, n_classes), smoothing)
        losses = optax.softmax_cross_entropy(predict(params, tokens), smooth)
        is_sample = labels != UNKNOWN  # the others are padding
        return jnp.where(is_sample, losses, 0).sum() / is_sample.sum()

    def step(state: tuple, tokens: Array, labels: Array) -> tuple:
        params, opt_state = state
        grads = jax.grad(loss_of)(params, tokens, labels)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state

    return _Program(optimizer.init, jax.jit(step, donate_argnums=0), jax.jit(predict))


class _Trainer:
    """The states of probes that share their batches, with their training step and scoring."""

    def __init__(self, encoder: Frozen, config: ProbeConfig, n_classes: int, n: int, seeds: Sequence[int]) -> None:
        self._part = encoder.part
        self.batch_size = min(config.batch_size, n)
        self.steps_per_epoch = n // self.batch_size
        self._n_classes = n_classes
        self._devices, self._rows = encoder.mesh.size, NamedSharding(encoder.mesh, PartitionSpec("rows"))
        n_steps = self.steps_per_epoch * config.epochs
        width, norm_eps = encoder.config.width, encoder.config.norm_eps
        training = config.lr, config.lr_end, config.label_smoothing, config.clip_norm
        self._program = _program(width, norm_eps, n_classes, n_steps, *training)
        whole = NamedSharding(encoder.mesh, PartitionSpec())
        self._states: list[Any] = []
        for seed in seeds:
            params = nnx.split(Probe(width, n_classes, norm_eps, rngs=nnx.Rngs(seed)))[1]
            self._states.append(jax.device_put((params, self._program.init(params)), whole))

    def step(self, tokens: np.ndarray, labels: np.ndarray) -> None:
        """Updates each probe once."""
        placed = self._placed(tokens, labels, self.batch_size)
        self._states = [self._program.step(state, *placed) for state in self._states]

    def score(self, source: TokenSource) -> list[tuple[Accuracy, Predictions]]:
        """Scores each sample once, by each probe; every process gets the accuracy and predictions of all samples."""
        accuracies = [Accuracies(self._n_classes) for _ in self._states]
        mine = np.array(part_of(len(source.labels), self._part))
        parts = [mine[start : start + _SCORED_AT_ONCE] for start in range(0, len(mine), _SCORED_AT_ONCE)]
        for tokens, labels in _batches(source, parts, None):
            placed, _ = self._placed(tokens, labels, _SCORED_AT_ONCE)
            for (params, _), one in zip(self._states, accuracies, strict=True):
                one.add(np.asarray(self._program.predict(params, placed))[: len(labels)], labels)
        return [self._of_all_processes(one, len(source.labels)) for one in accuracies]

    def _of_all_processes(self, mine: Accuracies, total: int) -> tuple[Accuracy, Predictions]:
        found = mine.predictions()
        if self._part[1] > 1:
            mine.counts = np.asarray(multihost_utils.process_allgather(mine.counts)).sum(axis=0)
            found = Predictions(*(of_all(rows, total, self._part) for rows in (found.classes, found.probabilities)))
        return mine.accuracy(), found

    def _placed(self, tokens: np.ndarray, labels: np.ndarray, size: int) -> tuple[Array, Array]:
        """Pads a batch to a multiple of the devices and shards it."""
        missing = -(-size // self._devices) * self._devices - len(labels)
        tokens = np.concatenate([tokens, np.zeros((missing, *tokens.shape[1:]), tokens.dtype)]) if missing else tokens
        labels = np.concatenate([labels, np.full(missing, UNKNOWN, labels.dtype)])
        return jax.device_put((tokens, labels), self._rows)


def _batches(source: TokenSource, parts: Any, epoch: int | None) -> Iterator[tuple[np.ndarray, np.ndarray]]:
    """Yields tokens and labels of each part; reads the next part in the meantime."""

    def batch(indices: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        return np.asarray(source.batch(indices, epoch)), source.labels[indices]

    return prefetch(batch, parts, threads=1, depth=1)
