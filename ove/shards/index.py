"""`index.jsonl`: key and class name of every record, so that no record need be read for them."""

import hashlib
import json
from collections.abc import Sequence
from pathlib import Path

from ove.errors import BadShard
from ove.files import sha256_of, write_bytes
from ove.shards.manifest import Manifest
from ove.shards.remote.remote_shards import local_file

INDEX = "index.jsonl"
Name = tuple[str, str | None]
"""Key and class name of a record."""


def write_index(folder: Path, groups: Sequence[Sequence[Name] | None]) -> str:
    """Writes the names of all records, shard by shard, and returns the checksum of the file.

    Where the names of a shard are not known there is no index, and "" is returned.
    """
    path = folder / INDEX
    known = [names for names in groups if names is not None]
    if len(known) < len(groups):
        path.unlink(missing_ok=True)
        return ""
    data = "".join(json.dumps({"key": key, "label": label}) + "\n" for names in known for key, label in names).encode()
    if not path.exists() or path.read_bytes() != data:
        write_bytes(path, data)
    return hashlib.sha256(data).hexdigest()


def read_index(folder: Path, manifest: Manifest) -> tuple[Name, ...]:
    """Returns the names of all records, in order; BadShard unless the file is what was written with the manifest."""
    path = local_file(folder, INDEX, lambda fetched: sha256_of(fetched) == manifest.index)
    remedy = "run the same `ove shards` again."
    if not path.is_file():
        raise BadShard(f"{path}: is missing, though the manifest lists it; {remedy}")
    if sha256_of(path) != manifest.index:
        raise BadShard(f"{path}: is not what was written (its SHA-256 is another one); {remedy}")
    try:
        with path.open(encoding="ascii") as lines:
            names = tuple((str(entry["key"]), entry["label"]) for entry in map(json.loads, lines))
    except (ValueError, KeyError, TypeError) as error:
        raise BadShard(f"{path}: is not a list of names ({type(error).__name__}: {error}); {remedy}") from error
    if len(names) != manifest.records or not all(isinstance(label, str | None) for _, label in names):
        raise BadShard(f"{path}: has {len(names)} names of {manifest.records} records; {remedy}")
    return names
