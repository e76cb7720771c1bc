"""The losses and the optimizer of a bank in float64, over dense matrices, written down from the specification alone."""

from dataclasses import dataclass

import numpy as np


@dataclass
class DenseBank:
    """A bank in the order of its centers."""

    rows: np.ndarray
    scale: float
    bias: float

    def __post_init__(self) -> None:
        self.m, self.v = np.zeros_like(self.rows), np.zeros_like(self.rows)
        self.count = np.zeros(len(self.rows), int)
        self.logit_m, self.logit_v, self.logit_count = np.zeros(2), np.zeros(2), 0


@dataclass
class Gradients:
    loss: float
    embeddings: np.ndarray
    rows: np.ndarray
    logit: np.ndarray


def cosines(e: np.ndarray, rows: np.ndarray) -> np.ndarray:
    """Of every embedding with every center."""
    ne, nc = (np.linalg.norm(x, axis=1, keepdims=True) for x in (e, rows))
    return (e / ne) @ (rows / nc).T


def sigmoid(
    bank: DenseBank,
    e: np.ndarray,
    labels: np.ndarray,
    sampled: np.ndarray,
    raw: bool = False,
    negative_weight: float = 1.0,
    others: np.ndarray | None = None,
) -> Gradients:
    """Over the centers `sampled`: labels are positives, all else negatives (of `others` alone, where that is given)."""
    n = len(e)
    known = np.zeros((n, len(bank.rows)), bool)
    for u in range(n):
        known[u, [k for k in labels[u] if k >= 0]] = True
    y = np.where(known, 1.0, -1.0)
    weight = np.where(known, 1.0, negative_weight)
    inside = np.zeros_like(known)
    inside[:, sampled] = True
    if others is not None:
        inside &= known | np.isin(np.arange(len(bank.rows)), others)
    ne, nc = (np.linalg.norm(x, axis=1, keepdims=True) for x in (e, bank.rows))
    if raw:
        ne, nc = np.ones_like(ne), np.ones_like(nc)
    cosine = (e / ne) @ (bank.rows / nc).T
    scale, bias = (1.0, 0.0) if raw else (bank.scale, bank.bias)
    z = scale * cosine + bias
    loss = (inside * weight * np.logaddexp(0, -y * z)).sum() / n
    slope = inside * weight * -y / (1 + np.exp(y * z)) / n
    by_cosine = scale * slope
    grad_e, grad_rows = by_cosine @ (bank.rows / nc), by_cosine.T @ (e / ne)
    if not raw:
        grad_e -= (by_cosine * cosine).sum(1, keepdims=True) * e / ne
        grad_rows -= (by_cosine * cosine).sum(0)[:, None] * bank.rows / nc
    logit = np.zeros(2) if raw else np.array([(slope * cosine).sum(), slope.sum()])
    return Gradients(loss, grad_e / ne, grad_rows / nc, logit)


def margin_softmax(
    bank: DenseBank,
    e: np.ndarray,
    labels: np.ndarray,
    sampled: np.ndarray,
    scale: float = 64.0,
    margin: float = 0.3,
    limit: float = 0.75,
) -> Gradients:
    """One softmax for each (embedding, label), each written out by itself."""
    ne, nc = (np.linalg.norm(x, axis=1, keepdims=True) for x in (e, bank.rows))
    ue, uc = e / ne, bank.rows / nc
    pairs = [(u, k) for u in range(len(e)) for k in sorted(set(labels[u].tolist()) - {-1})]
    loss, grad_ue, grad_uc = 0.0, np.zeros_like(e), np.zeros_like(bank.rows)
    for u, label in pairs:
        cosine = uc[sampled] @ ue[u]
        at = int(np.flatnonzero(sampled == label)[0])
        logits = np.where(cosine > limit, 0.0, cosine)
        logits[at] = cosine[at] - margin
        passes = cosine <= limit
        passes[at] = True
        logits = logits * scale
        top = logits.max()
        log_sum = top + np.log(np.exp(logits - top).sum())
        loss += (log_sum - logits[at]) / len(pairs)
        slope = np.exp(logits - log_sum)
        slope[at] -= 1
        slope = slope * scale * passes / len(pairs)
        grad_ue[u] += slope @ uc[sampled]
        np.add.at(grad_uc, sampled, slope[:, None] * ue[u])
    grad_e = (grad_ue - (grad_ue * ue).sum(1, keepdims=True) * ue) / ne
    return Gradients(loss, grad_e, (grad_uc - (grad_uc * uc).sum(1, keepdims=True) * uc) / nc, np.zeros(2))


def mean_logits(
    bank: DenseBank, e: np.ndarray, labels: np.ndarray, sampled: np.ndarray, loss: str, others: np.ndarray | None = None
) -> tuple[float, float]:
    """Of the pairs with a label, and of those with all other centers `sampled` (those among `others`, where it is given)."""
    cosine = cosines(e, bank.rows)
    logits = {"sigmoid": bank.scale * cosine + bank.bias, "raw": e @ bank.rows.T, "margin_softmax": 64 * cosine, "own": cosine}
    known, far = np.zeros_like(cosine, bool), np.zeros_like(cosine, bool)
    for u in range(len(e)):
        known[u, [k for k in labels[u] if k >= 0]] = True
    far[:, sampled if others is None else others] = True
    return float(logits[loss][known].mean()), float(logits[loss][far & ~known].mean())


def adamw(
    bank: DenseBank,
    grads: Gradients,
    sampled: np.ndarray,
    lr: float,
    weight_decay: float,
    clip_norm: float,
    b1: float = 0.9,
    b2: float = 0.999,
    eps: float = 1e-8,
) -> None:
    """Changes the sampled rows, scale and bias."""
    norm = np.sqrt((grads.rows**2).sum() + (grads.logit**2).sum())
    factor = min(1.0, clip_norm / norm)
    bank.count[sampled] += 1
    count = bank.count[sampled][:, None]
    g = grads.rows[sampled] * factor
    bank.m[sampled] = b1 * bank.m[sampled] + (1 - b1) * g
    bank.v[sampled] = b2 * bank.v[sampled] + (1 - b2) * g**2
    step = bank.m[sampled] / (1 - b1**count) / (np.sqrt(bank.v[sampled] / (1 - b2**count)) + eps)
    bank.rows[sampled] -= lr * (step + weight_decay * bank.rows[sampled])
    bank.logit_count += 1
    g = grads.logit * factor
    bank.logit_m = b1 * bank.logit_m + (1 - b1) * g
    bank.logit_v = b2 * bank.logit_v + (1 - b2) * g**2
    step = bank.logit_m / (1 - b1**bank.logit_count) / (np.sqrt(bank.logit_v / (1 - b2**bank.logit_count)) + eps)
    bank.scale, bank.bias = bank.scale - lr * step[0], bank.bias - lr * step[1]
