"""`ove.probe`: what a frozen encoder is worth on labelled files, shards or features."""

import logging
import os
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ove.api.data import PAPER_SHARE, Samples, labelled_files
from ove.api.model import Model
from ove.config import ProbeConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput, BadShard, ConfigError
from ove.features.from_files import FileFeatures, Outputs, encode_sequences, read_ahead
from ove.features.frozen import frozen
from ove.named import named
from ove.probe.dataset import UNKNOWN, ProbeDataset
from ove.probe.features import Embeddings, Features
from ove.probe.heads.attentive import fit
from ove.probe.heads.heads import HEADS
from ove.probe.heads.knn import knn
from ove.probe.heads.linear import fit_linear
from ove.probe.scores import Predictions, Scores
from ove.shards.manifest import MANIFEST
from ove.shards.remote.remote_shards import uri_of
from ove.shards.shard_set import ShardSet
from ove.stream.modes import TokenView
from ove.tokens.preprocessing import changed
from ove.tokens.read import InputConfig, Tokens, read_tokens

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
    model: Model,
    train: Samples,
    val: Samples,
    *,
    head: Literal["linear", "knn", "attentive"] = "linear",
    mode: Literal["codec", "frames", "image"] | None = None,
    budget: int | None = None,
    threads: int = 2,
    **settings: Any,
) -> ProbeResult:
    """Trains a probe on a frozen encoder and scores it.

    Args:
        model: from `ove.load`.
        train: labelled samples to train on: a list (``.csv`` with the columns ``path`` and ``label``), a folder whose
            subfolders are class names, an iterable of ``(path, label)`` pairs, or a folder of shards.
        val: samples to score on, of the same kind.
        head: ``"linear"`` (logistic regression on embeddings), ``"knn"`` (nothing is trained), or ``"attentive"`` (a learned
            query over all tokens).
        mode: how samples are looked at; by default as the encoder was trained.
        budget: patches of a clip; by default as in training, of shards one in 8.
        threads: read ahead by so many threads.
        **settings: keys of the probe section (:class:`ove.config.ProbeConfig`), such as ``epochs=20``, ``lr=1e-3``, ``l2``.

    Returns:
        Scores, predictions and class names; print it for a sentence.

    Raises:
        BadInput: for samples without labels, or of a single class.
        BadClip, BadShard: if nothing can be used.
        ConfigError: for unknown settings.

    Examples:
        >>> train, val = ove.split("videos", val_share=0.5)
        >>> result = ove.probe(model, train, val, head="knn", neighbours=1)
        >>> 0 <= result.top1 <= 1
        True
    """
    config = from_mapping(ProbeConfig, {"probe": head, "untrained": False} | settings, "probe.")
    sets = [_shards(samples) for samples in (train, val)]
    if all(sets):
        return _of_shards(model, [found for found in sets if found], mode, budget, config)
    if any(sets):
        raise ConfigError("one of train and val is a folder of shards and the other is not; give two of a kind.")
    if head not in ("linear", "knn", "attentive"):
        raise ConfigError(f"head = {head!r} works on shards only; write shards of the samples (`ove.write_shards`).")
    options: dict[str, Any] = {} if budget is None else {"budget": budget}
    inputs = changed(model.inputs, mode=mode or model.inputs.mode, **options)
    pairs = labelled_files(train), labelled_files(val)
    classes = tuple(sorted({label for _, label in pairs[0]}))
    _check_classes(classes, Counter(label for _, label in pairs[0]))
    of_train, of_val = (_encoded(model, part, inputs, classes, head == "attentive", threads) for part in pairs)
    scores, predictions = _fit(model, config, len(classes), of_train.features, of_val.features)
    aside = (*of_train.set_aside, *of_val.set_aside)
    return ProbeResult(scores, classes, of_val.names, of_val.features.labels, predictions, len(of_train.names), aside)


def _shards(samples: Samples) -> ShardSet | None:
    if not isinstance(samples, (str, os.PathLike)):
        return None
    path = Path(samples).expanduser()
    is_uri = uri_of(os.fspath(samples)) is not None
    return ShardSet.open(str(samples) if is_uri else path) if is_uri or (path / MANIFEST).is_file() else None


