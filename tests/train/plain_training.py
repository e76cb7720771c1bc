"""Training written down from spec §3 and §4: the loss over whole matrices, `jax.grad` of all of it, AdamW in float64 NumPy.

Of the code under test it takes the encoder's forward pass, the stratified draw of rows and the shuffle of labels, which have
tests of their own.
"""

from dataclasses import dataclass, replace

import jax
import jax.numpy as jnp
import numpy as np

from ove.centers.sample import draw_rows
from ove.centers.shuffle import row_of
from ove.config import RunConfig
from ove.encoder import encoder
from ove.train.encoder_grads import BatchArrays
from ove.train.init import TrainState

Arrays = dict[str, np.ndarray]
Metrics = dict[str, float]
MODULES = {"patch": ["patch", "pre_norm"], "blocks": ["blocks"], "head": ["post_norm", "pool"]}


@dataclass(frozen=True)
class PlainBank:
    """The centers of a bank in the order of its rows; `logit` is scale and bias."""

    rows: np.ndarray
    rows_m: np.ndarray
    rows_v: np.ndarray
    rows_count: np.ndarray
    rows_step: np.ndarray
    rows_positive: np.ndarray
    logit: np.ndarray
    logit_m: np.ndarray
    logit_v: np.ndarray
    logit_count: int


@dataclass(frozen=True)
class PlainState:
    """All that a step changes; parameters by their paths."""

    step: int
    applied: int
    """Steps that were not skipped."""
    params: Arrays
    m: Arrays
    v: Arrays
    banks: dict[str, PlainBank]


