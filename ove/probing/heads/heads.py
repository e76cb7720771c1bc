"""What can be trained on a frozen encoder, by name: settings `probe.probe` and `evaluation.probe`."""

import functools
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from ove.config import ProbeConfig
from ove.features.frozen import Frozen
from ove.probing.dataset import ProbeDataset
from ove.probing.features import Embeddings, EncodedOnDemand, OnProgress, TokenSource, embed, extract, stored
from ove.probing.heads.attentive import fit_seeds
from ove.probing.heads.knn import knn
from ove.probing.heads.linear import fit_linear
from ove.probing.scores import Predictions, Scores

Result = tuple[Scores, Predictions]


def _attentive(
    encoder: Frozen, train: ProbeDataset, val: ProbeDataset, n_classes: int, config: ProbeConfig, progress: OnProgress
) -> list[Result]:
    augmented = replace(train, jitter=config.jitter, flip=config.flip)
    of_train, of_val = (_tokens(encoder, dataset, config, progress) for dataset in (augmented, val))
    return fit_seeds(encoder, config, n_classes, of_train, of_val, config.seeds)


def _tokens(encoder: Frozen, dataset: ProbeDataset, config: ProbeConfig, progress: OnProgress) -> TokenSource:
    if config.features == "disk":
        return stored(encoder, dataset, Path(config.cache), progress)
    return EncodedOnDemand(encoder, dataset) if config.features == "encode" else extract(encoder, dataset, progress)


def _of_embeddings(
    score: Callable[[int, Embeddings, Embeddings, ProbeConfig], Result],
    encoder: Frozen,
    train: ProbeDataset,
    val: ProbeDataset,
    n_classes: int,
    config: ProbeConfig,
    progress: OnProgress,
) -> list[Result]:
    """Scores embeddings instead of tokens; there is nothing random, so the result is the same for all seeds."""
    return [score(n_classes, embed(encoder, train, progress), embed(encoder, val, progress), config)]


HEADS: Mapping[str, Callable[[Frozen, ProbeDataset, ProbeDataset, int, ProbeConfig, OnProgress], Sequence[Result]]] = {
    "attentive": _attentive,
    "linear": functools.partial(_of_embeddings, lambda n, train, val, config: fit_linear(n, train, val, config.l2)),
    "knn": functools.partial(_of_embeddings, lambda n, train, val, config: knn(n, train, val, config.neighbours)),
}
"""Encoder, training and validation samples, number of classes, settings, progress → scores and predictions, one per seed."""