def _check_classes(classes: Sequence[str], counts: Mapping[str, int]) -> None:
    if len(classes) < 2:
        said = ", ".join(f"{name} ({counts.get(name, 0)})" for name in classes) or "none"
        raise BadInput(f"a probe needs training samples of at least two classes, found {said}.")


def _of_shards(
    model: Model, sets: Sequence[ShardSet], mode: str | None, budget: int | None, config: ProbeConfig
) -> ProbeResult:
    train, val = sets
    classes = tuple(train.classes)
    _check_classes(classes, {})
    mode = mode or ("codec" if train.kind == "video" else "image")
    if train.kind != val.kind:
        raise BadShard(f"{train.folder} holds {train.kind}s and {val.folder} {val.kind}s; give two of a kind.")
    if train.kind == "video":
        view = TokenView(budget or int(np.prod(train.grid_tyx)) // PAPER_SHARE, config.selection)
        view.check(train.grid_tyx, {("codec", "frames", "tiling", "image").index(mode)})
    else:
        view = TokenView(budget or 1, size_px=config.image_px, patch_px=model.config.patch_px)
    encoder = frozen(model.config, model.weights.params, model.name)
    of_train, of_val = (ProbeDataset(shards, classes, mode, view) for shards in sets)
    run = named(HEADS, config.probe, "probe.probe")
    scores, predictions = run(encoder, of_train, of_val, len(classes), config, lambda done, total: None)[0]
    names = tuple(key for key, _ in val.names)
    return ProbeResult(scores, classes, names, of_val.labels(), predictions, len(train))


@dataclass(frozen=True)
class _Encoded:
    features: Embeddings | Features
    names: tuple[str, ...]
    set_aside: tuple[str, ...]


def _encoded(
    model: Model, pairs: Sequence[tuple[str, str]], inputs: InputConfig, classes: Sequence[str], all_tokens: bool, threads: int
) -> _Encoded:
    """Reads and encodes files; those that cannot be used are set aside and named in the log."""
    label_of = dict(pairs)
    names: list[str] = []
    bad: list[str] = []

    def set_aside(path: Path, reason: str) -> None:
        bad.append(reason)
        if len(bad) <= _SHOWN:
            _log.warning("set aside: %s", reason)

    def read() -> Iterator[Tokens]:
        paths = [Path(path) for path in label_of]
        for path, tokens in read_ahead(paths, partial(read_tokens, config=inputs), threads, set_aside):
            names.append(str(path))
            yield tokens

    outputs = Outputs(pooled=not all_tokens, tokens=all_tokens)
    found: list[FileFeatures] = list(
        encode_sequences(model.weights, read(), outputs, longest=inputs.longest, equal=inputs.all_equal)
    )
    if not found:
        raise BadInput(f"none of the {len(label_of)} files could be used; the first: {bad[0]}")
    index = {name: number for number, name in enumerate(classes)}
    labels = np.array([index.get(label_of[name], UNKNOWN) for name in names], np.int32)
    if all_tokens:
        tokens = [one.tokens for one in found if one.tokens is not None]
        if len({len(one) for one in tokens}) > 1:
            raise ConfigError("the attentive probe needs samples of equally many tokens; use head='linear' for these.")
        return _Encoded(Features(np.stack(tokens).astype(np.float16), labels), tuple(names), tuple(bad))
    vectors = np.stack([one.pooled for one in found if one.pooled is not None])
    vectors = vectors / np.maximum(np.linalg.norm(vectors, axis=1, keepdims=True), 1e-30)
    return _Encoded(Embeddings(vectors, labels), tuple(names), tuple(bad))


def _fit(
    model: Model, config: ProbeConfig, n_classes: int, train: Embeddings | Features, val: Embeddings | Features
) -> tuple[Scores, Predictions]:
    if isinstance(train, Features) and isinstance(val, Features):
        encoder = frozen(model.config, model.weights.params, model.name)
        return fit(encoder, config, n_classes, train, val, config.seeds[0])
    assert isinstance(train, Embeddings) and isinstance(val, Embeddings)
    if config.probe == "knn":
        return knn(n_classes, train, val, config.neighbours)
    return fit_linear(n_classes, train, val, config.l2)
