"""From logits to accuracies, and how far to trust them."""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from jaxtyping import Float, Float32, Int, Int32
from scipy.special import softmax, stdtrit

from ove.probe.dataset import UNKNOWN

_NORMAL95 = 1.96
AMONG = 5
"""Classes that count as said, of top-5."""


@dataclass(frozen=True)
class Accuracy:
    """Shares of right answers, 0…1, over all samples of a set."""

    top1: float
    top5: float
    mean_class: float
    """Mean over the classes that occur of the top-1 within each."""
    samples: int

    def interval(self) -> tuple[float, float]:
        """95 % interval of top-1 for the number of samples (Wilson)."""
        n, p, z2 = self.samples, self.top1, _NORMAL95**2
        middle = (p + z2 / (2 * n)) / (1 + z2 / n)
        half = _NORMAL95 / (1 + z2 / n) * math.sqrt(p * (1 - p) / n + z2 / (4 * n * n))
        return middle - half, middle + half


@dataclass(frozen=True)
class Scores:
    """Of one probe."""

    last: Accuracy
    """On the validation set, after the last epoch."""
    best: Accuracy
    """After the epoch with the highest top-1 there: chosen on the validation set, hence an upper bound."""
    best_epoch: int
    """1 …; 0 for probes without epochs."""
    train: Accuracy
    """On the training set, in the end."""


@dataclass(frozen=True)
class Said:
    """What a probe says of each sample of a set, in the set's order."""

    classes: Int32[np.ndarray, "S k"]
    """The five classes (or all, if there are fewer) that it holds for the most probable, the first one first."""
    probabilities: Float32[np.ndarray, "S k"]
    """0…1; over all classes they would add up to 1."""


class Tally:
    """Counts right answers sample by sample, and keeps what was said; each sample counts once."""

    def __init__(self, n_classes: int) -> None:
        self._n_classes = n_classes
        self.counts = np.zeros((3, n_classes + 1), np.int64)
        """Samples, right ones, right ones among five, by class; the last column is that of unknown classes."""
        self._said: list[tuple[np.ndarray, np.ndarray]] = []

    def add(self, logits: Float[np.ndarray, "n classes"], labels: Int[np.ndarray, "n"]) -> None:
        """Logits of some samples (−∞: never); of equal ones the lower class counts as said first."""
        order = np.argsort(-logits, axis=1, kind="stable")[:, :AMONG]
        self._said.append((order.astype(np.int32), np.take_along_axis(softmax(logits, axis=1), order, axis=1)))
        hits = (order == labels[:, None]) & (labels[:, None] != UNKNOWN)
        for row, right in enumerate((np.ones(len(labels), bool), hits[:, 0], hits.any(axis=1))):
            np.add.at(self.counts[row], labels, right)  # UNKNOWN is the last column

    def said(self) -> Said:
        """Of everything added so far, in that order."""
        classes, probabilities = (np.concatenate(parts) for parts in zip(*self._said, strict=True))
        return Said(classes, probabilities.astype(np.float32))

    def accuracy(self) -> Accuracy:
        """Of everything added so far, at least one sample."""
        total, right, among_five = self.counts.sum(axis=1)
        known = self.counts[0, : self._n_classes]
        seen = np.flatnonzero(known)
        by_class = self.counts[1, seen] / known[seen]
        classes = len(seen) + bool(self.counts[0, self._n_classes])
        return Accuracy(float(right / total), float(among_five / total), float(by_class.sum() / classes), int(total))


def mean_and_half_width(values: Sequence[float]) -> tuple[float, float]:
    """Mean over seeds and half of its 95 % interval (Student's t); the latter is NaN for a single seed."""
    n = len(values)
    mean = math.fsum(values) / n
    if n < 2:
        return mean, math.nan
    spread = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
    return mean, float(stdtrit(n - 1, 0.975)) * spread / math.sqrt(n)
