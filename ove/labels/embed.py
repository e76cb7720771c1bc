"""Computes a teacher's embeddings of a shard set, in files that are each made once."""

import json
import logging
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
from jaxtyping import Float32, Int64, UInt64
from safetensors.numpy import save_file

from ove.config import LabelsConfig, bounded_json, read_bounded_json
from ove.encoder.published.weight_files import Tensors, read_safetensors
from ove.errors import BadCheckpoint, BadShard, ConfigError
from ove.files import atomic_write, digest, write_json
from ove.labels.clusters.points import Points
from ove.labels.parts import WHOLE, WorkPart, name_of
from ove.labels.prepare import PreparedSample, UnreadableSample, read_samples
from ove.labels.teachers.teacher import Teacher, teacher_identity
from ove.records import BankName
from ove.shards.shard_set import ShardSet

ABOUT = "embeddings.json"
_LOG = logging.getLogger(__name__)


@dataclass(frozen=True)
class Embedded:
    """The embeddings of all readable records of a shard set, in order."""

    points: Points
    """Mapped from files."""
    records: Int64[np.ndarray, "N"]
    """Index of each record in its shard set, ascending."""
    hashes: UInt64[np.ndarray, "N 2"]
    """Hash of the decoded pixels that the teacher saw: equal for equal pictures of equal size."""
    pixels: Int64[np.ndarray, "N"]
    """Height times width of the picture."""
    bad: dict[int, str]
    """Unreadable records, and why."""
    identity: str
    """Digest of the records and of all that decides the embeddings."""
    teacher: dict[str, Any]
    """`teacher_identity`."""


