"""The probe learns what is in the tokens, and only that."""

import numpy as np
import pytest

from ove.config import EncoderConfig, ProbeConfig
from ove.probe.attentive import Scores, fit
from ove.probe.features import Features

ENCODER = EncoderConfig(layers=1, width=64, heads=2, mlp=64)
CONFIG = ProbeConfig(epochs=12, batch_size=16, lr=3e-3, lr_end=1e-5)
CLASSES = 3


def features(count: int, seed: int, strength: float) -> Features:
    """Noise tokens; one of them, at a random place, points in the direction of the class."""
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    tokens = rng.normal(size=(count, 6, 64))
    directions = np.random.default_rng(99).normal(size=(CLASSES, 64))
    tokens[np.arange(count), rng.integers(0, 6, count)] += strength * directions[labels]
    return Features(tokens.astype(np.float16), labels)


@pytest.fixture(scope="module")
def scores() -> Scores:
    return fit(ENCODER, CONFIG, CLASSES, features(320, 1, 4.0), features(70, 2, 4.0))


def test_a_planted_signal_is_found_wherever_it_is(scores: Scores) -> None:
    assert 0.9 < scores.top1_last <= scores.top1_best <= 1  # 70 samples, scored in two parts
    assert 0.9 < scores.train_top1_last <= 1


def test_noise_gives_chance_and_the_same_seed_the_same_scores() -> None:
    found, again = (fit(ENCODER, CONFIG, CLASSES, features(60, 1, 0.0), features(300, 2, 0.0)) for _ in range(2))
    assert abs(found.top1_last - 1 / CLASSES) < 0.12
    assert again == found


def test_every_sample_is_scored_once_even_when_few() -> None:
    few = ProbeConfig(epochs=1, batch_size=32)
    found = fit(ENCODER, few, CLASSES, features(5, 1, 4.0), features(67, 2, 4.0))
    assert (found.top1_last * 67) == pytest.approx(round(found.top1_last * 67))
    assert (found.train_top1_last * 5) == pytest.approx(round(found.train_top1_last * 5))
