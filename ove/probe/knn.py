"""The quickest probe: the nearest training embeddings vote for the class. Nothing is trained."""

import numpy as np

from ove.errors import BadInput
from ove.probe.features import Embeddings

TEMPERATURE = 0.07
"""A neighbour of cosine c votes with the weight exp(c / TEMPERATURE)."""
_AT_ONCE = 256


def knn_top1(train: Embeddings, val: Embeddings, neighbours: int) -> float:
    """Share of `val`, 0…1, whose class gets the most weight among its nearest `neighbours` in `train`.

    All of `train`, if there are fewer. Neighbours of equal distance count in their order, classes of equal weight in theirs.
    BadInput for embeddings that are not finite: of a broken encoder nothing can be said.
    """
    for vectors in (train.vectors, val.vectors):
        if not np.isfinite(vectors).all():
            raise BadInput("the embeddings are not finite; the encoder that made them is broken.")
    count = min(neighbours, len(train.labels))
    n_classes = int(max(train.labels.max(), val.labels.max())) + 1
    right = 0
    for start in range(0, len(val.labels), _AT_ONCE):
        cosines = val.vectors[start : start + _AT_ONCE] @ train.vectors.T
        nearest = np.argsort(-cosines, axis=1, kind="stable")[:, :count]
        weights = np.exp((np.take_along_axis(cosines, nearest, axis=1) - 1) / TEMPERATURE)
        votes = np.zeros((len(cosines), n_classes))
        np.add.at(votes, (np.arange(len(cosines))[:, None], train.labels[nearest]), weights)
        right += int((votes.argmax(axis=1) == val.labels[start : start + _AT_ONCE]).sum())
    return right / len(val.labels)
