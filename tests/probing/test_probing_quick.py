"""Linear and nearest-neighbour probes against scikit-learn and by hand."""

import numpy as np
import pytest
from sklearn.linear_model import LogisticRegression
from sklearn.preprocessing import StandardScaler

from ove.errors import BadInput
from ove.probing.features import Embeddings
from ove.probing.heads import linear
from ove.probing.heads.knn import knn, retrieval_at_1
from ove.probing.heads.linear import fit_linear

CLASSES, TEMPERATURE = 4, 0.07


def embeddings(count: int, seed: int, strength: float = 1.0) -> Embeddings:
    rng = np.random.default_rng(seed)
    labels = rng.integers(0, CLASSES, count).astype(np.int32)
    vectors = rng.normal(size=(count, 12)) + strength * np.random.default_rng(9).normal(size=(CLASSES, 12))[labels]
    return Embeddings((vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), labels)


@pytest.mark.parametrize("l2", [0.1, 1.0, 10.0])
def test_linear_probe_is_scikit_learns_logistic_regression(l2: float) -> None:
    train, val = embeddings(200, 1), embeddings(500, 2)
    of_train, of_val = (part.vectors.astype(np.float64) for part in (train, val))  # in float32 theirs is off by 1e-3
    scale = StandardScaler().fit(of_train)
    theirs = LogisticRegression(C=1 / l2, max_iter=2000, tol=1e-8).fit(scale.transform(of_train), train.labels)
    found, predictions = fit_linear(CLASSES, train, val, l2)
    assert found.last.top1 == pytest.approx(theirs.score(scale.transform(of_val), val.labels), abs=0.0021)
    assert found.train.top1 == pytest.approx(theirs.score(scale.transform(of_train), train.labels), abs=0.0051)
    assert found.last.samples == 500 and 0.3 < found.last.top1 < 1
    theirs_of_best = np.sort(theirs.predict_proba(scale.transform(of_val)), axis=1)[:, ::-1]
    np.testing.assert_allclose(predictions.probabilities, theirs_of_best, atol=1e-3)


@pytest.mark.parametrize("n_classes", [2, 3])
def test_linear_probe_takes_numbers_that_never_change_and_does_not_regularise_the_bias(n_classes: int) -> None:
    train, val = embeddings(60, 1), embeddings(50, 2)
    for part in (train, val):
        part.vectors[:, 3] = 0.25
    labels = np.where(np.arange(60) < 50, 0, train.labels % n_classes).astype(np.int32)  # nearly all of one class
    scale, l2 = StandardScaler().fit(train.vectors), 2.0
    # Of two classes scikit-learn fits the difference of the weights, whose square is twice that of both.
    theirs = LogisticRegression(C=(2 if n_classes == 2 else 1) / l2, max_iter=2000, tol=1e-8)
    theirs.fit(scale.transform(train.vectors), labels)
    asked = Embeddings(val.vectors, val.labels % n_classes)
    predictions = fit_linear(n_classes, Embeddings(train.vectors, labels), asked, l2)[1]
    mine = np.take_along_axis(predictions.probabilities, np.argsort(predictions.classes, axis=1), axis=1)
    np.testing.assert_allclose(mine, theirs.predict_proba(scale.transform(val.vectors)), atol=1e-3)


def test_a_linear_fit_ends_after_so_many_steps(monkeypatch: pytest.MonkeyPatch) -> None:
    def after(steps: int) -> np.ndarray:
        monkeypatch.setattr(linear, "_STEPS", steps)
        return fit_linear(CLASSES, embeddings(60, 1), embeddings(50, 2), 1.0)[1].probabilities

    assert (after(0) == 1 / CLASSES).all()  # as it begins, without weights
    one, two, all_ = (np.abs(after(steps) - 1 / CLASSES).max(axis=1) for steps in (1, 2, 300))
    assert (one > 0.001).all() and one.mean() < 0.9 * all_.mean()
    assert np.abs(two - one).max() > 0.001