def embed_shards(
    shards: ShardSet,
    bank: BankName,
    teacher: Teacher,
    out: Path,
    config: LabelsConfig,
    part: WorkPart = WHOLE,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the embeddings of a bank into `out`, `chunk_records` records a file, and returns how many records were new.

    Files of the same records and teacher are kept; those of others are deleted when all of these are there. `part` (i, n):
    every n-th file from the i-th on. `progress(done, total)` counts records. Unreadable records are left out and listed;
    BadShard past `max_bad_share` of a file, ConfigError for embeddings that are not finite.
    """
    out.mkdir(parents=True, exist_ok=True)
    about = _about(shards, bank, config)
    write_json(out / ABOUT, about)
    numbers = range(part[0], _count(about), part[1])
    length = config.chunk_records
    total = sum(min(length, len(shards) - n * length) for n in numbers)
    done = fresh = 0

    def tell(n: int) -> None:
        progress(done + n, total)

    for number in numbers:
        members = range(number * length, min((number + 1) * length, len(shards)))
        path = _chunk(out, about, number)
        if not path.is_file():
            _write(path, name_of(part), shards, bank, teacher, config, members, tell)
            fresh += len(members)
        done += len(members)
        progress(done, total)
    _forget_others(out, about)
    return fresh


def open_embeddings(
    out: Path, shards: ShardSet, bank: BankName, identity: Mapping[str, Any], store: Literal["float32", "float16"]
) -> Embedded:
    """Maps what `embed_shards` wrote for these records and this `teacher_identity`; BadShard if it is missing or differs."""
    remedy = f"run `ove labels embed --shards {shards.folder}` with these settings."
    about = _read_about(out)
    if about is None:
        raise BadShard(f"{out}: holds no embeddings of the bank {bank}; {remedy}")
    if (about["fingerprint"], about["records"], about["bank"]) != (shards.fingerprint, len(shards), bank):
        raise BadShard(f"{out}: holds embeddings of other records than now lie in {shards.folder}; {remedy}")
    if about["teacher"] != dict(identity) or about["store"] != store:
        were, are = ({**teacher, "store": kind} for teacher, kind in ((about["teacher"], about["store"]), (identity, store)))
        raise BadShard(f"{out}: holds embeddings made with {were}, and the settings say {are}; {remedy}")
    files = [_chunk(out, about, number) for number in range(_count(about))]
    if lacking := _lacking(out, about):
        raise BadShard(f"{out}: lacks {len(lacking)} of {len(files)} files of embeddings, the first {lacking[0]}; {remedy}")
    tensors: list[Tensors] = []
    bad: dict[int, str] = {}
    for file in files:
        try:
            found, unreadable = _read_file(file, store)
        except (BadCheckpoint, KeyError, ValueError, TypeError, AttributeError, RecursionError) as error:
            raise BadShard(f"{file}: is damaged ({error}); delete it, then {remedy}") from error
        tensors.append(found)
        bad |= unreadable
    records, hashes, pixels = (np.concatenate([t[name] for t in tensors]) for name in ("records", "hashes", "pixels"))
    if not len(records):
        why = next(iter(bad.values()), "no reason is known")
        raise BadShard(f"{shards.folder}: none of its {len(shards)} records can be read ({why}); write the shards again.")
    widths = {t["embeddings"].shape[1] for t in tensors if len(t["records"])}
    if (np.diff(records) <= 0).any() or records[0] < 0 or records[-1] >= len(shards) or len(widths) > 1 or hashes.shape[1] != 2:
        raise BadShard(
            f"{out}: is damaged (its files do not go together); delete {files[0].name} and the others, then {remedy}"
        )
    # Files in which no record could be read have no width.
    points = Points([t["embeddings"] for t in tensors if len(t["records"])])
    return Embedded(points, records, hashes, pixels, bad, digest(about), about["teacher"])


def _write(
    path: Path,
    writer: str,
    shards: ShardSet,
    bank: BankName,
    teacher: Teacher,
    config: LabelsConfig,
    members: range,
    progress: Callable[[int], None],
) -> None:
    """Writes one file: embeddings, indices, hashes, and in its header the keys of the records."""
    at_once = max(1, teacher.pictures_at_once // (teacher.pictures_a_clip if bank == "vid" else 1))
    rows: list[np.ndarray] = []
    good: list[PreparedSample] = []
    waiting: list[PreparedSample] = []
    bad: dict[int, str] = {}
    for sample in read_samples(shards, bank, teacher, config.threads, members):
        if isinstance(sample, UnreadableSample):
            bad[sample.index] = sample.reason
            _LOG.warning("record %d of %s is left out: %s", sample.index, shards.folder, sample.reason)
        else:
            waiting.append(sample)
        if len(waiting) == at_once:
            rows.append(_embed(teacher, waiting, config.teacher))
            good, waiting = good + [replace(s, prepared=np.zeros(0)) for s in waiting], []
        progress(len(good) + len(bad))
    if waiting:
        rows.append(_embed(teacher, waiting, config.teacher))
        good += waiting
    if len(bad) > config.max_bad_share * len(members):
        index, reason = next(iter(bad.items()))
        raise BadShard(
            f"{shards.folder}: {len(bad)} of {len(members)} records cannot be read (record {index}: {reason}), more than "
            f"labels.max_bad_share = {config.max_bad_share:g} allows; write the shards again."
        )
    tensors = {
        "embeddings": np.concatenate(rows).astype(config.store) if rows else np.zeros((0, 1), config.store),
        "records": np.array([s.index for s in good], np.int64),
        "hashes": np.array([s.pixel_hash for s in good], np.uint64).reshape(-1, 2),
        "pixels": np.array([s.pixels for s in good], np.int64),
    }
    of = {"fingerprint": shards.fingerprint, "keys": [s.key for s in good], "bad": bad}
    with atomic_write(path, writer) as temporary:
        save_file(tensors, temporary, {"of": json.dumps(of)})  # one entry: several would be written in any order


def _embed(teacher: Teacher, samples: Sequence[PreparedSample], name: str) -> Float32[np.ndarray, "B E"]:
    rows = np.asarray(teacher.embed([sample.prepared for sample in samples]), np.float32)
    if rows.ndim != 2 or len(rows) != len(samples):
        raise ConfigError(f"the teacher {name} gives shape {rows.shape} for {len(samples)} samples, not a row for each.")
    wrong = ~np.isfinite(rows).all(axis=1)
    if wrong.any():
        raise ConfigError(
            f"the teacher {name} gives numbers that are not finite for {wrong.sum()} of {len(rows)} "
            f"samples, the first {samples[int(np.argmax(wrong))].key}; check its weights, and labels.compute=float32."
        )
    return rows


def _about(shards: ShardSet, bank: BankName, config: LabelsConfig) -> dict[str, Any]:
    return {
        "fingerprint": shards.fingerprint,
        "records": len(shards),
        "bank": bank,
        "teacher": teacher_identity(config),
        "chunk_records": config.chunk_records,
        "store": config.store,
    }


def _read_about(out: Path) -> dict[str, Any] | None:
    """Reads what the embeddings are of; None if they are of nothing, or it is damaged."""
    try:
        about = read_bounded_json(out / ABOUT)
        whole = type(about["chunk_records"]) is int and about["chunk_records"] > 0 and isinstance(about["teacher"], dict)
    except (FileNotFoundError, ValueError, KeyError, TypeError):
        return None
    return about if whole and {"fingerprint", "records", "bank", "store"} <= about.keys() else None


def _read_file(path: Path, store: str) -> tuple[Tensors, dict[int, str]]:
    """Reads a file of embeddings, and which records were unreadable; ValueError, KeyError or TypeError if it is damaged."""
    found, texts = read_safetensors(path)
    kinds = {"embeddings": (store, 2), "records": ("int64", 1), "hashes": ("uint64", 2), "pixels": ("int64", 1)}
    for name, kind in kinds.items():
        if (found[name].dtype.name, found[name].ndim) != kind or len(found[name]) != len(found["records"]):
            raise ValueError(f"its {name} are {found[name].dtype.name}{list(found[name].shape)}")
    return found, {int(index): str(reason) for index, reason in bounded_json(texts["of"])["bad"].items()}


def _forget_others(out: Path, about: Mapping[str, Any]) -> None:
    """Deletes embeddings of other records or settings once all of these are there; other parts may do so at the same time."""
    if not _lacking(out, about):
        for old in out.glob("chunk-*.safetensors"):
            if not old.name.startswith(_prefix(about)):
                old.unlink(missing_ok=True)


def _lacking(out: Path, about: Mapping[str, Any]) -> list[str]:
    """Returns the files that are missing; lists the folder, as on shared disks is_file can miss new files."""
    there = {path.name for path in out.glob(f"{_prefix(about)}*")}
    return [name for n in range(_count(about)) if (name := _chunk(out, about, n).name) not in there]


def _count(about: Mapping[str, Any]) -> int:
    return -(-about["records"] // about["chunk_records"])


def _prefix(about: Mapping[str, Any]) -> str:
    return f"chunk-{digest(about)[:12]}-"


def _chunk(out: Path, about: Mapping[str, Any], number: int) -> Path:
    return out / f"{_prefix(about)}{number:06d}.safetensors"
