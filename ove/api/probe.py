"""`ove.probe`: what a frozen encoder is worth on labelled files, shards or features."""

import logging
import os
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import partial
from logging import INFO, WARNING
from typing import Any, Literal

import numpy as np

from ove.api.apart import check_apart, check_sets_apart
from ove.api.arguments import arguments, expanded, refuse
from ove.api.data import PAPER_SHARE
from ove.api.encoded_files import EncodedFiles, encode_files, is_feature_file, labelled_features, split_files
from ove.api.model import Model, load
from ove.api.probe_settings import OF_HEAD, OF_SELECTION, OF_SHARDS, probe_settings
from ove.api.samples import PathLike, Samples, labelled_files, materialised, reading_of
from ove.api.split import check_share
from ove.config import ProbeConfig
from ove.config.section import Count, Natural
from ove.errors import BadInput, ConfigError
from ove.features.frozen import frozen
from ove.paths import uri_of
from ove.probing.compare import compare_on
from ove.probing.dataset import UNKNOWN
from ove.probing.features import Embeddings, Features
from ove.probing.heads.attentive import fit
from ove.probing.heads.knn import knn
from ove.probing.heads.linear import fit_linear
from ove.probing.scores import Predictions, Scores
from ove.shards.joined import Shards, open_shards
from ove.shards.manifest import MANIFEST

_log = logging.getLogger("ove")


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
    n_shared: int = 0
    """Validation samples that were trained on, too, which makes the score too good."""

    @property
    def top1(self) -> float:
        """Share of validation samples whose class is predicted, 0 to 1."""
        return self.scores.last.top1

    def __str__(self) -> str:
        low, high = self.scores.last.interval()
        bad = f"; {len(self.set_aside)} files set aside" if self.set_aside else ""
        shared = f"; {self.n_shared} were trained on" if self.n_shared else ""
        return (
            f"top-1 {self.top1:.1%} (95 % interval {low:.1%} to {high:.1%}) on {len(self.names)} samples of "
            f"{len(self.classes)} classes, {self.n_train} to train on{bad}{shared}"
        )


@arguments(probe__probe="head", budget_tokens="budget")
def probe(
    model: Model | PathLike | None,
    train: Samples | Sequence[PathLike],
    val: Samples | Sequence[PathLike] | None = None,
    *,
    head: Literal["linear", "knn", "attentive"] | str = "linear",
    mode: Literal["codec", "frames", "tiling", "image"] | None = None,
    budget: Count | None = None,
    labels: PathLike | Mapping[str, str] | None = None,
    val_share: float | None = None,
    path_column: str = "",
    label_column: str = "",
    label_folder: Natural = 0,
    root: PathLike = "",
    threads: Count | None = None,
    **settings: Any,
) -> ProbeResult:
    """Trains a probe on a frozen encoder and scores it.

    Args:
        model: from `ove.load`, or what that takes; None if `train` is a feature file.
        train: labelled samples to train on: a list (``.csv`` with the columns ``path`` and ``label``), a folder whose
            subfolders are class names, an iterable of ``(path, label)`` pairs, a folder of shards or several
            (``["shards/a", "shards/b"]``), or a feature file (``.npz`` of ``ove encode``), which is not encoded again.
        val: samples to score on, of the same kind; without it, ``val_share`` of each class of ``train`` (not of shards). The
            same samples as ``train`` are refused; some in both are counted in the log and in the result.
        head: ``"linear"`` (logistic regression on embeddings), ``"knn"`` (nothing is trained), or ``"attentive"`` (a learned
            query over all tokens); of shards also ``"module:name"``, one of your own.
        mode: how samples are looked at; by default as the encoder was trained. ``"tiling"`` is for shards.
        budget: patches of a clip; by default as in training, of shards one in 8.
        labels: of a feature file: a list with the columns ``path`` and ``label``, or a mapping from path to class name; not
            needed with ``label_folder``.
        val_share: share of each class to score on where ``val`` is not given, by default 0.2.
        path_column, label_column, label_folder, root: how samples or ``labels`` are listed, as in :func:`ove.write_shards`.
        threads: read files ahead by so many threads, by default 2.
        **settings: keys of the probe section (:class:`ove.config.ProbeConfig`) that the head has, such as ``epochs=20`` and
            ``lr=1e-3`` of ``"attentive"``, ``neighbours`` of ``"knn"``, ``l2`` of ``"linear"``; of shards also ``selection``
            and ``image_px``.

    Returns:
        Scores, predictions and class names; print it for a sentence.

    Raises:
        BadInput: for samples without labels, of a single class, or the same for training and validation.
        BadClip, BadShard: if nothing can be used.
        ConfigError: for settings that are unknown, or that the head or the samples do not have.

    Examples:
        >>> result = ove.probe(model, "videos", val_share=0.5, head="knn", neighbours=1)
        >>> 0 <= result.top1 <= 1
        True
    """
    config = probe_settings(head, settings)
    reading = reading_of(path_column, label_column, label_folder, root)
    if val is not None:
        refuse({"val_share": val_share}, "train without val", "val is given")
    if val_share is not None:
        check_share(val_share)
    given = _sources(train, val)
    sets = [found for found in map(_shards, given) if found is not None]
    if len(sets) == 2:
        listed = {name: value or None for name, value in reading.items()}
        refuse({"labels": labels, **listed, "threads": threads}, "files", "train is a folder of shards")
        return _of_shards(_needed(model), (sets[0], sets[1]), mode, budget, config, settings)
    if sets:
        raise ConfigError("a folder of shards is no counterpart of files; give two folders of shards, train and val.")
    if head not in OF_HEAD:
        raise ConfigError(f"head = {head!r} works on shards only; write shards of the samples (`ove.write_shards`).")
    refuse({name: settings.get(name) for name in OF_SHARDS}, "shards", "train is no folder of shards")
    if any(is_feature_file(samples) for samples in given):
        if head == "attentive":
            raise ConfigError("head = 'attentive' needs all tokens; give the files themselves, or use linear or knn.")
        if model is not None:
            raise ConfigError(f"model = {model}: is not needed for a feature file, which is encoded already; give None.")
        refuse({"mode": mode, "budget": budget, "threads": threads}, "files", "a feature file (.npz) is encoded already")
        sources = [labelled_features(samples, labels, reading) for samples in given]
        n_shared = check_apart([part.names for part in sources])
    else:
        refuse({"labels": labels}, "feature files (.npz)", "train is another kind of file")
        model, pairs = (
            _needed(model),
            [labelled_files(samples, name, **reading) for name, samples in zip(("train", "val"), given, strict=False)],
        )
        n_shared = check_apart([[path for path, _ in each] for each in pairs])
        encode = partial(encode_files, model, mode=mode, budget=budget, all_tokens=head == "attentive", threads=threads or 2)
        sources = [encode(each) for each in pairs]
    parts = sources if len(sources) == 2 else split_files(sources[0], 0.2 if val_share is None else val_share, config.seeds[0])
    aside = tuple(dict.fromkeys(reason for part in sources for reason in part.set_aside))
    return replace(_of_encoded(model, parts[0], parts[1], config), set_aside=aside, n_shared=n_shared)


