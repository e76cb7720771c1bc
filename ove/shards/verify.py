"""Reads a shard folder from end to end, compares it with its manifest, and counts its records."""

import functools
import hashlib
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import closing
from dataclasses import dataclass, field, fields
from pathlib import Path

from ove.config import limits
from ove.errors import BadShard, Unavailable
from ove.shards.index import INDEX, Name, read_index
from ove.shards.manifest import Manifest, fingerprint_of_shards, read_manifest
from ove.shards.pictures import picture_format
from ove.shards.remote.remote_shards import local_folder
from ove.shards.schema import Record, VideoRecord, decode_frames, decode_image, decode_mosaics, kind_of
from ove.shards.shard_set import ShardSet
from ove.workers import Died, outcomes


@dataclass(frozen=True)
class Problem:
    """Something in a folder that differs from what was written."""

    file: str
    reason: str
    record: int | None = None
    """Index in the set, if it concerns one record."""


@dataclass(frozen=True)
class Verified:
    """Counts over the readable records of a folder, and its problems."""

    problems: list[Problem] = field(default_factory=list)
    records: int = 0
    bytes: int = 0
    """Of all shard files."""
    kinds: Counter[str] = field(default_factory=Counter)
    """Records by kind; so below."""
    classes: Counter[str] = field(default_factory=Counter)
    """By class name; records without one do not count."""
    sources: Counter[str] = field(default_factory=Counter)
    codecs: Counter[str] = field(default_factory=Counter)
    """Codec of a video's file; format of a stored picture."""
    forms: Counter[str] = field(default_factory=Counter)
    """Videos by each of their forms."""
    banks: Counter[str] = field(default_factory=Counter)
    """Records with labels, by bank."""
    short: Counter[int] = field(default_factory=Counter)
    """Videos of fewer frames than are stored, by their number of different frames."""


def verify(
    folder: Path | str, decode: bool = False, workers: int = 0, progress: Callable[[int, int], None] = lambda done, total: None
) -> Verified:
    """Checks every checksum and unpacks every record; with `decode` also decodes every picture.

    With `workers` processes, one shard each at a time, or one record to be decoded, for at most `LimitsConfig.record_limit_s`.
    `progress` is called with the number of shards that are done and of all. BadShard for a folder without a readable manifest.
    """
    folder = local_folder(folder)
    manifest = read_manifest(folder)
    problems = []
    if manifest.fingerprint != fingerprint_of_shards(manifest.shards) or manifest.records != sum(
        s.records for s in manifest.shards
    ):
        problems.append(Problem("manifest.json", "its totals do not agree with its list of shards"))
    by_shard: dict[int, tuple[Verified, list[Name]]] = {}
    progress(0, len(manifest.shards))
    undecodable = _undecodable(folder, manifest, workers, progress) if decode else {}
    check = functools.partial(_check_shard, folder, manifest, undecodable)
    with closing(outcomes(check, range(len(manifest.shards)), min(workers, len(manifest.shards)))) as results:
        for n, outcome in results:
            if isinstance(outcome, Died):
                outcome = Verified([Problem(manifest.shards[n].file, f"one of its records cannot be decoded: {outcome}")]), []
            by_shard[n] = outcome
            if not decode:
                progress(len(by_shard), len(manifest.shards))
    in_order = [by_shard[n] for n in range(len(manifest.shards))]
    problems += _check_index(folder, manifest, [name for _, names in in_order for name in names])
    repeated = [key for key, count in Counter(key for _, names in in_order for key, _ in names).items() if count > 1]
    problems += [Problem("manifest.json", f"the key {key} belongs to more than one record") for key in repeated]
    return functools.reduce(_together, (found for found, _ in in_order), Verified(problems))


def _check_index(folder: Path, manifest: Manifest, names: list[Name]) -> list[Problem]:
    """Returns what is wrong with the index; `names` are those of all readable records."""
    if not manifest.index:
        return []
    try:
        found = Counter(read_index(folder, manifest))
    except (BadShard, Unavailable) as error:
        return [Problem(INDEX, str(error))]
    lacking = list((Counter(names) - found).elements())
    return [Problem(INDEX, f"lacks the record {lacking[0][0]} of the class {lacking[0][1]}")] if lacking else []


