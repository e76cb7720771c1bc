"""Labels beside the shards they belong to, bound to them by their fingerprint; pixels are not rewritten.

`labels/BANK.json` names the files `BANK.centers-C.npy` and `BANK.labels-C-L.npy`, which are mapped into memory. C and L are
the beginnings of their fingerprints. The JSON is written last.
"""

import functools
import hashlib
import json
import os
import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Float32, Int32, Shaped

from ove.config import read_bounded_json
from ove.errors import BadShard
from ove.files import atomic_write, map_array, write_json
from ove.paths import inside, uri_of
from ove.records import BANKS, BankName
from ove.shards.manifest import read_manifest
from ove.shards.remote.remote_shards import local_file, local_folder, origin

STEPS = "steps"
"""Folder in `labels/` for the embeddings, duplicates and centers of `ove labels`."""
NONE = -1
"""Stands for a missing label."""
VERSION = 1
"""Of `BANK.json`; incremented by every change that an old reader would misread."""
_DIGITS = 12
"""Of a fingerprint in a file name."""
_BLOCK_ROWS = 2**20


@dataclass(frozen=True)
class Labels:
    """The labels of all records of a shard set in one bank."""

    labels: Int32[np.ndarray, "N M"]
    """Class centers of each record, nearest first; −1: none. Mapped from the file."""
    n_centers: int
    """Labels are −1 … n_centers − 1."""
    info: dict[str, Any]
    """`info` of `write_labels`, the fingerprint of the shard set, the files and their checksums."""


def write_labels(
    folder: Path,
    bank: BankName,
    labels: Int32[np.ndarray, "N M"],
    centers: Float32[np.ndarray, "k E"] | None,
    info: Mapping[str, Any],
    n_centers: int | None = None,
) -> None:
    """Writes the labels of a bank, and the centers they index, beside the shards in `folder`, in one step.

    Both may be mapped from files: they are copied block by block. `info` must be JSON. Without centers (words) give
    `n_centers`. BadShard unless there is a label for each record, in −1 … n_centers − 1. The bank's former labels are deleted;
    readers that have them open keep them.
    """
    if uri_of(folder) or origin(folder):
        raise BadShard(f"{folder}: is remote, and labels are written into local folders; copy it here, or the labels there.")
    manifest = read_manifest(folder)
    if len(labels) != manifest.records:
        raise BadShard(f"{folder}: has {manifest.records} records, and {len(labels)} labels were given; label all of them.")
    n_centers = len(centers) if centers is not None else n_centers
    if n_centers is None:
        raise BadShard(f"{folder}: labels of the bank {bank} were given without centers; give n_centers, their number.")
    for first, block in blocks(labels):
        if block.size and not NONE <= int(block.min()) <= int(block.max()) < n_centers:
            raise BadShard(
                f"{folder}: labels of the bank {bank} from record {first} on are {block.min()}…{block.max()}; "
                f"labels are −1 (none) or 0…{n_centers - 1}."
            )
    path = _path(folder, bank)
    path.parent.mkdir(exist_ok=True)
    about = {"schema_version": VERSION, **info, "fingerprint": manifest.fingerprint, "n_centers": n_centers, "centers": None}
    version = "words"
    if centers is not None:
        about["centers"] = _write_array(path.parent, f"{bank}.centers", centers)
        version = about["centers"]["sha256"][:_DIGITS]
    about["labels"] = _write_array(path.parent, f"{bank}.labels-{version}", labels)
    write_json(path, about)
    current = {about[name]["file"] for name in ("labels", "centers") if about[name]}
    for old in _arrays(folder, bank):
        if old.name not in current:
            old.unlink(missing_ok=True)


def read_labels(folder: Path, bank: BankName) -> Labels:
    """Opens the labels of a bank, mapped from their file; `verify_labels` checks their bytes.

    BadShard, with the command to run, for missing or damaged labels and for labels of other shards.
    """
    folder = local_folder(folder)
    about = _read(folder, bank)
    manifest = read_manifest(folder)
    stored = _open(folder, bank, about, "labels")
    if about["fingerprint"] != manifest.fingerprint or len(stored) != manifest.records:
        raise BadShard(f"{_path(folder, bank)}: was made for other shards than now lie in {folder}; {_remedy(folder)}")
    return Labels(stored, about["n_centers"], about)


def read_centers(folder: Path, bank: BankName) -> Float32[np.ndarray, "k E"]:
    """Opens the class centers that a bank's labels index, mapped from their file; BadShard if missing or damaged."""
    folder = local_folder(folder)
    about = _read(folder, bank)
    if about["centers"] is None:
        raise BadShard(f"{_path(folder, bank)}: labels of the bank {bank} come from no centers (words have none).")
    return _open(folder, bank, about, "centers")