def _sources(train: Any, val: Any) -> list[Any]:
    """Returns the samples that are given, which can be gone through twice."""
    given = {"train": train} | ({} if val is None else {"val": val})
    return [materialised(samples, name) for name, samples in given.items()]


def _needed(model: Model | PathLike | None) -> Model:
    if isinstance(model, Model):
        return model
    if isinstance(model, (str, os.PathLike)):
        return load(model)
    if model is None:
        raise ConfigError("model = None: files and shards have to be encoded; give a model from ove.load, or a feature file.")
    raise BadInput(f"model = {model!r:.60} is of type {type(model).__name__}; give what ove.load returns or takes.")


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
    path = expanded(os.fspath(given), "samples")
    if uri_of(os.fspath(given)) is not None:
        return os.fspath(given)
    return str(path) if (path / MANIFEST).is_file() else None


def _of_shards(
    model: Model,
    sets: tuple[Shards, Shards],
    mode: Any,
    budget: int | None,
    config: ProbeConfig,
    settings: Mapping[str, Any],
) -> ProbeResult:
    train, val = sets
    mode = mode or ("codec" if train.kind == "video" else "image")
    if mode == "image":
        refuse({"budget": budget}, "clips", "mode = 'image' takes whole pictures")
    if mode != "codec":
        refuse({name: settings.get(name) for name in OF_SELECTION}, "mode codec", f"mode = {mode!r}")
    if train.kind == "video":
        refuse({"image_px": settings.get("image_px")}, "shards of pictures", f"{train.folder} holds videos")
        budget = budget or int(np.prod(train.grid_tyx)) // PAPER_SHARE
    n_shared = check_sets_apart(train, val)
    config = replace(config, modes=(mode,), budgets=(budget or 1,))
    encoder = replace(frozen(model.config, model.weights.params, model.name), inputs=model.weights.inputs)
    found = compare_on(config, encoder, sets, lambda line: _log.log(WARNING if line.startswith("note") else INFO, line))
    (row,) = found.rows
    index = {name: number for number, name in enumerate(found.classes)}
    labels = np.array([index.get(label or "", UNKNOWN) for _, label in val.names], np.int32)
    names = tuple(key for key, _ in val.names)
    return ProbeResult(row.scores[0], found.classes, names, labels, row.predictions[0], len(train), n_shared=n_shared)


def _of_encoded(model: Model | PathLike | None, train: EncodedFiles, val: EncodedFiles, config: ProbeConfig) -> ProbeResult:
    classes = tuple(sorted(set(train.labels)))
    if len(classes) < 2:
        said = ", ".join(f"{name} ({count})" for name, count in Counter(train.labels).items())
        raise BadInput(f"a probe needs training samples of at least two classes, found {said}.")
    of_train, of_val = train.features(classes), val.features(classes)
    if isinstance(of_train, Features) and isinstance(of_val, Features):
        opened = _needed(model)
        encoder = frozen(opened.config, opened.weights.params, opened.name)
        scores, predictions = fit(encoder, config, len(classes), of_train, of_val, config.seeds[0])
    else:
        assert isinstance(of_train, Embeddings) and isinstance(of_val, Embeddings)
        if config.probe == "knn":
            scores, predictions = knn(len(classes), of_train, of_val, config.neighbours)
        else:
            scores, predictions = fit_linear(len(classes), of_train, of_val, config.l2)
    return ProbeResult(scores, classes, val.names, of_val.labels, predictions, len(train.names))
