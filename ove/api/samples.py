"""Labelled files as users give them: lists, folders, pairs."""

import json
import os
import tempfile
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from ove.api.arguments import expanded, local_path, path_given, refuse
from ove.config import ShardsConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput, ConfigError
from ove.paths import uri_of
from ove.sources.folders import first_repeated, named_by_folder
from ove.sources.inputs import archive_format, find_inputs
from ove.sources.lists import class_name, column_of_list, is_table

PathLike = str | os.PathLike[str]
Samples = PathLike | Iterable[PathLike | tuple[PathLike, str] | Mapping[str, Any]]
"""A folder (class names from its subfolders), list or archive; or paths, (path, class name) pairs, or mappings with the keys
of a list (`path`, `label`, `start_s`, `end_s`, `key`, and class centers of the banks `obj`, `vid`, `ocr`)."""


def reading_of(path_column: str, label_column: str, label_folder: int, root: PathLike) -> dict[str, Any]:
    """Returns the keys of the shards section that say how samples are listed."""
    start = str(expanded(path_given(root, "root"), "root")) if root else ""
    return {"path_column": path_column, "label_column": label_column, "label_folder": label_folder, "root": start}


def check_listing(samples: Samples, reading: Mapping[str, Any], called: str = "samples") -> None:
    """Raises ConfigError for what `reading_of` returns, if the kind of samples has no such thing."""
    if not isinstance(samples, (str, os.PathLike)):
        return
    path = local_path(samples, called, "samples are read")
    given = {name: value or None for name, value in reading.items()}
    if path.is_dir() or archive_format(path):
        found = f"{path} is {'a folder' if path.is_dir() else 'an archive'}"
        refuse({name: given[name] for name in ("path_column", "root")}, "lists and mappings", found)
    elif path.is_file() and not is_table(path):
        columns = {name: given[name] for name in ("path_column", "label_column")}
        refuse(columns, "lists with columns (.csv, .jsonl) and mappings", f"{path} is a list without")


def materialised(samples: Any, name: str) -> Any:
    """Returns samples that can be gone through twice; BadInput, naming the argument, for what is no samples.

    What the user's iterable raises passes through.
    """
    if isinstance(samples, (str, os.PathLike)):
        path_given(samples, name)
        return samples
    if isinstance(samples, Mapping):
        raise BadInput(f"{name}: is a mapping; give its .items(), if it is from paths to class names.")
    if not isinstance(samples, Iterable) or isinstance(samples, (bytes, bytearray, memoryview)):
        raise BadInput(
            f"{name} = {samples!r:.60}: give a folder, a list file, or an iterable of paths and (path, label) pairs."
        )
    return list(samples)


def rows_of(samples: Iterable[Any], reading: Mapping[str, Any], called: str = "samples") -> list[dict[str, Any]]:
    """Returns samples as rows of a list with the columns key, path and label; BadInput for what is no sample.

    `called`: the argument that the samples are, for messages.
    """
    config = from_mapping(ShardsConfig, reading, "")
    return [_row(sample, config, called) for sample in samples]


def _row(sample: Any, config: ShardsConfig, called: str) -> dict[str, Any]:
    path_column, label_column = config.path_column or "path", config.label_column or "label"
    row: Any = sample
    if isinstance(sample, (str, os.PathLike)):
        row = {path_column: sample}
    elif isinstance(sample, (tuple, list)) and len(sample) == 2:
        row = {path_column: sample[0], label_column: sample[1]}
    if not isinstance(row, Mapping) or not isinstance(row.get(path_column), (str, os.PathLike)):
        raise BadInput(
            f"{called}: {sample!r:.200} is neither a path, a pair (path, label), nor a mapping with the key {path_column}."
        )
    if config.label_column and label_column not in row:
        raise BadInput(
            f"{called}: {sample!r:.200} has no key {label_column}, but {', '.join(map(str, row))}; name one of these."
        )
    given = path_given(row[path_column], f"{called}: the path")
    try:
        label = class_name(_plain_number(row.get(label_column)))
        others = {key: _plain_number(value) for key, value in row.items() if key not in (path_column, label_column)}
        json.dumps(others)
    except (TypeError, ValueError) as error:
        raise BadInput(f"{called}: {sample!r:.200} cannot be used: {error}.") from error
    if label is None and config.label_folder:
        label = named_by_folder(given, config.label_folder, called)
    path = Path(config.root) / given if config.root and not uri_of(given) else given
    return {"key": given} | others | {"path": str(_local(path, called)), "label": label}


def _local(path: Path | str, called: str) -> Path:
    if uri := uri_of(path):
        raise ConfigError(f"{called}: {uri}: samples are read on this machine only; copy them here, and give local paths.")
    return expanded(path, called).absolute()


def _plain_number(value: Any) -> Any:
    """Returns integers of NumPy as Python's, all else as it is."""
    return value.item() if isinstance(value, np.generic) else value


def group_of_each(samples: Any, groups: Any, pairs: Sequence[tuple[str, str]], reading: Mapping[str, Any]) -> list[str]:
    """Returns the name of the group of each labelled file, in their order; BadInput for a file without one.

    `groups`: a column of the list or key of the mappings, or a function of the path.
    """
    if callable(groups):
        found = [groups(path) for path, _ in pairs]
    elif not isinstance(samples, (str, os.PathLike)):
        found = [sample.get(groups) if isinstance(sample, Mapping) else None for sample in samples]
    elif is_table(listed := local_path(samples, "samples", "samples are read")):
        found = column_of_list(listed, groups, from_mapping(ShardsConfig, reading, ""))
    else:
        raise ConfigError(f"groups = {groups!r} names a column, but {listed} has none; give a function of the path.")
    for (path, _), name in zip(pairs, found, strict=True):
        if name in (None, "") or not isinstance(_plain_number(name), (str, int)):
            raise BadInput(f"groups: {path} is in the group {name!r:.60}; give each file the name of one, a str or an int.")
    return [str(name) for name in found]


def labelled_files(samples: Samples, called: str = "samples", **reading: Any) -> list[tuple[str, str]]:
    """Lists (absolute path, class name) of samples; BadInput for one without a class name, or a sample within an archive.

    `reading`: what `reading_of` returns; `called`: the argument that the samples are, for messages.
    """
    if isinstance(samples, (str, os.PathLike)):
        source = local_path(samples, called, "samples are read")
        check_listing(samples, reading, called)
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
        rows = rows_of(materialised(samples, called), reading, called)
        if part := next((row for row in rows if row.get("start_s") is not None or row.get("end_s") is not None), None):
            raise BadInput(f"{called}: {part['key']}: is a part of a file; write shards of the samples first, and give these.")
        pairs = [(row["path"], row["label"]) for row in rows]
        if repeated := first_repeated(path for path, _ in pairs):
            raise BadInput(f"{called}: {repeated} is given twice; give every file once.")
    if not pairs:
        raise BadInput(f"{called} is empty; give at least one file with its class name.")
    without = next((path for path, label in pairs if not label), None)
    if without is not None:
        raise BadInput(
            f"{without}: has no class name; put it into a subfolder of that name, give a list with labels, or set label_folder."
        )
    return [(path, str(label)) for path, label in pairs]
