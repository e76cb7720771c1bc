"""Labelled files → what an encoder makes of them, from the files or from a feature file."""

import logging
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ove.api.arguments import local_path, refuse
from ove.api.model import Model
from ove.api.read import mode_of
from ove.api.samples import PathLike, Samples, labelled_files
from ove.api.split import split
from ove.errors import BadClip, BadInput, ConfigError
from ove.features.feature_file import read_arrays
from ove.features.from_files import Outputs, encode_sequences
from ove.probing.dataset import UNKNOWN
from ove.probing.features import Embeddings, Features
from ove.sources.folders import named_by_folder
from ove.tokens.preprocessing import changed
from ove.tokens.read import Tokens, read_tokens
from ove.tokens.read_ahead import read_ahead

_log = logging.getLogger("ove")
_SHOWN = 5


@dataclass(frozen=True)
class EncodedFiles:
    """What an encoder made of labelled files: one vector (D,) or all tokens (N, D) of each."""

    names: tuple[str, ...]
    labels: tuple[str, ...]
    values: np.ndarray
    set_aside: tuple[str, ...] = ()

    def features(self, classes: Sequence[str]) -> Embeddings | Features:
        """Returns what a head takes; labels are indices of `classes`."""
        index = {name: number for number, name in enumerate(classes)}
        labels = np.array([index.get(label, UNKNOWN) for label in self.labels], np.int32)
        if self.values.ndim == 3:
            return Features(self.values.astype(np.float16), labels)
        norms = np.linalg.norm(self.values, axis=1, keepdims=True)
        return Embeddings((self.values / np.maximum(norms, 1e-30)).astype(np.float32), labels)

    def part(self, indices: Sequence[int]) -> "EncodedFiles":
        """Returns some of the files."""
        return EncodedFiles(
            tuple(self.names[i] for i in indices), tuple(self.labels[i] for i in indices), self.values[list(indices)]
        )


def split_files(found: EncodedFiles, val_share: float, seed: int) -> list[EncodedFiles]:
    """Returns the training and the validation part, class by class in the same proportion."""
    parts = split(zip(found.names, found.labels, strict=True), val_share=val_share, seed=seed)
    index = {str(Path(name).absolute()): number for number, name in enumerate(found.names)}
    return [found.part([index[name] for name, _ in part]) for part in parts]


def encode_files(
    model: Model, pairs: Sequence[tuple[str, str]], *, mode: Any, budget: int | None, all_tokens: bool, threads: int
) -> EncodedFiles:
    """Reads and encodes files; those that cannot be used are set aside and named in the log."""
    label_of = dict(pairs)
    mode = mode or mode_of(Path(next(iter(label_of))), model.inputs)
    if mode != "codec":
        refuse({"budget": budget}, "mode codec", f"{next(iter(label_of))} is read in mode {mode}")
    inputs = changed(model.inputs, mode=mode, **({} if budget is None else {"budget": budget}))
    names: list[str] = []
    bad: list[str] = []

    def set_aside(path: Path, reason: str) -> None:
        bad.append(reason)
        if len(bad) <= _SHOWN:
            _log.warning("set aside: %s", reason)

    def read() -> Iterator[Tokens]:
        for path, tokens in read_ahead(list(map(Path, label_of)), partial(read_tokens, config=inputs), threads, set_aside):
            names.append(str(path))
            yield tokens

    outputs = Outputs(pooled=not all_tokens, tokens=all_tokens)
    found = list(encode_sequences(model.weights, read(), outputs, longest=inputs.longest, equal=inputs.all_equal))
    if not found:
        raise BadClip(f"none of the {len(label_of)} files could be used; the first: {bad[0] if bad else 'no file'}")
    values = [one.tokens if all_tokens else one.pooled for one in found]
    if len({len(value) for value in values if value is not None}) > 1:
        raise ConfigError(
            "head = 'attentive' needs samples of equally many tokens, and short videos have fewer than the budget; lower "
            "budget, or use linear or knn."
        )
    stacked = np.stack([value for value in values if value is not None])
    return EncodedFiles(tuple(names), tuple(label_of[name] for name in names), stacked, tuple(bad))


def is_feature_file(samples: Samples) -> bool:
    """Returns whether a source is named like what `ove encode` writes."""
    return isinstance(samples, (str, os.PathLike)) and os.fspath(samples).endswith(".npz")


def labelled_features(
    samples: Samples, labels: PathLike | Mapping[str, str] | None, reading: Mapping[str, Any]
) -> EncodedFiles:
    """Reads the embeddings of a feature file, with the labels of its files."""
    if not is_feature_file(samples):
        raise ConfigError("train and val must be two of a kind; give two feature files (.npz), or two sources of files.")
    path = local_path(samples, "train", "feature files are read")
    given = {name: value or None for name, value in reading.items()}
    if labels is None and not reading["label_folder"]:
        raise ConfigError(f"{path} needs labels=, a list or mapping of its files, or label_folder=.")
    if labels is None:
        refuse(given | {"label_folder": None}, "lists", "labels are taken from folders, by label_folder")
    elif isinstance(labels, Mapping):
        refuse(given, "lists", "labels is a mapping")
    elif not isinstance(labels, (str, os.PathLike)):
        raise ConfigError(f"labels = {labels!r:.60} is of type {type(labels).__name__}; give a list, or a mapping of files.")
    files, values = read_arrays(path, ("files", "pooled"))
    if files.dtype.kind != "U" or files.ndim != 1 or values.dtype.kind != "f" or values.shape[:-1] != files.shape:
        raise BadInput(
            f"{path}: is no feature file of `ove encode`: files are {files.dtype}{list(files.shape)}, and pooled is "
            f"{values.dtype}{list(values.shape)}, not a vector for each; encode the files again."
        )
    names = files.tolist()
    if labels is None:
        named_labels = [(name, named_by_folder(name, reading["label_folder"], str(path))) for name in names]
    else:
        named_labels = list(labels.items()) if isinstance(labels, Mapping) else labelled_files(labels, "labels", **reading)
    label_of = {str(Path(name).absolute()): label for name, label in named_labels}
    keys = [str(Path(name).absolute()) for name in names]
    if without := [name for name, key in zip(names, keys, strict=True) if key not in label_of]:
        raise BadInput(
            f"{path}: {len(without)} of {len(names)} files have no label, the first {without[0]}; add them to labels."
        )
    return EncodedFiles(tuple(names), tuple(label_of[key] for key in keys), values)
