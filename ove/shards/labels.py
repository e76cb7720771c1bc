"""Labels beside the shards they belong to: `labels/BANK.npz`, bound to the shard set by its fingerprint."""

import json
import os
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int32

from ove.errors import BadShard
from ove.shards.manifest import publish, read_manifest, temporary_name

Bank = Literal["vid", "obj"]
BANKS: tuple[Bank, ...] = ("vid", "obj")
"""Whole clips; single pictures (the middle frame of each clip)."""


@dataclass(frozen=True)
class Labels:
    """The labels of all records of a shard set in one bank."""

    labels: Int32[np.ndarray, "N M"]
    """Nearest class centers of each record, nearest first."""
    n_centers: int
    """Labels are 0 … n_centers − 1."""
    info: dict[str, Any]
    """How they were made, as given to `write_labels`, and the fingerprint of the shard set."""


def write_labels(
    folder: Path,
    bank: Bank,
    labels: Int32[np.ndarray, "N M"],
    centers: Float32[np.ndarray, "k E"],
    info: Mapping[str, Any],
) -> None:
    """Puts the labels and centers of a bank beside the shards in `folder`, in one step; `info` must be JSON.

    A number of labels that is not that of the records raises BadShard.
    """
    manifest = read_manifest(folder)
    if len(labels) != manifest.records:
        raise BadShard(f"{folder}: has {manifest.records} records, and {len(labels)} labels were given; label all of them.")
    path = _path(folder, bank)
    path.parent.mkdir(exist_ok=True)
    temporary = temporary_name(path)
    about = json.dumps({**info, "fingerprint": manifest.fingerprint, "n_centers": len(centers)}, ensure_ascii=False)
    with temporary.open("wb") as handle:
        np.savez(handle, labels=labels, centers=centers, info=np.array(about))
    publish(temporary, path)


def read_labels(folder: Path, bank: Bank) -> Labels:
    """The labels of a bank; missing or damaged ones, or ones made for other shards, raise BadShard saying what to run."""
    labels, info = _read(folder, bank, "labels")
    manifest = read_manifest(folder)
    if info["fingerprint"] != manifest.fingerprint or len(labels) != manifest.records:
        raise BadShard(f"{_path(folder, bank)}: was made for other shards than now lie in {folder}; {_remedy(folder)}")
    return Labels(labels, info["n_centers"], info)


def read_centers(folder: Path, bank: Bank) -> Float32[np.ndarray, "k E"]:
    """The class centers that a bank's labels are indices of, of length 1 each; missing or damaged ones raise BadShard."""
    return _read(folder, bank, "centers")[0]


def _read(folder: Path, bank: Bank, name: str) -> tuple[np.ndarray, dict[str, Any]]:
    path = _path(folder, bank)
    if not path.is_file():
        raise BadShard(f"{path}: no labels of the bank {bank}; {_remedy(folder)}")
    try:
        with path.open("rb") as handle, np.load(handle, allow_pickle=False) as stored:
            return stored[name], json.loads(str(stored["info"]))
    except (ValueError, KeyError, EOFError, OSError, zipfile.BadZipFile) as error:
        raise BadShard(f"{path}: is damaged ({error}); delete it, then {_remedy(folder)}") from error


def _path(folder: Path, bank: Bank) -> Path:
    return folder / "labels" / f"{bank}.npz"


def _remedy(folder: Path) -> str:
    return f"run `python -m launch.labels --shards {os.fspath(folder)}`."
