"""Videos → a folder of shards: group by group, each group finished once and for all."""

import fcntl
import functools
import hashlib
import os
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordWriter

from ove.config import ShardsConfig
from ove.errors import BadClip, BadShard, ConfigError
from ove.shards.manifest import (
    MANIFEST,
    Manifest,
    Shard,
    fingerprint_of,
    publish,
    temporary_name,
    write_manifest,
)
from ove.shards.markers import (
    BankLabels,
    Form,
    Group,
    inputs_of,
    marker_path,
    merged,
    read_group,
    shard_path,
    write_group,
)
from ove.shards.quarantine import BadFile, write_quarantine
from ove.shards.schema import Record, VideoRecord, kind_of, pack
from ove.shards.sources import InputFile
from ove.shards.workers import Died, outcomes

QUARANTINE = "quarantine.jsonl"
_OWN_FILES = re.compile(r"shard-(\d+)\.(arrayrecord|done\.json)")


@dataclass(frozen=True)
class Progress:
    """How far a run is, in files."""

    done: int
    """Finished in this run or in an earlier one."""
    total: int
    earlier: int
    """Of those done: finished by an earlier run."""
    bad: int


@dataclass(frozen=True)
class Summary:
    """What lies in the folder when all is done."""

    n_good: int
    bad: list[BadFile]
    n_shards: int
    n_earlier: int
    """Files (good and bad) that an earlier run had finished."""
    fingerprint: str


@dataclass(frozen=True)
class _Outcome:
    """One file's record as bytes, with what the manifest wants to know of it."""

    packed: bytes
    label: str | None
    banks: dict[str, BankLabels]
    form: Form


def write_shards(
    videos: Sequence[InputFile],
    out: Path,
    make_record: Callable[[InputFile], Record],
    config: ShardsConfig,
    made_with: Mapping[str, Any],
    progress: Callable[[Progress], None],
    limit_s: float | None = None,
) -> Summary:
    """Writes the record of every usable video into shards in `out`; what is unusable goes to `quarantine.jsonl`.

    Videos are taken in the order of their keys, `config.records_per_shard` to a group and shard. A finished group has a
    marker with the digest of its inputs (files, sizes, dates, `made_with`) and is skipped as long as that is the same; a run
    that was killed leaves only temporary files, which nobody reads and the next run removes. The manifest comes last.
    `make_record` must be picklable; it runs in `config.workers` processes, which are ended when one video takes longer than
    `limit_s` seconds. No usable video at all raises BadClip.
    """
    out.mkdir(parents=True, exist_ok=True)
    size = config.records_per_shard
    ordered = sorted(videos, key=lambda video: video.key)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    with _locked(out):
        for leftover in out.glob(".*.tmp"):
            leftover.unlink()
        inputs = [inputs_of(group, made_with) for group in groups]
        finished = {n: done for n, digest_ in enumerate(inputs) if (done := read_group(out, n, digest_))}
        surplus = [p for p in out.iterdir() if (m := _OWN_FILES.fullmatch(p.name)) and int(m[1]) >= len(groups)]
        if surplus or len(finished) < len(groups):
            # From here until the end the folder is unfinished, and a reader must be told so.
            (out / MANIFEST).unlink(missing_ok=True)
        for path in surplus:
            path.unlink()
        n_earlier = sum(len(groups[n]) for n in finished)
        for n, done in _make_groups(out, groups, inputs, finished, make_record, config, progress, limit_s):
            finished[n] = done
        return _close(out, [finished[n] for n in range(len(groups))], made_with, n_earlier)


def _make_groups(
    out: Path,
    groups: list[list[InputFile]],
    inputs: list[str],
    finished: Mapping[int, Group],
    make_record: Callable[[InputFile], Record],
    config: ShardsConfig,
    progress: Callable[[Progress], None],
    limit_s: float | None,
) -> Iterator[tuple[int, Group]]:
    """Makes the records of all unfinished groups in parallel, and writes each group as soon as it is complete."""
    todo = [(n, place) for n, group in enumerate(groups) if n not in finished for place in range(len(group))]
    earlier = sum(len(groups[n]) for n in finished)
    total, bad = earlier + len(todo), sum(len(done.bad) for done in finished.values())
    progress(Progress(earlier, total, earlier, bad))
    gathered: dict[int, dict[int, _Outcome | BadFile]] = {}
    files = [groups[n][place] for n, place in todo]
    with closing(outcomes(functools.partial(_try, make_record), files, config.workers, limit_s)) as results:
        for count, (index, outcome) in enumerate(results, 1):
            n, place = todo[index]
            if isinstance(outcome, Died):
                path = files[index].path
                outcome = BadFile(str(path), f"{path}: {outcome}; the file may be damaged: leave it out or re-encode it.")
            gathered.setdefault(n, {})[place] = outcome
            bad += isinstance(outcome, BadFile)
            if len(gathered[n]) == len(groups[n]):
                in_order = [by_place for _, by_place in sorted(gathered.pop(n).items())]
                yield n, _finish_group(out, n, inputs[n], in_order)
            progress(Progress(earlier + count, total, earlier, bad))