def remove_labels(folder: Path) -> None:
    """Deletes what `write_labels` wrote beside the shards in `folder`, of every bank, and the steps of `ove labels` there."""
    for bank in BANKS:
        _path(folder, bank).unlink(missing_ok=True)
        for old in _arrays(folder, bank):
            old.unlink()
    shutil.rmtree(folder / "labels" / STEPS, ignore_errors=True)


def verify_labels(folder: Path, bank: BankName) -> None:
    """Reads all labels and centers of a bank; BadShard if a byte differs from what was written."""
    found = read_labels(folder, bank)
    for name in ("labels", "centers") if found.info["centers"] else ("labels",):
        if fingerprint_of_array(_open(folder, bank, found.info, name)) != found.info[name]["sha256"]:
            raise _damaged(folder, bank, f"the bytes of {found.info[name]['file']} are not those that were written")


def fingerprint_of_array(array: Shaped[np.ndarray, "N ..."]) -> str:
    """Returns the SHA-256 of an array's shape, dtype and values, hexadecimal."""
    found = hashlib.sha256(json.dumps([list(array.shape), array.dtype.str]).encode())
    for _, block in blocks(array):
        found.update(np.ascontiguousarray(block).data)
    return found.hexdigest()


def blocks(array: Shaped[np.ndarray, "N ..."]) -> Iterator[tuple[int, Shaped[np.ndarray, "n ..."]]]:
    """Yields the rows of an array block by block, with the index of the first."""
    for start in range(0, len(array), _BLOCK_ROWS):
        yield start, array[start : start + _BLOCK_ROWS]


def _write_array(folder: Path, name: str, array: Shaped[np.ndarray, "N _"]) -> dict[str, Any]:
    """Writes an array block by block, whole or not at all; returns its entry in the JSON."""
    fingerprint = fingerprint_of_array(array)
    path = folder / f"{name}-{fingerprint[:_DIGITS]}.npy"
    with atomic_write(path) as temporary, temporary.open("wb") as handle:
        header = {"descr": np.lib.format.dtype_to_descr(array.dtype), "fortran_order": False, "shape": array.shape}
        np.lib.format.write_array_header_1_0(handle, header)
        for _, block in blocks(array):
            handle.write(np.ascontiguousarray(block).data)
    return {"file": path.name, "shape": list(array.shape), "dtype": array.dtype.str, "sha256": fingerprint}


def _open(folder: Path, bank: BankName, about: Mapping[str, Any], name: str) -> np.ndarray:
    entry = about[name]
    name = inside(folder / "labels", entry["file"], _path(folder, bank), BadShard).name
    path = local_file(folder, f"labels/{name}", functools.partial(_holds, sha256=entry["sha256"]))
    try:
        found = map_array(path)
    except FileNotFoundError as error:
        raise _damaged(folder, bank, f"{entry['file']} is missing") from error
    except ValueError as error:
        raise _damaged(folder, bank, f"{entry['file']}: {error}") from error
    if list(found.shape) != entry["shape"] or found.dtype.str != entry["dtype"]:
        raise _damaged(folder, bank, f"{entry['file']} holds {found.dtype.str}{list(found.shape)}")
    return found


def _arrays(folder: Path, bank: BankName) -> list[Path]:
    return [path for name in ("labels", "centers") for path in (folder / "labels").glob(f"{bank}.{name}-*.npy")]


def _holds(path: Path, sha256: str) -> bool:
    """Returns whether a fetched file is the array that was written."""
    try:
        return fingerprint_of_array(map_array(path)) == sha256
    except ValueError:
        return False


def _read(folder: Path, bank: BankName) -> dict[str, Any]:
    path = local_file(folder, f"labels/{bank}.json")
    if not path.is_file():
        raise BadShard(f"{path}: no labels of the bank {bank}; {_remedy(folder)}")
    try:
        about = read_bounded_json(path)
        whole = about["schema_version"] == VERSION and {"fingerprint", "n_centers", "labels", "centers"} <= about.keys()
        whole = whole and all(_is_entry(about[name]) for name in ("labels", "centers") if name == "labels" or about[name])
        version = about["schema_version"]
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise _damaged(folder, bank, repr(error)) from error
    if not whole:
        raise _damaged(folder, bank, f"schema_version {version!r}, keys {', '.join(about)}")
    return about


def _is_entry(entry: Any) -> bool:
    """Returns whether an entry names a file beside the JSON, and says what it holds."""
    texts = [entry[name] for name in ("file", "dtype", "sha256")]
    return all(isinstance(text, str) for text in texts) and isinstance(entry["shape"], list)


def _damaged(folder: Path, bank: BankName, what: str) -> BadShard:
    return BadShard(f"{_path(folder, bank)}: is damaged ({what}); delete it, then {_remedy(folder)}")


def _path(folder: Path, bank: BankName) -> Path:
    return folder / "labels" / f"{bank}.json"


def _remedy(folder: Path) -> str:
    return f"run `ove labels --shards {os.fspath(folder)}`."
