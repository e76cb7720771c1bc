"""Labelled files as users give them: lists, folders, pairs; `ove.split` divides them."""

import csv
import io
import os
import tempfile
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from ove.config import ShardsConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput, ConfigError
from ove.files import write_text
from ove.paths import uri_of
from ove.sources.folders import named_by_folder
from ove.sources.inputs import find_inputs

PathLike = str | os.PathLike[str]
Samples = PathLike | Iterable[PathLike | tuple[PathLike, str] | Mapping[str, Any]]
"""A folder (class names from its subfolders), list or archive; or paths, (path, class name) pairs, or mappings with the keys
of a list (`path`, `label`, `start_s`, `end_s`, `key`, and class centers of the banks `obj`, `vid`, `ocr`)."""


def reading_of(path_column: str, label_column: str, label_folder: int, root: PathLike) -> dict[str, Any]:
    """Returns the keys of the shards section that say how samples are listed."""
    return {"path_column": path_column, "label_column": label_column, "label_folder": label_folder, "root": os.fspath(root)}


def local_path(path: PathLike, what: str) -> Path:
    """Returns a path with `~` expanded; ConfigError for a URI, which says `what` is done here only."""
    if uri := uri_of(os.fspath(path)):
        raise ConfigError(f"{uri}: {what} on this machine only; give a local path, and copy the folder.")
    return Path(path).expanduser()


def rows_of(samples: Iterable[Any], reading: Mapping[str, Any]) -> list[dict[str, Any]]:
    """Returns samples as rows of a list with the columns key, path and label."""
    config = from_mapping(ShardsConfig, reading, "")
    if not isinstance(samples, Iterable):
        raise BadInput(f"samples = {samples!r}: give a folder, a list file, or an iterable of paths and (path, label) pairs.")
    return [_row(sample, config) for sample in samples]


def _row(sample: Any, config: ShardsConfig) -> dict[str, Any]:
    path_column, label_column = config.path_column or "path", config.label_column or "label"
    if isinstance(sample, (str, os.PathLike)):
        sample = {path_column: sample}
    elif isinstance(sample, tuple) and len(sample) == 2:
        sample = {path_column: sample[0], label_column: sample[1]}
    if not isinstance(sample, Mapping) or not isinstance(sample.get(path_column), (str, os.PathLike)):
        raise BadInput(
            f"the sample {sample!r} is neither a path, a pair (path, label), nor a mapping with the key {path_column}."
        )
    if config.label_column and label_column not in sample:
        raise BadInput(
            f"the sample {sample!r} has no key {label_column}, but {', '.join(map(str, sample))}; name one of these."
        )
    given, label = os.fspath(sample[path_column]), sample.get(label_column)
    if label in (None, "") and config.label_folder:
        label = named_by_folder(given, config.label_folder, "samples")
    others = {key: value for key, value in sample.items() if key not in (path_column, label_column)}
    path = local_path(Path(config.root) / given if config.root and not uri_of(given) else given, "samples are read").absolute()
    return {"key": given} | others | {"path": str(path), "label": None if label is None else str(label)}


def split(
    samples: Samples,
    *,
    val_share: float = 0.2,
    seed: int = 0,
    out: PathLike | None = None,
    path_column: str = "",
    label_column: str = "",
    label_folder: int = 0,
    root: PathLike = "",
) -> tuple[list[tuple[str, str]], list[tuple[str, str]]]:
    """Splits labelled files into a training and a validation list, class by class in the same proportion.

    Args:
        samples: a folder whose subfolders are class names, a list with labels, or an iterable of ``(path, label)`` pairs.
        val_share: share of each class for validation, within 0 and 1; at least one file, and never all of them.
        seed: another one draws other files.
        out: folder to which ``train.csv`` and ``val.csv`` are written, for ``ove.probe`` and the commands.
        path_column, label_column, label_folder, root: how samples are listed, as in :func:`write_shards`.

    Returns:
        Two lists of ``(path, label)``.

    Raises:
        BadInput: for a file without a label, or a class of one file.
        ConfigError: for a share that is not between 0 and 1.

    Examples:
        >>> train, val = ove.split("videos", val_share=0.25, out="lists")
    """
    if not isinstance(val_share, (int, float)) or not 0 < val_share < 1:
        raise ConfigError(f"val_share = {val_share!r} must be between 0 and 1.")
    of_class: dict[str, list[str]] = defaultdict(list)
    for path, label in labelled_files(samples, **reading_of(path_column, label_column, label_folder, root)):
        of_class[label].append(path)
    rng = np.random.default_rng(seed)
    parts: tuple[list[tuple[str, str]], list[tuple[str, str]]] = ([], [])
    for label in sorted(of_class):
        paths = sorted(of_class[label])
        if len(paths) < 2:
            raise BadInput(f"class {label} has one file, {paths[0]}; give each class at least two, or leave it out.")
        n_val = min(max(round(val_share * len(paths)), 1), len(paths) - 1)
        order = rng.permutation(len(paths))
        for number, index in enumerate(order.tolist()):
            parts[number < n_val].append((paths[index], label))
    if out is not None:
        folder = local_path(out, "lists are written")
        folder.mkdir(parents=True, exist_ok=True)
        for name, part in zip(("train.csv", "val.csv"), parts, strict=True):
            text = io.StringIO()
            csv.writer(text, lineterminator="\n").writerows([("path", "label"), *part])
            write_text(folder / name, text.getvalue())
    return parts


def labelled_files(samples: Samples, **reading: Any) -> list[tuple[str, str]]:
    """Lists (absolute path, class name) of samples; BadInput for one without a class name, or a sample within an archive.

    `reading`: what `reading_of` returns.
    """
    if isinstance(samples, (str, os.PathLike)):
        source = local_path(samples, "samples are read")
        with tempfile.TemporaryDirectory(prefix="ove_") as scratch:
            found = find_inputs(source, "video", from_mapping(ShardsConfig, reading, ""), Path(scratch))
        if found.bad:
            raise BadInput(f"{found.bad[0].reason.removesuffix('.')}; correct the list, or take the line out.")
        files = found.files
        inside = next((file for file in files if file.inside is not None or file.span_s is not None), None)
        if inside is not None:
            raise BadInput(f"{inside.name}: is a part of a file; write shards of {source} first, and give these.")
        pairs = [(str(file.path.absolute()), file.label) for file in files]
    else:
        pairs = [(row["path"], row["label"]) for row in rows_of(samples, reading)]
    if not pairs:
        raise BadInput("no samples were given; give at least one file with its class name.")
    without = next((path for path, label in pairs if not label), None)
    if without is not None:
        raise BadInput(
            f"{without}: has no class name; put it into a subfolder of that name, give a list with labels, or set label_folder."
        )
    return [(path, str(label)) for path, label in pairs]
