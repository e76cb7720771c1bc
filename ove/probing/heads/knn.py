"""The k-NN probe: the nearest training embeddings vote for the class."""

import numpy as np
from jaxtyping import Float32

from ove.errors import BadInput
from ove.probing.features import Embeddings
from ove.probing.scores import Accuracies, Predictions, Scores

TEMPERATURE = 0.07
"""The vote of a neighbour with cosine c has the weight exp(c / TEMPERATURE)."""
_AT_ONCE = 256


def knn(n_classes: int, train: Embeddings, val: Embeddings, neighbours: int) -> tuple[Scores, Predictions]:
    """Classifies by weighted votes of the nearest `neighbours` in `train` (all, if there are fewer).

    Returns the scores and the predictions for `val`; probabilities are shares of the votes. A sample of `train` does not vote
    for itself. Ties between neighbours and between classes go to the lower index. BadInput for embeddings that are not finite.
    """
    for vectors in (train.vectors, val.vectors):
        if not np.isfinite(vectors).all():
            raise BadInput("the embeddings are not finite; check the weights of the encoder.")
    of_val = _scored(n_classes, train, val, neighbours, itself=False)
    last = of_val.accuracy()
    return Scores(last, last, 0, _scored(n_classes, train, train, neighbours, itself=True).accuracy()), of_val.predictions()


def retrieval_at_1(queries: Float32[np.ndarray, "S E"], keys: Float32[np.ndarray, "S E"]) -> float:
    """Returns the share of queries, 0…1, whose nearest key by cosine is that of the same row (ties: the lower index).

    All vectors must be L2-normalised.
    """
    right = 0
    for start in range(0, len(queries), _AT_ONCE):
        nearest = (queries[start : start + _AT_ONCE] @ keys.T).argmax(axis=1)
        right += int((nearest == np.arange(start, start + len(nearest))).sum())
    return right / len(queries)


def _scored(n_classes: int, train: Embeddings, asked: Embeddings, neighbours: int, itself: bool) -> Accuracies:
    count = min(neighbours, len(train.labels) - itself)
    accuracies = Accuracies(n_classes)
    for start in range(0, len(asked.labels), _AT_ONCE):
        cosines = asked.vectors[start : start + _AT_ONCE] @ train.vectors.T
        if itself:
            rows = np.arange(len(cosines))
            cosines[rows, start + rows] = -np.inf
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        weights = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / TEMPERATURE)
        votes = np.zeros((len(cosines), n_classes))
        np.add.at(votes, (np.arange(len(cosines))[:, None], train.labels[nearest]), weights)
        with np.errstate(divide="ignore"):  # no vote, no chance
            accuracies.add(np.log(votes), asked.labels[start : start + _AT_ONCE])
    return accuracies
