"""The attentive probe's network, loss, schedule and step against the same written in NumPy (spec §6)."""

import dataclasses
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from jax.sharding import Mesh
from scipy.special import erf

from ove.config import ProbeConfig
from ove.errors import BadInput
from ove.features.frozen import Frozen
from ove.labels.teachers.clip import ClipConfig
from ove.probing.features import Features
from ove.probing.heads import attentive
from ove.probing.heads.attentive import Probe, _Trainer, fit
from ove.probing.scores import Accuracy, Predictions

Numbers = dict[str, np.ndarray]
CLASSES, TOKENS, WIDTH, EPS = 3, 5, 4, 0.05
CONFIG = ProbeConfig(epochs=2, batch_size=7, lr=2e-2, lr_end=4e-3, label_smoothing=0.1, clip_norm=0.6)
N = 15
"""Two batches an epoch, and one sample that fills none."""
STEPS = 4


def encoder_of(width: int, eps: float = EPS) -> Frozen:
    """Of an encoder a probe looks at no more than this; two devices do not divide a batch of 7."""
    config = ClipConfig(layers=1, width=width, heads=1, mlp=4, patch_px=14, image_px=28, projection=4, norm_eps=eps)
    return Frozen("none", config, {}, "", "float32", Mesh(np.array(jax.devices()[:2]), ("rows",)))


def numbers(params: Any) -> Numbers:
    """Parameters by name, in float64."""
    found = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(params))
    return {"/".join(str(key.key) for key in path): np.asarray(leaf, np.float64) for path, leaf in found}


def scattered(params: Any, seed: int) -> Any:
    """Other values for all parameters, none of them small or zero; the key bias, which nothing depends on, is large."""
    rng = np.random.default_rng(seed)
    pure = nnx.to_pure_dict(params)
    pure = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape) * 0.5, jnp.float32), pure)
    pure["pool"]["k"]["bias"] = pure["pool"]["k"]["bias"] + 100
    nnx.replace_by_pure_dict(params, pure)
    return params


def logits_of(p: Numbers, tokens: np.ndarray, heads: int, eps: float) -> np.ndarray:
    """MAP pool, LayerNorm, linear as they are defined; also for complex numbers."""

    def linear(name: str, x: np.ndarray) -> np.ndarray:
        return x @ p[f"{name}/kernel"] + p[f"{name}/bias"]

    def split(x: np.ndarray) -> np.ndarray:
        return x.reshape(*x.shape[:-1], heads, -1)

    q, k, v = split(linear("pool/q", p["pool/probe"])), split(linear("pool/k", tokens)), split(linear("pool/v", tokens))
    scores = np.einsum("ak,bnak->ban", q, k) / np.sqrt(q.shape[-1])
    weights = np.exp(scores - scores.real.max(-1, keepdims=True))
    weights = weights / weights.sum(-1, keepdims=True)
    a = linear("pool/out", np.einsum("ban,bnak->bak", weights, v).reshape(len(tokens), -1))
    rms = a / np.sqrt((a * a).mean(-1, keepdims=True) + eps) * p["pool/norm/scale"]
    h = linear("pool/mlp/fc1", rms)
    pooled = a + linear("pool/mlp/fc2", h * (1 + erf(h / np.sqrt(2))) / 2)
    centred = pooled - pooled.mean(-1, keepdims=True)
    normed = centred / np.sqrt((centred * centred).mean(-1, keepdims=True) + eps) * p["norm/scale"] + p["norm/bias"]
    return linear("linear", normed)


def loss_of(p: Numbers, tokens: np.ndarray, labels: np.ndarray, smoothing: float) -> Any:
    logits = logits_of(p, tokens, 1, EPS)
    target = (1 - smoothing) * np.eye(CLASSES)[labels] + smoothing / CLASSES
    return -(target * (logits - np.log(np.exp(logits).sum(-1, keepdims=True)))).sum(-1).mean()