def by_path(tree: object) -> Arrays:
    """The leaves of nested dictionaries as `blocks/mlp/fc1/kernel`, in float64."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    return {"/".join(key.key for key in path): np.array(leaf, np.float64) for path, leaf in leaves}


def begin(state: TrainState, n_centers: int) -> PlainState:
    """The same state, without the padding of its banks."""
    params = by_path(state.params)
    banks = {}
    for name, bank in state.banks.items():
        rows = np.array(bank.rows, np.float64)[:n_centers]
        none = np.zeros(n_centers, int)
        zero, logit = np.zeros_like(rows), np.array([bank.scale, bank.bias], np.float64)
        banks[name] = PlainBank(rows, zero, zero, none, none, none, logit, np.zeros(2), np.zeros(2), 0)
    zeros = {name: np.zeros_like(values) for name, values in params.items()}
    return PlainState(0, 0, params, zeros, zeros, banks)


class PlainTraining:
    """Training as `config` says, with the learning rates (encoder's and each bank's) of every step written down by hand."""

    def __init__(self, config: RunConfig, state: TrainState, rates: list[dict[str, float]]) -> None:
        self._config, self._rates = config, rates
        # A copy, for a step takes away the state that it is given.
        self._rng = jax.random.wrap_key_data(np.array(jax.random.key_data(state.rng)))
        self._structure = jax.tree.structure(state.params)
        self._slope = jax.jit(jax.value_and_grad(self._loss, argnums=(0, 1, 2)))

    def _loss(
        self,
        params: object,
        rows: jax.Array,
        logit: jax.Array,
        batch: dict[str, jax.Array],
        is_label: jax.Array,
        is_sampled: jax.Array,
    ) -> jax.Array:
        e = encoder.apply(self._config.encoder, params, batch["patches"], batch["positions"]).pooled
        cosine = (e / jnp.linalg.norm(e, axis=1, keepdims=True)) @ (rows / jnp.linalg.norm(rows, axis=1, keepdims=True)).T
        y = jnp.where(is_label, 1, -1)
        return (is_sampled * jnp.logaddexp(0, -y * (logit[0] * cosine + logit[1]))).sum() / len(e)

    def step(self, old: PlainState, batch: BatchArrays) -> tuple[PlainState, Metrics]:
        """The state after a step, and what is logged of it."""
        train, metrics = self._config.train, {"loss": 0.0, "lr": self._rates[old.step]["lr"]}
        params = jax.tree.unflatten(self._structure, [jnp.asarray(values, jnp.float32) for values in old.params.values()])
        grads = {name: np.zeros_like(values) for name, values in old.params.items()}
        banks = {}
        for number, head in enumerate(self._config.batches.heads):
            name, bank = head.bank, old.banks[head.bank]
            labels, key = np.asarray(batch[name]["labels"]), jax.random.fold_in(jax.random.fold_in(self._rng, old.step), number)
            is_label, is_positive, is_sampled = _sampled(labels, key, len(bank.rows), head.labels_per_step, head.negatives)
            loss, slopes = self._slope(
                params, jnp.asarray(bank.rows), jnp.asarray(bank.logit), batch[name], is_label, is_sampled
            )
            for path, slope in by_path(slopes[0]).items():
                grads[path] += head.weight * slope
            rows_slope, logit_slope = (head.weight * np.asarray(slope, np.float64) for slope in slopes[1:])
            norm = np.sqrt((rows_slope**2).sum() + (logit_slope**2).sum())
            factor, lr = min(1.0, train.clip_norm / norm), self._rates[old.step][name]
            banks[name] = self._bank_after(
                bank, old.step, factor * rows_slope, factor * logit_slope, is_sampled, is_positive, lr
            )
            metrics |= {f"loss/{name}": float(loss), f"grad_norm/{name}": norm, f"lr_bank/{name}": lr}
            metrics["loss"] += head.weight * float(loss)
            metrics[f"ever_positive/{name}"] = (banks[name].rows_positive > 0).sum()
        squares = {name: (grad**2).sum() for name, grad in grads.items()}
        metrics["grad_norm/encoder"] = np.sqrt(sum(squares.values()))
        for part, modules in MODULES.items():
            metrics[f"grad_norm/{part}"] = np.sqrt(sum(s for name, s in squares.items() if name.split("/")[0] in modules))
        factor = min(1.0, train.clip_norm / metrics["grad_norm/encoder"])
        new: tuple[Arrays, Arrays, Arrays] = {}, {}, {}
        for name, values in old.params.items():
            change, new[1][name], new[2][name] = self._adam(factor * grads[name], old.m[name], old.v[name], old.applied + 1)
            decay = train.weight_decay if name.endswith("/kernel") else 0.0
            new[0][name] = values - metrics["lr"] * (change + decay * values)
        return PlainState(old.step + 1, old.applied + 1, *new, banks), metrics

    def _bank_after(
        self,
        bank: PlainBank,
        step: int,
        rows_slope: np.ndarray,
        logit_slope: np.ndarray,
        is_sampled: np.ndarray,
        is_positive: np.ndarray,
        lr: float,
    ) -> PlainBank:
        count = bank.rows_count + is_sampled
        change, m, v = self._adam(rows_slope, bank.rows_m, bank.rows_v, np.maximum(count, 1)[:, None])
        times = step + 1 - bank.rows_step if self._config.centers.decay == "elapsed" else np.ones(len(count))
        rows = bank.rows * (1 - lr * self._config.train.weight_decay) ** times[:, None] - lr * change
        logit_change, logit_m, logit_v = self._adam(logit_slope, bank.logit_m, bank.logit_v, bank.logit_count + 1)
        here = is_sampled[:, None]
        return PlainBank(
            np.where(here, rows, bank.rows),
            np.where(here, m, bank.rows_m),
            np.where(here, v, bank.rows_v),
            count,
            np.where(is_sampled, step + 1, bank.rows_step),
            bank.rows_positive + is_positive,
            bank.logit - lr * logit_change,
            logit_m,
            logit_v,
            bank.logit_count + 1,
        )

    def _adam(
        self, grad: np.ndarray, m: np.ndarray, v: np.ndarray, count: int | np.ndarray
    ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        train = self._config.train
        m, v = train.b1 * m + (1 - train.b1) * grad, train.b2 * v + (1 - train.b2) * grad**2
        change = (m / (1 - train.b1**count)) / (np.sqrt(v / (1 - train.b2**count)) + train.adam_eps)
        return change, m, v


def skipped(old: PlainState) -> PlainState:
    """The state after a step that changes nothing."""
    return replace(old, step=old.step + 1)


def _sampled(
    labels: np.ndarray, key: jax.Array, n_centers: int, labels_per_step: int, fraction: float
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(B, C) which row is whose label; (C,) which rows are a label of this step; (C,) which take part in it."""
    key_labels, key_rows = jax.random.split(key)
    rows = np.asarray(row_of(jnp.asarray(np.maximum(labels, 0)), n_centers))
    is_label = np.zeros((len(labels), n_centers), bool)
    is_positive, is_sampled = np.zeros(n_centers, bool), np.zeros(n_centers, bool)
    order = np.where(labels < 0, -1.0, np.asarray(jax.random.uniform(key_labels, labels.shape)))
    for sample, places in enumerate(np.argsort(-order, axis=1)):
        is_label[sample, rows[sample, labels[sample] >= 0]] = True
        for place in places[:labels_per_step]:
            if labels[sample, place] >= 0:
                is_positive[rows[sample, place]] = True
    is_sampled[np.asarray(draw_rows(key_rows, n_centers, round(fraction * n_centers), 0, n_centers))] = True
    return is_label, is_positive, is_sampled | is_positive
