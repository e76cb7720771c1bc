"""The k-NN probe: the nearest training embeddings vote for the class."""

import numpy as np
from jaxtyping import Float32, Int

from ove.errors import BadInput
from ove.labels.clusters.assign import nearest_blocks
from ove.probing.features import Embeddings
from ove.probing.scores import Accuracies, Predictions, Scores

TEMPERATURE = 0.07
"""The vote of a neighbour with cosine c has the weight exp(c / TEMPERATURE)."""
_AT_ONCE = 256
_TRAINING_SAMPLES = 2048


def knn(n_classes: int, train: Embeddings, val: Embeddings, neighbours: int) -> tuple[Scores, Predictions]:
    """Classifies by weighted votes of the nearest `neighbours` in `train` (all, if there are fewer).

    Returns the scores and the predictions for `val`; probabilities are shares of the votes. The training score is that of at
    most 2,048 samples, evenly spaced, so that its cost is linear in the size of the set; none of them votes for itself. Ties
    between neighbours and between classes go to the lower index. BadInput for embeddings that are not finite.
    """
    for vectors in (train.vectors, val.vectors):
        if not np.isfinite(vectors).all():
            raise BadInput("the embeddings are not finite; check the weights of the encoder.")
    of_val = _scored(n_classes, train, val, neighbours)
    last = of_val.accuracy()
    some = np.unique(np.linspace(0, len(train.labels) - 1, _TRAINING_SAMPLES).astype(np.int64))
    of_train = _scored(n_classes, train, Embeddings(train.vectors[some], train.labels[some]), neighbours, some)
    return Scores(last, last, 0, of_train.accuracy()), of_val.predictions()


def retrieval_at_1(queries: Float32[np.ndarray, "S E"], keys: Float32[np.ndarray, "S E"]) -> float:
    """Returns the share of queries, 0…1, whose nearest key by cosine is that of the same row (ties: the lower index).

    All vectors must be L2-normalised.
    """
    right = 0
    for start in range(0, len(queries), _AT_ONCE):
        nearest = (queries[start : start + _AT_ONCE] @ keys.T).argmax(axis=1)
        right += int((nearest == np.arange(start, start + len(nearest))).sum())
    return right / len(queries)


def _scored(
    n_classes: int, train: Embeddings, asked: Embeddings, neighbours: int, own: Int[np.ndarray, "n"] | None = None
) -> Accuracies:
    """Scores the votes for `asked`, whose samples are the training samples `own`, if that is given."""
    count = min(neighbours, len(train.labels) - (own is not None))
    accuracies = Accuracies(n_classes)
    for start, found in nearest_blocks(asked.vectors, train.vectors, count + (own is not None)):
        rows = slice(start, start + len(found))
        voters = np.where(found < 0, np.arange(found.shape[1]), found)  # a vector of zeros is as near to all
        if own is not None:  # others first; of copies of a sample its own row may be lacking
            is_own = voters == own[rows, None]
            voters = np.take_along_axis(voters, np.argsort(is_own, axis=1, kind="stable"), axis=1)[:, :count]
        cosines = np.einsum("nkE,nE->nk", train.vectors[voters], asked.vectors[rows])
        votes = np.zeros((len(voters), n_classes))
        np.add.at(votes, (np.arange(len(voters))[:, None], train.labels[voters]), np.exp((cosines - 1) / TEMPERATURE))
        with np.errstate(divide="ignore"):  # no vote, no chance
            accuracies.add(np.log(votes), asked.labels[rows])
    return accuracies