def gradient(p: Numbers, tokens: np.ndarray, labels: np.ndarray, smoothing: float) -> Numbers:
    """Exact to rounding, without differentiating by rules: the imaginary part of the loss a tiny imaginary step away."""
    grads = {name: np.zeros_like(value) for name, value in p.items()}
    for name, value in p.items():
        for place in np.ndindex(value.shape):
            moved = value.astype(complex)
            moved[place] += 1e-30j
            grads[name][place] = loss_of(p | {name: moved}, tokens, labels, smoothing).imag / 1e-30
    return grads


def data(seed: int = 5) -> Features:
    rng = np.random.default_rng(seed)
    tokens = rng.normal(size=(N, TOKENS, WIDTH)).astype(np.float16)
    return Features(tokens, np.array([0] * 7 + [0, 1, 2, 0, 1, 2, 1, 1], np.int32))


def test_steps_are_those_of_adamw_by_hand() -> None:
    trainer = _Trainer(encoder_of(WIDTH), CONFIG, CLASSES, N, seeds=[0])
    assert (trainer.batch_size, trainer.steps_per_epoch) == (7, 2)
    state = scattered(trainer._states[0][0], seed=1)
    p = numbers(state)
    trainer._states = [(state, trainer._program.init(state))]
    mean, square = ({name: np.zeros_like(value) for name, value in p.items()} for _ in range(2))
    samples, norms = data(), []
    for step in range(STEPS):
        batch = np.arange(7) + 7 * (step % 2)  # the second one has all classes: its gradient is smaller
        tokens, labels = samples.batch(batch, step // 2), samples.labels[batch]
        grads = gradient(p, tokens.astype(np.float64), labels, CONFIG.label_smoothing)
        norms.append(np.sqrt(sum((g**2).sum() for g in grads.values())))
        rate = CONFIG.lr + (CONFIG.lr_end - CONFIG.lr) * step / STEPS
        for name, g in grads.items():
            g = g * min(1, CONFIG.clip_norm / norms[-1])
            mean[name] = 0.9 * mean[name] + 0.1 * g
            square[name] = 0.999 * square[name] + 0.001 * g**2
            unbiased = mean[name] / (1 - 0.9 ** (step + 1)), square[name] / (1 - 0.999 ** (step + 1))
            p[name] = p[name] - rate * unbiased[0] / (np.sqrt(unbiased[1]) + 1e-8)
        trainer.step(tokens, labels)
        found = numbers(trainer._states[0][0])
        assert found.keys() == p.keys()
        for name, value in p.items():
            np.testing.assert_allclose(found[name], value, rtol=3e-7, atol=1e-5, err_msg=f"{name}, step {step}")
    assert min(norms) < 0.9 * CONFIG.clip_norm and max(norms) > 1.5 * CONFIG.clip_norm, norms
    ((accuracy, predictions),) = trainer.score(samples)
    logits = logits_of(p, samples.tokens.astype(np.float64), 1, EPS)
    shares = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    np.testing.assert_allclose(predictions.probabilities, -np.sort(-shares, axis=1), atol=2e-4)
    assert accuracy.top1 == (shares.argmax(1) == samples.labels).mean() and accuracy.samples == N


def test_the_network_starts_as_it_should_and_has_heads_of_width_64() -> None:
    graphdef = nnx.split(nnx.eval_shape(lambda: Probe(128, 50, EPS, rngs=nnx.Rngs(0))))[0]
    params = jax.jit(lambda: nnx.split(Probe(128, 50, EPS, rngs=nnx.Rngs(3)))[1])()
    p = numbers(params)
    assert p["pool/mlp/fc1/kernel"].shape == (128, 512) and p["linear/kernel"].shape == (128, 50)
    assert p["linear/kernel"].std() == pytest.approx(1e-3 / np.sqrt(128), rel=0.05)
    for name in ("q", "k", "v", "out"):
        assert p[f"pool/{name}/kernel"].std() == pytest.approx(1 / np.sqrt(128), rel=0.05)
        assert not p[f"pool/{name}/bias"].any()
    assert not p["linear/bias"].any() and (p["norm/scale"] == 1).all() and p["pool/probe"].std() == pytest.approx(1, rel=0.2)
    tokens = np.random.default_rng(1).normal(size=(2, 6, 128)).astype(np.float32)
    other = scattered(params, seed=2)
    small = jax.tree.map(lambda leaf: leaf * 0.3, other)  # attention between one token and all
    expected = logits_of(numbers(small), tokens.astype(np.float64), 2, EPS)
    found = jax.jit(lambda params, tokens: nnx.merge(graphdef, params)(tokens))(small, tokens)
    np.testing.assert_allclose(found, expected, atol=2e-4 * np.abs(expected).max())
    heads = [nnx.eval_shape(lambda w=w: Probe(w, 2, EPS, rngs=nnx.Rngs(0))).pool.heads for w in (32, 192, 200)]
    assert heads == [1, 3, 2]  # 3 do not divide 200


def test_the_settings_are_those_of_the_paper_unless_changed() -> None:
    config = ProbeConfig()
    assert (config.lr, config.lr_end, config.label_smoothing, config.clip_norm) == (1e-4, 1e-7, 0.1, 5.0)
    assert (config.epochs, config.batch_size, config.seeds) == (10, 32, (0,))


class Recorded(Features):
    """Remembers what was asked for."""

    asked: list[tuple[list[int], int | None]]

    def batch(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        self.asked.append((indices.tolist(), epoch))
        return super().batch(indices, epoch)


def recorded(of: Features) -> Recorded:
    source = Recorded(of.tokens, of.labels)
    object.__setattr__(source, "asked", [])
    return source


def test_an_epoch_is_a_new_order_without_repetition_and_scoring_is_no_epoch() -> None:
    train, val = recorded(data(1)), recorded(data(2))
    fit(encoder_of(WIDTH), CONFIG, CLASSES, train, val, seed=0)
    epochs = [[index for batch, epoch in train.asked if epoch == wanted for index in batch] for wanted in (0, 1)]
    assert all(len(epoch) == len(set(epoch)) == 14 for epoch in epochs) and epochs[0] != epochs[1]
    assert [epoch for _, epoch in train.asked] == [0, 0, 1, 1, None] and train.asked[-1][0] == list(range(N))
    assert val.asked == [(list(range(N)), None)] * CONFIG.epochs


def test_an_empty_set_is_refused_and_one_sample_is_enough() -> None:
    every, config = data(), dataclasses.replace(CONFIG, epochs=1)
    none, one = (Features(every.tokens[:count], every.labels[:count]) for count in (0, 1))
    for train, val in ((none, one), (one, none)):
        with pytest.raises(BadInput, match="at least one training sample and one validation sample"):
            fit(encoder_of(WIDTH), config, CLASSES, train, val, seed=0)
    found, _ = fit(encoder_of(WIDTH), config, CLASSES, one, one, seed=0)
    assert found.last.samples == found.train.samples == 1


class Scripted:
    """A trainer that learns nothing; its scores are given."""

    top1 = (0.2, 0.6, 0.4, 0.6, 0.5)
    batch_size, steps_per_epoch = 5, 3

    def __init__(self, *_: object) -> None:
        self.steps, self.scored = 0, 0

    def step(self, tokens: np.ndarray, labels: np.ndarray) -> None:
        self.steps += 1

    def score(self, source: Recorded) -> list[tuple[Accuracy, Predictions]]:
        if source is TRAIN:
            assert (self.steps, self.scored) == (15, 5)  # in the end
            return [(Accuracy(1.0, 1.0, 1.0, N), Predictions(np.zeros((1, 1), np.int32), np.zeros((1, 1), np.float32)))]
        self.scored += 1
        value = self.top1[self.scored - 1]
        assert self.steps == 3 * self.scored
        predictions = Predictions(np.full((1, 1), self.scored, np.int32), np.ones((1, 1), np.float32))
        return [(Accuracy(value, 1.0, value, N), predictions)]


TRAIN = recorded(data(1))


def test_last_and_best_epoch_of_the_validation_set(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(attentive, "_Trainer", Scripted)
    config = ProbeConfig(epochs=5, batch_size=5)
    found, predictions = fit(encoder_of(WIDTH), config, CLASSES, TRAIN, data(2), seed=0)
    assert (found.last.top1, found.best.top1, found.best_epoch, found.train.top1) == (0.5, 0.6, 2, 1.0)  # the first of two
    assert predictions.classes.tolist() == [[5]]  # after the last epoch, not the best
