"""Linear and nearest-neighbour probes against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ove.probe.features import Embeddings
from ove.probe.heads.knn import TEMPERATURE, knn, retrieval_at_1
from ove.probe.heads.linear import fit_linear

CLASSES = 4


def embeddings(count: int, seed: int, strength: float = 1.0) -> Embeddings:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    vectors = rng.normal(size=(count, 12)) + strength * np.random.default_rng(9).normal(size=(CLASSES, 12))[labels]
    return Embeddings((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels)


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_linear_probe_is_scikit_learns_logistic_regression(l2: float) -> None:
    train, val = embeddings(200, 1), embeddings(500, 2)
    scale = StandardScaler().fit(train.vectors)
    theirs = LogisticRegression(C=1 / l2, max_iter=2000).fit(scale.transform(train.vectors), train.labels)
    found, said = fit_linear(CLASSES, train, val, l2)
    assert found.last.top1 == pytest.approx(theirs.score(scale.transform(val.vectors), val.labels), abs=0.0021)
    assert found.train.top1 == pytest.approx(theirs.score(scale.transform(train.vectors), train.labels), abs=0.0051)
    assert found.last.samples == 500 and 0.3 < found.last.top1 < 1
    theirs_of_best = np.sort(theirs.predict_proba(scale.transform(val.vectors)), axis=1)[:, ::-1]
    np.testing.assert_allclose(said.probabilities, theirs_of_best, atol=1e-2)


def test_nearest_neighbours_vote() -> None:
    angles = np.array([0.0, 0.1, 1.5, 1.6, 1.7])
    train = Embeddings(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), np.array([0, 0, 1, 1, 1], np.int32))
    asked = Embeddings(np.array([[1, 0.05], [0.05, 1]], np.float32), np.array([0, 0], np.int32))
    one, said = knn(2, train, asked, 1)
    assert one.last.top1 == 0.5 and one.train.top1 == 1
    assert said.classes.tolist() == [[0, 1], [1, 0]] and said.probabilities.tolist() == [[1, 0], [1, 0]]
    every, said = knn(2, train, asked, 99)  # all vote, the near ones with more weight
    assert every.last.top1 == 0.5
    weights = np.exp((asked.vectors[0] @ train.vectors.T - 1) / TEMPERATURE)
    assert said.probabilities[0, 0] == pytest.approx(weights[:2].sum() / weights.sum())


def test_a_training_sample_does_not_vote_for_itself() -> None:
    train = embeddings(300, 1, strength=0.0)
    assert knn(CLASSES, train, embeddings(10, 2), 1)[0].train.top1 < 0.5


def test_retrieval() -> None:
    vectors = np.eye(5, dtype=np.float32)
    assert retrieval_at_1(vectors, vectors) == 1
    assert retrieval_at_1(vectors, vectors[[1, 0, 2, 3, 4]]) == 0.6
