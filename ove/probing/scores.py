"""Computes accuracies with confidence intervals, and predictions, from logits."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from statistics import fmean

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from scipy.special import softmax, stdtrit

from ove.probing.dataset import UNKNOWN

_NORMAL95 = 1.96
TOP_K = 5
"""Predicted classes that count in top-5."""


@dataclass(frozen=True)
class Accuracy:
    """Accuracies over all samples of a set, 0…1."""

    top1: float
    top5: float
    mean_class: float
    """Mean of the top-1 of each class that occurs."""
    samples: int

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % Wilson interval of top-1."""
        n, p, z2 = self.samples, self.top1, _NORMAL95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _NORMAL95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return middle - half, middle + half


@dataclass(frozen=True)
class Scores:
    """Accuracies of one probe."""

    last: Accuracy
    """On the validation set, after the last epoch."""
    best: Accuracy
    """After the epoch with the highest top-1 there: chosen on the validation set, hence an upper bound."""
    best_epoch: int
    """1 …; 0 for probes without epochs."""
    train: Accuracy
    """On the training set, after the last epoch."""


@dataclass(frozen=True)
class Predictions:
    """Per-sample predictions, in the order of the set."""

    classes: Int32[np.ndarray, "S k"]
    """The k most probable classes, in descending order; k = 5, or all classes if there are fewer."""
    probabilities: Float32[np.ndarray, "S k"]
    """Of these classes, 0…1; over all classes they sum to 1."""


class Accuracies:
    """Accumulates accuracies and predictions over batches of samples."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self.counts = np.zeros((3, n_classes + 1), np.int64)
        """Samples, top-1 hits and top-5 hits, per class; the last column counts unknown classes."""
        self._predictions: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]) -> None:
        """Adds the logits of some samples; ties go to the lower class."""
        order = np.argsort(-logits, axis=1, kind="stable")[:, :TOP_K]
        self._predictions.append((order.astype(np.int32), np.take_along_axis(softmax(logits, axis=1), order, axis=1)))
        hits = (order == labels[:, None]) & (labels[:, None] != UNKNOWN)
        for row, right in enumerate((np.ones(len(labels), bool), hits[:, 0], hits.any(axis=1))):
            np.add.at(self.counts[row], labels, right)  # UNKNOWN is the last column

    def predictions(self) -> Predictions:
        """Returns the predictions for all samples added so far."""
        classes, probabilities = (np.concatenate(parts) for parts in zip(*self._predictions, strict=True))
        return Predictions(classes, probabilities.astype(np.float32))

    def accuracy(self) -> Accuracy:
        """Returns the accuracies over all samples added so far, at least one."""
        total, right, among_five = self.counts.sum(axis=1)
        known = self.counts[0, : self._n_classes]
        seen = np.flatnonzero(known)
        by_class = self.counts[1, seen] / known[seen]
        classes = len(seen) + bool(self.counts[0, self._n_classes])
        return Accuracy(float(right / total), float(among_five / total), float(by_class.sum() / classes), int(total))


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Returns the mean over seeds and half of its 95 % interval (Student's t), NaN for a single seed."""
    n = len(values)
    mean = fmean(values)
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
