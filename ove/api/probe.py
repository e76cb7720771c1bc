"""`ove.probe`: what a frozen encoder is worth on labelled files, shards or features."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ove.api.data import PAPER_SHARE
from ove.api.encoded_files import encode_files, is_feature_file, labelled_features, split_files
from ove.api.model import Model, load
from ove.api.samples import PathLike, Samples, labelled_files, reading_of
from ove.config import ProbeConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput, BadShard, ConfigError
from ove.features.frozen import frozen
from ove.named import named
from ove.paths import uri_of
from ove.probing.dataset import ProbeDataset
from ove.probing.features import Embeddings, Features
from ove.probing.heads.attentive import fit
from ove.probing.heads.heads import HEADS
from ove.probing.heads.knn import knn
from ove.probing.heads.linear import fit_linear
from ove.probing.scores import Predictions, Scores
from ove.records import MODES
from ove.shards.joined import Shards, open_shards
from ove.shards.manifest import MANIFEST
from ove.stream.modes import TokenView

_log = logging.getLogger("ove")
_SHOWN = 5


@dataclass(frozen=True)
class ProbeResult:
    """Scores of a probe on the validation samples."""

    scores: Scores
    classes: tuple[str, ...]
    """Class names of the training samples, by class index."""
    names: tuple[str, ...]
    """Of the validation samples."""
    labels: np.ndarray
    """Their class indices; -1 for classes without a training sample, which count as wrong."""
    predictions: Predictions
    n_train: int
    set_aside: tuple[str, ...] = ()
    """Files that could not be used, each with the reason."""

    @property
    def top1(self) -> float:
        """Share of validation samples whose class is predicted, 0 to 1."""
        return self.scores.last.top1

    def __str__(self) -> str:
        low, high = self.scores.last.interval()
        bad = f"; {len(self.set_aside)} files set aside" if self.set_aside else ""
        return (
            f"top-1 {self.top1:.1%} (95 % interval {low:.1%} to {high:.1%}) on {len(self.names)} samples of "
            f"{len(self.classes)} classes, {self.n_train} to train on{bad}"
        )


def probe(
    model: Model | PathLike | None,
    train: Samples | Sequence[PathLike],
    val: Samples | Sequence[PathLike] | None = None,
    *,
    head: Literal["linear", "knn", "attentive"] = "linear",
    mode: Literal["codec", "frames", "image"] | None = None,
    budget: int | None = None,
    labels: PathLike | Mapping[str, str] | None = None,
    val_share: float = 0.2,
    path_column: str = "",
    label_column: str = "",
    label_folder: int = 0,
    root: PathLike = "",
    threads: int = 2,
    **settings: Any,
) -> ProbeResult:
    """Trains a probe on a frozen encoder and scores it.

    Args:
        model: from `ove.load`, or what that takes; None if `train` is a feature file.
        train: labelled samples to train on: a list (``.csv`` with the columns ``path`` and ``label``), a folder whose
            subfolders are class names, an iterable of ``(path, label)`` pairs, a folder of shards or several
            (``["shards/a", "shards/b"]``), or a feature file (``.npz`` of ``ove encode``), which is not encoded again.
        val: samples to score on, of the same kind; without it, ``val_share`` of each class of ``train`` (not of shards).
        head: ``"linear"`` (logistic regression on embeddings), ``"knn"`` (nothing is trained), or ``"attentive"`` (a learned
            query over all tokens).
        mode: how samples are looked at; by default as the encoder was trained.
        budget: patches of a clip; by default as in training, of shards one in 8.
        labels: of a feature file: a list with the columns ``path`` and ``label``, or a mapping from path to class name; not
            needed with ``label_folder``.
        val_share: share of each class to score on where ``val`` is not given.
        path_column, label_column, label_folder, root: how samples or ``labels`` are listed, as in :func:`ove.write_shards`.
        threads: read ahead by so many threads.
        **settings: keys of the probe section (:class:`ove.config.ProbeConfig`), such as ``epochs=20``, ``lr=1e-3``, ``l2``.

    Returns:
        Scores, predictions and class names; print it for a sentence.

    Raises:
        BadInput: for samples without labels, or of a single class.
        BadClip, BadShard: if nothing can be used.
        ConfigError: for unknown settings.

    Examples:
        >>> result = ove.probe(model, "videos", val_share=0.5, head="knn", neighbours=1)
        >>> 0 <= result.top1 <= 1
        True
    """
    config = from_mapping(ProbeConfig, {"probe": head, "untrained": False} | settings, "probe.")
    reading = reading_of(path_column, label_column, label_folder, root)
    model = load(model) if isinstance(model, (str, os.PathLike)) else model
    given = [samples for samples in (train, val) if samples is not None]
    shards = [found for found in map(_shards, given) if found]
    if shards:
        if len(shards) < 2:
            raise ConfigError("a folder of shards is no counterpart of files; give two folders of shards, train and val.")
        return _of_shards(_needed(model), shards, mode, budget, config)
    if head not in _OF_FEATURES:
        raise ConfigError(f"head = {head!r} works on shards only; write shards of the samples (`ove.write_shards`).")
    if any(is_feature_file(samples) for samples in given):
        if head == "attentive":
            raise ConfigError("head = 'attentive' needs all tokens; give the files themselves, or use linear or knn.")
        pairs_of = [labelled_features(samples, labels, reading) for samples in given]
    else:
        encode = partial(
            encode_files, _needed(model), mode=mode, budget=budget, all_tokens=head == "attentive", threads=threads
        )
        pairs_of = [encode(labelled_files(samples, **reading)) for samples in given]
    parts = pairs_of if len(pairs_of) == 2 else split_files(pairs_of[0], val_share, config.seeds[0])
    classes = tuple(sorted(set(parts[0].labels)))
    _check_classes(classes, Counter(parts[0].labels))
    of_train, of_val = (part.features(classes) for part in parts)
    scores, predictions = _fit(model, config, len(classes), of_train, of_val)
    aside = tuple(dict.fromkeys(reason for part in pairs_of for reason in part.set_aside))
    return ProbeResult(scores, classes, parts[1].names, of_val.labels, predictions, len(parts[0].names), aside)


_OF_FEATURES = ("linear", "knn", "attentive")


def _needed(model: Model | None) -> Model:
    if model is None:
        raise ConfigError("model = None: files and shards have to be encoded; give a model from ove.load, or a feature file.")
    return model


def _shards(samples: Samples | Sequence[PathLike]) -> Shards | None:
    """Opens a folder of shards, or several; None for other samples."""
    if isinstance(samples, (str, os.PathLike)):
        folder = _shard_folder(samples)
        return None if folder is None else open_shards(folder)
    if not isinstance(samples, (list, tuple)) or not all(isinstance(one, (str, os.PathLike)) for one in samples):
        return None
    folders = [_shard_folder(one) for one in samples]
    if not any(folders):
        return None
    for one, folder in zip(samples, folders, strict=True):
        if folder is None:
            raise ConfigError(f"{os.fspath(one)}: is no folder of shards, unlike others of the list; give nothing but these.")
    return open_shards([folder for folder in folders if folder is not None])


def _shard_folder(given: PathLike) -> str | None:
    """Returns the folder or URI of shards, None for another path."""
    path = Path(given).expanduser()
    if uri_of(os.fspath(given)) is not None:
        return os.fspath(given)
    return str(path) if (path / MANIFEST).is_file() else None


def _check_classes(classes: Sequence[str], counts: Mapping[str, int]) -> None:
    if len(classes) < 2:
        said = ", ".join(f"{name} ({counts.get(name, 0)})" for name in classes) or "none"
        raise BadInput(f"a probe needs training samples of at least two classes, found {said}.")


def _of_shards(model: Model, sets: Sequence[Shards], mode: str | None, budget: int | None, config: ProbeConfig) -> ProbeResult:
    train, val = sets
    classes = tuple(train.classes)
    _check_classes(classes, {})
    mode = mode or ("codec" if train.kind == "video" else "image")
    if train.kind != val.kind:
        raise BadShard(f"{train.folder} holds {train.kind}s and {val.folder} {val.kind}s; give two of a kind.")
    if train.kind == "video":
        view = TokenView(budget or int(np.prod(train.grid_tyx)) // PAPER_SHARE, config.selection)
        view.check(train.grid_tyx, {MODES.index(mode)})
    else:
        view = TokenView(budget or 1, size_px=config.image_px, patch_px=model.config.patch_px)
    encoder = frozen(model.config, model.weights.params, model.name)
    of_train, of_val = (ProbeDataset(shards, classes, mode, view) for shards in sets)
    run = named(HEADS, config.probe, "probe.probe")
    scores, predictions = run(encoder, of_train, of_val, len(classes), config, lambda done, total: None)[0]
    names = tuple(key for key, _ in val.names)
    return ProbeResult(scores, classes, names, of_val.labels(), predictions, len(train))


def _fit(
    model: Model | None, config: ProbeConfig, n_classes: int, train: Embeddings | Features, val: Embeddings | Features
) -> tuple[Scores, Predictions]:
    if isinstance(train, Features) and isinstance(val, Features):
        model = _needed(model)
        encoder = frozen(model.config, model.weights.params, model.name)
        return fit(encoder, config, n_classes, train, val, config.seeds[0])
    assert isinstance(train, Embeddings) and isinstance(val, Embeddings)
    if config.probe == "knn":
        return knn(n_classes, train, val, config.neighbours)
    return fit_linear(n_classes, train, val, config.l2)
