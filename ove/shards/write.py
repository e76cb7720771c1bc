"""Inputs → a folder of shards, group by group; a finished group is not made again."""

import functools
import os
import re
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ove.config import ShardsConfig
from ove.errors import BadClip, BadShard, ConfigError
from ove.files import DISK_FULL, lock, locked, remove_leftovers
from ove.shards.assemble import Packed, WriteSummary, finish_folder, finish_group, packed
from ove.shards.labels import remove_labels
from ove.shards.manifest import MANIFEST
from ove.shards.markers import Group, inputs_of, read_group
from ove.shards.same_set import as_noted, check_same_set, note_inputs
from ove.shards.schema import Record
from ove.sources.folders import InputFile
from ove.sources.quarantine import QUARANTINE, BadFile, write_quarantine
from ove.workers import Died, cores, outcomes

_SCRATCH = ".scratch-"
_OWN_FILES = re.compile(r"shard-(\d+)\.(arrayrecord|done\.json)")


@dataclass(frozen=True)
class WriteProgress:
    """How far a run is, in files."""

    done: int
    """In this run or an earlier one."""
    total: int
    earlier: int
    """Of those done: in an earlier run."""
    bad: int


def write_shards(
    files: Sequence[InputFile],
    out: Path,
    make_record: Callable[[InputFile], Record],
    config: ShardsConfig,
    made_with: Mapping[str, Any],
    progress: Callable[[WriteProgress], None],
    limit_s: float | None = None,
    bad: Sequence[BadFile] = (),
    replace: bool = False,
    defaults: Mapping[str, Any] | None = None,
) -> WriteSummary:
    """Writes the record of every usable input into shards in `out`, and the others to `quarantine.jsonl`.

    Inputs are taken in the order of their keys, `config.records_per_shard` to a group and shard. A finished group has a
    marker with the digest of its inputs (files, sizes, dates, labels, `made_with`) and is skipped while that is unchanged; a
    killed run leaves only temporary files, which the next run removes. The manifest is written last. `make_record` must be
    picklable; it runs in `config.workers` processes, whose number changes no byte, for at most `limit_s` seconds an input.
    `bad` are inputs already known to be unusable. BadClip if no input is usable, ConfigError if `out` holds shards of other
    settings or inputs (`check_same_set`), unless they are to be replaced, with the labels beside them. `defaults` of
    `made_with` stand for keys that an older set lacks.
    """
    out.mkdir(parents=True, exist_ok=True)
    size = config.records_per_shard
    ordered = sorted(files, key=lambda file: file.key)
    groups = [ordered[start : start + size] for start in range(0, len(ordered), size)]
    busy = BadShard(f"{out}: another run is writing to this folder; wait for it or give another --out.")
    with locked(out / ".lock", busy):
        remove_leftovers(out)
        made_with = as_noted(out, made_with, defaults or {})
        inputs = [inputs_of(group, made_with) for group in groups]
        finished = {n: done for n, digest_ in enumerate(inputs) if (done := read_group(out, n, digest_))}
        surplus = [p for p in out.iterdir() if (m := _OWN_FILES.fullmatch(p.name)) and int(m[1]) >= len(groups)]
        changes = bool(surplus) or len(finished) < len(groups)
        if not replace:
            check_same_set(out, files, made_with, defaults or {}, goes_on=bool(finished))
        elif changes:
            remove_labels(out)
        note_inputs(out, files, made_with)
        if changes:
            # From here on the folder is unfinished, which its readers must see.
            (out / MANIFEST).unlink(missing_ok=True)
        for path in surplus:
            path.unlink()
        n_earlier = sum(len(groups[n]) for n in finished)
        try:
            for n, done in _make_groups(out, groups, inputs, finished, make_record, config, progress, limit_s):
                finished[n] = done
        except OSError:  # a full disk: what is known of bad files is kept, if there is room for it
            with suppress(OSError):
                write_quarantine(out / QUARANTINE, [*bad, *(entry for n in sorted(finished) for entry in finished[n].bad)])
            raise
        in_order = [finished[n] for n in range(len(groups))]
        manifest = finish_folder(out, in_order, bad, config.centers, made_with)
    set_aside = [*bad, *(entry for group in in_order for entry in group.bad)]
    return WriteSummary(manifest.records, set_aside, len(manifest.shards), n_earlier, manifest.fingerprint)


@contextmanager
def scratch_folder(out: Path) -> Iterator[Path]:
    """Yields a hidden folder in `out` for temporary files; removed at the end or, after a kill, by the next run."""
    out.mkdir(parents=True, exist_ok=True)
    for left in out.glob(f"{_SCRATCH}*"):
        handle = os.open(left, os.O_RDONLY)
        try:
            if lock(handle):  # its run has ended
                shutil.rmtree(left)
        finally:
            os.close(handle)
    folder = Path(tempfile.mkdtemp(prefix=_SCRATCH, dir=out))
    handle = os.open(folder, os.O_RDONLY)
    try:
        lock(handle)
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)
        os.close(handle)


def _make_groups(
    out: Path,
    groups: list[list[InputFile]],
    inputs: list[str],
    finished: Mapping[int, Group],
    make_record: Callable[[InputFile], Record],
    config: ShardsConfig,
    progress: Callable[[WriteProgress], None],
    limit_s: float | None,
) -> Iterator[tuple[int, Group]]:
    """Makes the records of all unfinished groups in parallel; writes each group when it is complete."""
    todo = [(n, place) for n, group in enumerate(groups) if n not in finished for place in range(len(group))]
    earlier = sum(len(groups[n]) for n in finished)
    total, bad = earlier + len(todo), sum(len(done.bad) for done in finished.values())
    progress(WriteProgress(earlier, total, earlier, bad))
    gathered: dict[int, dict[int, Packed | BadFile]] = {}
    files = [groups[n][place] for n, place in todo]
    workers = min(cores() if config.workers is None else config.workers, len(files))
    make = functools.partial(_try, make_record, config.centers)
    with closing(outcomes(make, files, workers, limit_s)) as results:
        for count, (index, outcome) in enumerate(results, 1):
            n, place = todo[index]
            if isinstance(outcome, Died):
                name = files[index].name
                outcome = BadFile(name, f"{name}: {outcome}; the file may be damaged: leave it out or re-encode it.")
            gathered.setdefault(n, {})[place] = outcome
            bad += isinstance(outcome, BadFile)
            if len(gathered[n]) == len(groups[n]):
                in_order = [by_place for _, by_place in sorted(gathered.pop(n).items())]
                yield n, finish_group(out, n, inputs[n], in_order)
            progress(WriteProgress(earlier + count, total, earlier, bad))


def _try(make_record: Callable[[InputFile], Record], centers: Mapping[str, int], file: InputFile) -> Packed | BadFile:
    """Sets a bad file aside, with its reason, so that the run continues with the others."""
    try:
        return packed(make_record(file), centers)
    except ConfigError:
        raise  # the same for every file
    except BadClip as error:
        return BadFile(file.name, str(error), error.position)
    except OSError as error:
        if error.errno in DISK_FULL:
            raise  # not the file's fault
        return BadFile(file.name, f"{file.name}: unforeseen {type(error).__name__}: {error}")
    except Exception as error:  # whatever a decoder raises: it goes to the quarantine list with its reason
        return BadFile(file.name, f"{file.name}: unforeseen {type(error).__name__}: {error}")
