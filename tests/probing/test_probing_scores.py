"""Accuracies against counting by hand, and intervals against textbook values."""

import math

import numpy as np
import pytest
from scipy.stats import binomtest

from ove.probing.scores import Accuracies, Accuracy, mean_and_half_width


def test_top1_top5_and_mean_class() -> None:
    logits = np.zeros((4, 7), np.float32)
    logits[0, 2] = 1  # right
    logits[1] = [6, 5, 4, 3, 2, 1, 0]  # class 4 comes fifth
    logits[2] = [6, 5, 4, 3, 2, 1, 0]  # class 5 comes sixth
    logits[3, 2] = 1  # right
    accuracies = Accuracies(7)
    accuracies.add(logits[:1], np.array([2]))
    accuracies.add(logits[1:], np.array([4, 5, 2]))
    assert accuracies.accuracy() == Accuracy(0.5, 0.75, 1 / 3, 4)


def test_equal_logits_are_no_right_answer_by_luck() -> None:
    accuracies = Accuracies(3)
    accuracies.add(np.zeros((3, 3), np.float32), np.array([0, 1, 2]))
    assert accuracies.accuracy().top1 == pytest.approx(1 / 3)


def test_an_unknown_class_is_always_wrong_and_counts_as_a_class() -> None:
    accuracies = Accuracies(2)
    accuracies.add(np.array([[1.0, 0], [1, 0], [1, 0]], np.float32), np.array([0, -1, -1]))
    assert accuracies.accuracy() == Accuracy(1 / 3, 1 / 3, 0.5, 3)


def test_intervals() -> None:
    low, high = Accuracy(0.5, 0.5, 0.5, 100).interval()
    assert (low, high) == pytest.approx((0.4038, 0.5962), abs=1e-4)
    low, high = Accuracy(1.0, 1.0, 1.0, 10).interval()
    assert high == pytest.approx(1) and low == pytest.approx(0.7225, abs=1e-4)
    mean, half = mean_and_half_width([0.5, 0.6, 0.7])
    assert (mean, half) == pytest.approx((0.6, 4.302653 * 0.1 / math.sqrt(3)))
    assert mean_and_half_width([0.5])[0] == 0.5 and math.isnan(mean_and_half_width([0.5])[1])
    assert mean_and_half_width([0.0, 1.0] * 10)[1] == pytest.approx(2.093024 * 0.512989 / math.sqrt(20), rel=1e-4)


@pytest.mark.parametrize(("right", "n"), [(0, 3), (1, 7), (50, 51), (400, 1000)])
def test_intervals_are_those_of_scipy(right: int, n: int) -> None:
    expected = binomtest(right, n).proportion_ci(method="wilson")
    assert Accuracy(right / n, 1.0, 1.0, n).interval() == pytest.approx((expected.low, expected.high), abs=2e-5)


def test_what_is_said_is_the_softmax_of_the_best_five() -> None:
    logits = np.random.default_rng(0).normal(size=(3, 9)) * 2
    logits[1, 4] = -np.inf
    accuracies = Accuracies(9)
    accuracies.add(logits[:2], np.array([0, 1]))
    accuracies.add(logits[2:], np.array([2]))
    predictions = accuracies.predictions()
    shares = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    np.testing.assert_array_equal(predictions.classes, np.argsort(-shares, axis=1)[:, :5])
    np.testing.assert_allclose(predictions.probabilities, -np.sort(-shares, axis=1)[:, :5], rtol=1e-6)


def test_of_equal_logits_the_lower_classes_are_among_the_five() -> None:
    accuracies = Accuracies(7)
    accuracies.add(np.zeros((3, 7)), np.array([4, 5, 0]))
    assert accuracies.predictions().classes.tolist() == [[0, 1, 2, 3, 4]] * 3
    assert accuracies.accuracy() == Accuracy(1 / 3, 2 / 3, 1 / 3, 3)
