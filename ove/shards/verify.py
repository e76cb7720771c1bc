"""Reads a shard folder from end to end and compares it with what was written."""

import hashlib
from dataclasses import dataclass
from pathlib import Path

from ove.errors import BadShard
from ove.shards.manifest import fingerprint_of, read_manifest
from ove.shards.read import ShardSet
from ove.shards.schema import VideoRecord


@dataclass(frozen=True)
class Problem:
    """Something in a folder that is not as it was written."""

    file: str
    reason: str
    record: int | None = None
    """Index over the whole set, where a single record is concerned."""


def verify(folder: Path) -> list[Problem]:
    """All that is wrong with a shard folder; an empty list if every checksum agrees and every record can be read.

    A folder without a readable manifest raises BadShard, for then nothing is known of what should be there.
    """
    manifest = read_manifest(folder)
    shards = ShardSet(folder, manifest)
    problems = []
    if manifest.fingerprint != fingerprint_of(manifest.shards) or manifest.records != sum(s.records for s in manifest.shards):
        problems.append(Problem("manifest.json", "its totals do not agree with its list of shards"))
    start = 0
    for shard in manifest.shards:
        path = folder / shard.file
        if not path.is_file():
            problems.append(Problem(shard.file, "is missing"))
        else:
            with path.open("rb") as handle:
                if hashlib.file_digest(handle, "sha256").hexdigest() != shard.sha256:
                    problems.append(Problem(shard.file, "its SHA-256 is not the one that was written"))
            problems += _unreadable(shards, shard.file, range(start, start + shard.records))
        start += shard.records
    return problems


def _unreadable(shards: ShardSet, file: str, indices: range) -> list[Problem]:
    problems = []
    for index in indices:
        try:
            record = shards.record(index)
        except BadShard as error:
            problems.append(Problem(file, str(error), index))
            continue
        grid = record.grid_tyx if isinstance(record, VideoRecord) else None
        if grid != shards.manifest.grid_tyx:
            problems.append(Problem(file, f"{record.key} has the grid {grid}, not {shards.manifest.grid_tyx}", index))
    return problems
