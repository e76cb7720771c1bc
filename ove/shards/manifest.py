"""`manifest.json`: what a shard set consists of; written last, so that a folder without one is unfinished."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ove.config import SelectionConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import BadShard
from ove.files import digest, inside, write_json
from ove.shards.schema import SHARD_SCHEMA_VERSION

MANIFEST = "manifest.json"


@dataclass(frozen=True)
class Shard:
    """One ArrayRecord file of a set."""

    file: str
    """Name within the folder."""
    records: int
    bytes: int
    sha256: str
    """Of the whole file, hexadecimal."""


@dataclass(frozen=True)
class Manifest:
    """The shards of a set in order, and what all their records have in common."""

    shards: list[Shard]
    records: int
    """In all shards together."""
    kind: str
    """Of all records: "video" or "image"."""
    size_px: int | None
    patch_px: int | None
    grid_tyx: tuple[int, int, int] | None
    """(T, Y, X) of every record; like the two above, None for pictures, which differ in size."""
    forms: list[str]
    """How every record stores pixels of videos: some of "frames", "h264" and "mosaics"; empty for pictures."""
    mosaics: dict[str, Any] | None
    """How the patches of the mosaics were selected: `budget_tokens`, and the keys of `SelectionConfig`."""
    classes: list[str]
    """Class names of the records, sorted; empty without any."""
    banks: dict[str, int]
    """Number of class centers of each bank that records have labels of."""
    labels_per_record: dict[str, tuple[int, int]]
    """The fewest (0 if some have none) and the most labels of a record, by bank."""
    made_with: dict[str, Any]
    """The configuration of the run."""
    fingerprint: str
    """Changes with any byte of any shard."""

    def video_config(self, selection: SelectionConfig) -> VideoConfig:
        """Returns the settings that clips were made with, at the grid that they have; `selection` is the reader's own."""
        values = dict(self.made_with.get("video", {}))
        if self.grid_tyx:
            values |= {"n_frames": self.grid_tyx[0], "size_px": self.size_px, "patch_px": self.patch_px}
        return replace(from_mapping(VideoConfig, values, "video."), selection=selection)


def fingerprint_of_shards(shards: Sequence[Shard]) -> str:
    """Returns the SHA-256 of a set's schema version and its shards' checksums, hexadecimal."""
    return digest({"schema_version": SHARD_SCHEMA_VERSION, "shards": [shard.sha256 for shard in shards]})


def write_manifest(folder: Path, manifest: Manifest) -> None:
    """Writes `manifest.json`, whole or not at all."""
    write_json(folder / MANIFEST, {"schema_version": SHARD_SCHEMA_VERSION, **asdict(manifest)})


def read_manifest(folder: Path) -> Manifest:
    """Reads the manifest of a shard folder; BadShard if it is missing, damaged or of another version."""
    if folder.exists() and not folder.is_dir():
        raise BadShard(f"{folder}: is a file, not a shard folder; give the folder that `ove shards` wrote.")
    if not folder.is_dir():
        raise BadShard(f"{folder}: no such shard folder; write one with `ove shards --videos INPUT --out {folder}`.")
    path = folder / MANIFEST
    if not path.is_file():
        raise BadShard(
            f"{folder}: holds no {MANIFEST}, so it is no finished shard folder; "
            f"run (again) `ove shards --videos INPUT --out {folder}`."
        )
    try:
        values = json.loads(path.read_text(encoding="utf-8"))
        version = values.pop("schema_version")
        if version == SHARD_SCHEMA_VERSION:
            shards = [Shard(**shard) for shard in values.pop("shards")]
            for shard in shards:
                inside(folder, shard.file, path, BadShard)
            grid = values.pop("grid_tyx")
            spans = {bank: (int(low), int(high)) for bank, (low, high) in values.pop("labels_per_record").items()}
            return Manifest(shards=shards, grid_tyx=grid and tuple(grid), labels_per_record=spans, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadShard(f"{path}: is damaged ({type(error).__name__}: {error}); write the shards again.") from error
    raise BadShard(f"{path}: has schema_version {version!r}, this code reads {SHARD_SCHEMA_VERSION}; write the shards again.")