def _undecodable(folder: Path, manifest: Manifest, workers: int, progress: Callable[[int, int], None]) -> dict[int, str]:
    """Decodes every record; returns why some cannot be decoded, by index, but for those that cannot be read at all."""
    reasons, n_shards = dict[int, str](), len(manifest.shards)
    decode = functools.partial(_decode_record, ShardSet(folder, manifest))
    n_records = sum(shard.records for shard in manifest.shards)
    with closing(outcomes(decode, range(n_records), min(workers, n_records), limits().record_limit_s)) as results:
        for done, (index, why) in enumerate(results, 1):
            if why is not None:
                reasons[index] = f"cannot be decoded: {why}" if isinstance(why, Died) else why
            progress(done * n_shards // n_records, n_shards)
    return reasons


def _decode_record(shards: ShardSet, index: int) -> str | None:
    """Decodes all pictures of a record; returns why they cannot be, or None."""
    try:
        record = shards.record(index)
    except (BadShard, Unavailable):
        return None  # told with its shard
    try:
        if not isinstance(record, VideoRecord):
            decode_image(record)
            return None
        every = range(len(record.frame_index))
        decode_frames(record, every)
        decode_mosaics(record)
        if record.frames and record.h264:
            decode_frames(record, every, "h264")
    except BadShard as error:
        return str(error)
    return None


def _check_shard(folder: Path, manifest: Manifest, undecodable: Mapping[int, str], n: int) -> tuple[Verified, list[Name]]:
    """Returns the findings of one shard, and the names of its records."""
    shard, shards = manifest.shards[n], ShardSet(folder, manifest)
    start = sum(s.records for s in manifest.shards[:n])
    try:
        path = shards.copy_of(shard)
    except (BadShard, Unavailable) as error:
        return Verified([Problem(shard.file, str(error))]), []
    if not path.is_file():
        return Verified([Problem(shard.file, "is missing")]), []
    found, names = Verified(bytes=path.stat().st_size), []
    with path.open("rb") as handle:
        if hashlib.file_digest(handle, "sha256").hexdigest() != shard.sha256:
            found.problems.append(Problem(shard.file, "its SHA-256 is not the one that was written"))
    for index in range(start, start + shard.records):
        try:
            record = shards.record(index)
            _check_record(record, manifest)
            if index in undecodable:
                raise BadShard(undecodable[index])
        except BadShard as error:
            found.problems.append(Problem(shard.file, str(error), index))
            continue
        names.append((record.key, record.label))
        _count(record, found)
    return _together(found, Verified(records=len(names))), names


def _check_record(record: Record, manifest: Manifest) -> None:
    """Raises BadShard for a record that differs from the manifest."""
    if kind_of(record) != manifest.kind:
        raise BadShard(f"{record.key} is of the kind {kind_of(record)}, not {manifest.kind}")
    for bank, labels in record.labels.items():
        if labels.max() >= manifest.banks.get(bank, 0):
            raise BadShard(f"{record.key} has the label {labels.max()} of the bank {bank}, of {manifest.banks.get(bank, 0)}")
    if not isinstance(record, VideoRecord):
        return
    if record.grid_tyx != manifest.grid_tyx or list(record.forms) != manifest.forms:
        raise BadShard(
            f"{record.key} has the grid {record.grid_tyx} and {', '.join(record.forms)}, not {manifest.grid_tyx} and "
            f"{', '.join(manifest.forms)}"
        )


def _count(record: Record, found: Verified) -> None:
    found.kinds[kind_of(record)] += 1
    found.banks.update(list(record.labels))
    if record.label is not None:
        found.classes[record.label] += 1
    if isinstance(record, VideoRecord):
        found.sources[record.source] += 1
        found.codecs[record.codec] += 1
        found.forms.update(record.forms)
        if record.n_distinct < len(record.frame_index):
            found.short[record.n_distinct] += 1
    else:
        found.codecs[picture_format(record.image)] += 1


def _together(a: Verified, b: Verified) -> Verified:
    return Verified(*(getattr(a, field.name) + getattr(b, field.name) for field in fields(Verified)))