def test_nearest_neighbours_vote() -> None:
    angles = np.array([0.0, 0.1, 1.5, 1.6, 1.7])
    train = Embeddings(np.stack([np.cos(angles), np.sin(angles)], 1).astype(np.float32), np.array([0, 0, 1, 1, 1], np.int32))
    asked = Embeddings(np.array([[1, 0.05], [0.05, 1]], np.float32), np.array([0, 0], np.int32))
    one, predictions = knn(2, train, asked, 1)
    assert one.last.top1 == 0.5 and one.train.top1 == 1
    assert predictions.classes.tolist() == [[0, 1], [1, 0]] and predictions.probabilities.tolist() == [[1, 0], [1, 0]]
    every, predictions = knn(2, train, asked, 99)  # all vote, the near ones with more weight
    assert every.last.top1 == 0.5
    weights = np.exp((asked.vectors[0] @ train.vectors.T - 1) / TEMPERATURE)
    assert predictions.probabilities[0, 0] == pytest.approx(weights[:2].sum() / weights.sum())


def test_a_training_sample_does_not_vote_for_itself() -> None:
    train = embeddings(300, 1, strength=0.0)
    assert knn(CLASSES, train, embeddings(10, 2), 1)[0].train.top1 < 0.5


def test_retrieval() -> None:
    vectors = np.eye(5, dtype=np.float32)
    assert retrieval_at_1(vectors, vectors) == 1
    assert retrieval_at_1(vectors, vectors[[1, 0, 2, 3, 4]]) == 0.6
    vectors = np.eye(600, dtype=np.float32)  # more than are compared at once
    assert retrieval_at_1(vectors, vectors) == 1
    assert retrieval_at_1(vectors, np.roll(vectors, 1, axis=0)) == 0
    assert retrieval_at_1(vectors[[0, 1, 1]], vectors[[0, 1, 1]]) == 2 / 3  # of equal keys the first is taken


def by_hand(train: Embeddings, asked: Embeddings, neighbours: int, itself: bool) -> np.ndarray:
    """Votes of every sample, counted one by one in float64."""
    votes = np.zeros((len(asked.labels), CLASSES))
    for n, vector in enumerate(asked.vectors.astype(np.float64)):
        others = [m for m in range(len(train.labels)) if not (itself and m == n)]
        cosines = {m: float(vector @ train.vectors[m].astype(np.float64)) for m in others}
        for m in sorted(others, key=lambda m: (-cosines[m], m))[:neighbours]:
            votes[n, train.labels[m]] += np.exp(cosines[m] / 0.07)
    return votes


@pytest.mark.parametrize("neighbours", [1, 5, 20, 999])
def test_nearest_neighbours_are_those_of_counting_one_by_one(neighbours: int) -> None:
    train, val = embeddings(270, 1, 0.7), embeddings(300, 2, 0.7)  # more than are compared at once
    found, predictions = knn(CLASSES, train, val, neighbours)
    votes = by_hand(train, val, neighbours, itself=False)
    shares = votes / votes.sum(axis=1, keepdims=True)
    mine = np.take_along_axis(predictions.probabilities, np.argsort(predictions.classes, axis=1), axis=1)
    np.testing.assert_allclose(mine, shares, atol=1e-4)
    assert found.last.top1 == found.best.top1 == (shares.argmax(axis=1) == val.labels).mean()
    of_train = by_hand(train, train, neighbours, itself=True).argmax(axis=1)
    assert found.train.top1 == (of_train == train.labels).mean() and found.best_epoch == 0
    assert (found.last.samples, found.train.samples) == (300, 270)


def test_ties_go_to_the_first_neighbour_and_to_the_lower_class() -> None:
    one = np.array([[1, 0]] * 4, np.float32)
    same = Embeddings(one, np.array([2, 0, 1, 0], np.int32))
    asked = Embeddings(one[:1], np.array([2], np.int32))
    assert knn(CLASSES, same, asked, 1)[1].classes[0, 0] == 2  # all are equally near
    assert knn(CLASSES, same, asked, 3)[1].classes[0].tolist() == [0, 1, 2, 3]  # a vote each
    assert knn(CLASSES, same, asked, 4)[1].classes[0].tolist() == [0, 1, 2, 3]
    assert knn(CLASSES, same, asked, 4)[1].probabilities[0].tolist() == [0.5, 0.25, 0.25, 0]


def test_embeddings_that_are_not_finite_are_refused() -> None:
    good = embeddings(20, 1)
    for place in range(2):
        sets = [good, good]
        sets[place] = Embeddings(np.where(np.arange(12) == 5, np.nan, good.vectors).astype(np.float32), good.labels)
        with pytest.raises(BadInput, match="not finite"):
            knn(CLASSES, *sets, 3)
