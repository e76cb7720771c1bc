"""The probe learns what is in the tokens, and only that."""

import dataclasses

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from sklearn.linear_model import LogisticRegression

from ove.config import EncoderConfig, ProbeConfig
from ove.encoder import encoder
from ove.errors import BadInput
from ove.features.frozen import Frozen, frozen
from ove.probing.features import Features
from ove.probing.heads.attentive import fit, fit_seeds
from ove.probing.scores import Scores

CONFIG = ProbeConfig(epochs=8, batch_size=16, lr=3e-3, lr_end=1e-5)
CLASSES = 3


@pytest.fixture(scope="module")
def on_eight() -> Frozen:
    config = EncoderConfig(layers=1, width=64, heads=2, mlp=64)
    return frozen(config, encoder.init(config, jax.random.key(0)))


def features(count: int, seed: int, strength: float) -> Features:
    """Noise tokens; one of them, at a random place, points in the direction of the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    tokens = rng.normal(size=(count, 6, 64))
    directions = np.random.default_rng(99).normal(size=(CLASSES, 64))
    tokens[np.arange(count), rng.integers(0, 6, count)] += strength * directions[labels]
    return Features(tokens.astype(np.float16), labels)


@pytest.fixture(scope="module")
def scores(on_eight: Frozen) -> Scores:
    return fit(on_eight, CONFIG, CLASSES, features(320, 1, 4.0), features(70, 2, 4.0), seed=0)[0]


def test_a_planted_signal_is_found_wherever_it_is(scores: Scores) -> None:
    assert 0.9 < scores.last.top1 <= scores.best.top1 <= 1  # 70 samples, scored in two parts
    assert 0.9 < scores.train.top1 <= 1 and scores.last.top5 == 1
    assert scores.last.samples == scores.best.samples == 70 and scores.train.samples == 320
    assert 1 <= scores.best_epoch <= CONFIG.epochs


def test_it_finds_more_than_logistic_regression_on_the_mean_of_the_tokens(scores: Scores) -> None:
    train, val = features(320, 1, 4.0), features(70, 2, 4.0)
    means = [part.tokens.astype(np.float32).mean(axis=1) for part in (train, val)]
    floor = LogisticRegression(max_iter=1000).fit(means[0], train.labels).score(means[1], val.labels)
    assert 1 / CLASSES + 0.1 < floor <= scores.last.top1


def test_one_device_gives_the_scores_of_eight(on_eight: Frozen, scores: Scores) -> None:
    one = dataclasses.replace(on_eight, mesh=Mesh(np.array(jax.devices()[:1]), ("rows",)))
    assert fit(one, CONFIG, CLASSES, features(320, 1, 4.0), features(70, 2, 4.0), seed=0)[0] == scores


def test_noise_gives_chance_and_the_same_seed_the_same_scores(on_eight: Frozen) -> None:
    def run(seed: int) -> Scores:
        return fit(on_eight, CONFIG, CLASSES, features(60, 1, 0.0), features(300, 2, 0.0), seed=seed)[0]

    found = run(0)
    assert abs(found.last.top1 - 1 / CLASSES) < 0.12
    assert run(0) == found != run(1)


def test_every_sample_is_scored_once_even_when_few(on_eight: Frozen) -> None:
    few = ProbeConfig(epochs=1, batch_size=32)
    found, _ = fit(on_eight, few, CLASSES, features(5, 1, 4.0), features(67, 2, 4.0), seed=0)
    assert (found.last.samples, found.train.samples) == (67, 5)
    assert (found.last.top1 * 67) == pytest.approx(round(found.last.top1 * 67))


def test_samples_of_unknown_classes_are_wrong_in_scoring_and_refused_in_training(on_eight: Frozen, scores: Scores) -> None:
    train, val = features(320, 1, 4.0), features(70, 2, 4.0)
    val.labels[:35] = -1
    found, predictions = fit(on_eight, CONFIG, CLASSES, train, val, seed=0)
    assert found.last.top1 <= 0.5 < scores.last.top1 and found.last.samples == 70
    assert (predictions.classes[:, 0] == val.labels).mean() == pytest.approx(found.last.top1) and predictions.classes.shape == (
        70,
        CLASSES,
    )
    np.testing.assert_allclose(predictions.probabilities.sum(axis=1), 1, rtol=1e-5)
    train.labels[3] = -1
    with pytest.raises(BadInput, match="training samples of known classes"):
        fit(on_eight, CONFIG, CLASSES, train, val, seed=0)


class Counted:
    """Tokens that count how often each is asked for."""

    def __init__(self, of: Features) -> None:
        self.labels, self._of, self.asked = of.labels, of, 0

    def batch(self, indices: np.ndarray, epoch: int | None) -> np.ndarray:
        self.asked += len(indices)
        return self._of.batch(indices, epoch)


def test_probes_of_several_seeds_read_the_tokens_once_and_do_not_depend_on_each_other(on_eight: Frozen) -> None:
    train, val = features(60, 1, 0.5), features(70, 2, 0.5)
    alone = [fit(on_eight, CONFIG, CLASSES, train, val, seed) for seed in (3, 4)]
    one, three = Counted(train), Counted(train)
    fit(on_eight, CONFIG, CLASSES, one, val, 3)
    together = fit_seeds(on_eight, CONFIG, CLASSES, three, val, (4, 5, 3))
    assert three.asked == one.asked
    for found, expected in ((together[2], alone[0]), (together[0], alone[1])):
        assert found[0] == expected[0]
        np.testing.assert_array_equal(found[1].probabilities, expected[1].probabilities)
    assert not np.array_equal(together[0][1].probabilities, together[1][1].probabilities)
