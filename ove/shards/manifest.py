"""`manifest.json`: what a shard set consists of; written last, so that a folder without one is unfinished."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from ove.config import SelectionConfig, VideoConfig, read_bounded_json
from ove.config.mapping import from_mapping
from ove.errors import BadShard
from ove.files import digest, write_json
from ove.paths import inside
from ove.shards.schema import SHARD_SCHEMA_VERSION

MANIFEST = "manifest.json"
_MOST = 1 << 53
"""Above it, numbers of a manifest are of no set that exists."""


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
    index: str = ""
    """SHA-256 of `index.jsonl`, hexadecimal; empty in sets without one, of earlier versions."""

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
        values = read_bounded_json(path)
        version = values.pop("schema_version")
        if version == SHARD_SCHEMA_VERSION:
            shards = [_shard(shard) for shard in values.pop("shards")]
            for shard in shards:
                inside(folder, shard.file, path, BadShard)
            _check_fields(values)
            grid = values.pop("grid_tyx")
            spans = {bank: (int(low), int(high)) for bank, (low, high) in values.pop("labels_per_record").items()}
            return Manifest(shards=shards, grid_tyx=grid and tuple(grid), labels_per_record=spans, **values)
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise BadShard(f"{path}: is damaged ({type(error).__name__}: {error}); write the shards again.") from error
    raise BadShard(f"{path}: has schema_version {version!r}, this code reads {SHARD_SCHEMA_VERSION}; write the shards again.")


def _shard(values: dict[str, Any]) -> Shard:
    """Returns one entry of the list of shards; ValueError if a field is of another kind than this code writes."""
    shard = Shard(**values)
    if not isinstance(shard.file, str) or not isinstance(shard.sha256, str):
        raise ValueError(f"a shard is called {shard.file!r:.80}, with the checksum {shard.sha256!r:.80}")
    if not all(type(n) is int and 0 <= n < _MOST for n in (shard.records, shard.bytes)):
        raise ValueError(f"{shard.file} has {shard.records!r:.40} records in {shard.bytes!r:.40} bytes")
    return shard


def _check_fields(values: dict[str, Any]) -> None:
    """Raises ValueError for a field of another kind than this code writes."""
    texts = values["classes"], values["forms"], [values["kind"], values["fingerprint"], values.get("index", "")]
    if not all(isinstance(part, list) and all(isinstance(text, str) for text in part) for part in texts):
        raise ValueError("classes, forms, kind, fingerprint and index must be texts")
    sizes = [values["records"], *values["banks"].values(), *(n for span in values["labels_per_record"].values() for n in span)]
    form = [values["size_px"], values["patch_px"], *(values["grid_tyx"] or [None])]
    if not all(type(n) is int and 0 <= n < _MOST for n in [*sizes, *(n for n in form if n is not None)]):
        raise ValueError("records, banks, labels_per_record, size_px, patch_px and grid_tyx must be numbers from 0 on")
    if (len(form), form.count(None)) not in ((3, 3), (5, 0)):
        raise ValueError(f"grid_tyx is {values['grid_tyx']!r:.40}, size_px {form[0]!r:.40} and patch_px {form[1]!r:.40}")
    if not isinstance(values["made_with"], dict) or not isinstance(values["mosaics"], dict | None):
        raise ValueError("made_with and mosaics must be objects")