def _try(make_record: Callable[[InputFile], Record], video: InputFile) -> _Outcome | BadFile:
    """The border where a bad file is set aside, with its reason, so that the run goes on with the others."""
    try:
        record = make_record(video)
        banks = {bank: BankLabels(1, len(found), len(found), int(found.max())) for bank, found in record.labels.items()}
        return _Outcome(pack(record), record.label, banks, _form_of(record))
    except ConfigError:
        raise  # would be the same for every file
    except BadClip as error:
        return BadFile(str(video.path), str(error), error.position)
    except Exception as error:
        return BadFile(str(video.path), f"{video.path}: unforeseen {type(error).__name__}: {error}")


def _form_of(record: Record) -> Form:
    if isinstance(record, VideoRecord):
        return Form(kind_of(record), record.size_px, record.patch_px, record.grid_tyx, record.forms)
    return Form(kind_of(record))


def _finish_group(out: Path, n: int, inputs: str, outcomes_: Sequence[_Outcome | BadFile]) -> Group:
    """Writes the shard of a group, then its marker; both appear whole or not at all."""
    good = [o for o in outcomes_ if isinstance(o, _Outcome)]
    bad = [o for o in outcomes_ if isinstance(o, BadFile)]
    marker_path(out, n).unlink(missing_ok=True)
    path = shard_path(out, n)
    shard = None
    if good:
        temporary = temporary_name(path)
        # One record a chunk: a reader that wants one record reads no other. JPEG does not shrink any further.
        writer = ArrayRecordWriter(str(temporary), "group_size:1,uncompressed")
        for outcome in good:
            writer.write(outcome.packed)
        writer.close()
        with temporary.open("rb") as handle:
            sha256 = hashlib.file_digest(handle, "sha256").hexdigest()
        shard = Shard(path.name, len(good), temporary.stat().st_size, sha256)
        publish(temporary, path)
    else:
        path.unlink(missing_ok=True)
    classes = sorted({o.label for o in good if o.label is not None})
    done = Group(inputs, shard, _common_form(o.form for o in good), classes, merged(o.banks for o in good), bad)
    write_group(out, n, done)
    return done


def _close(out: Path, finished: Sequence[Group], made_with: Mapping[str, Any], n_earlier: int) -> Summary:
    """Writes the quarantine list and, last of all, the manifest."""
    bad = [entry for done in finished for entry in done.bad]
    write_quarantine(out / QUARANTINE, bad)
    shards = [done.shard for done in finished if done.shard is not None]
    form = _common_form(done.form for done in finished if done.form is not None)
    if form is None:
        (out / MANIFEST).unlink(missing_ok=True)
        reason = f"; the first: {bad[0].reason}" if bad else ""
        raise BadClip(f"none of the {len(bad)} input files is a usable video (reasons in {out / QUARANTINE}){reason}")
    records = sum(shard.records for shard in shards)
    banks = merged(done.banks for done in finished)
    manifest = Manifest(
        shards=shards,
        records=records,
        kind=form.kind,
        size_px=form.size_px,
        patch_px=form.patch_px,
        grid_tyx=form.grid_tyx,
        forms=list(form.forms),
        mosaics=None,
        classes=sorted({label for done in finished for label in done.classes}),
        banks={bank: found.largest + 1 for bank, found in banks.items()},
        labels_per_record={
            bank: (found.fewest if found.records == records else 0, found.most) for bank, found in banks.items()
        },
        made_with=dict(made_with),
        fingerprint=fingerprint_of(shards),
    )
    write_manifest(out, manifest)
    return Summary(records, bad, len(shards), n_earlier, manifest.fingerprint)


def _common_form(forms: Iterator[Form]) -> Form | None:
    found = set(forms)
    if len(found) > 1:
        raise BadShard(f"records of one set differ: {' and '.join(sorted(map(str, found)))}; make them alike.")
    return found.pop() if found else None


@contextmanager
def _locked(out: Path) -> Iterator[None]:
    """Keeps a second run out of the folder; the lock ends with this process, however that ends."""
    handle = os.open(out / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        try:
            fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise BadShard(f"{out}: another run is writing to this folder; wait for it or give another --out.") from None
        yield
    finally:
        os.close(handle)
