"""The folder of a run: one run trains in it at a time, and what cannot be written to it is named."""

import contextlib
import json
import os
import platform
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import jax
from jax.experimental.compilation_cache import compilation_cache as jax_cache

from ove.config import RunConfig
from ove.config.mapping import to_mapping
from ove.distributed import Processes
from ove.errors import ConfigError
from ove.files import NO_LOCKS, append_json_line, lock, naming, reopen_json_lines, write_json, write_text
from ove.paths import check_names, holds_keys, output_folder
from ove.stream.batch_pipeline import OnBad, Pipeline
from ove.stream.head_stream import BadRecord
from ove.tokens.preprocessing import OF_RUN, save_preprocessing
from ove.tokens.read import InputConfig, InputMode

_LOOK_S = 1.0
_CACHE, _CACHE_FROM_S = "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs"


def claimable(given: Path) -> Path:
    """Returns the folder for a run; ConfigError as in `output_folder`, and for files of a run's names that are not a run's."""
    workdir = output_folder(given, "--workdir")
    ours = holds_keys(workdir / "config.json", "train", "batches", "encoder") or (workdir / "checkpoints").is_dir()
    check_names(workdir, ("config.json", "parameters.txt", "metrics.jsonl", OF_RUN), "--workdir", ours)
    return workdir


@contextlib.contextmanager
def claimed(workdir: Path, processes: Processes, report: Callable[[str], None]) -> Iterator[None]:
    """Holds the workdir (`held`) in the first process for all, and refuses in all alike; waits at most their limit."""
    with contextlib.ExitStack() as stack:
        refusal = ""
        if processes.index == 0:
            try:
                stack.enter_context(held(workdir, processes.limit_s, report))
            except ConfigError as error:
                refusal = str(error)
        refusal = processes.all_gather("the claim of the workdir", refusal, 2 * processes.limit_s)[0]
        if refusal:
            processes.end_together("the claim of the workdir")
            raise ConfigError(refusal)
        yield


@contextlib.contextmanager
def held(workdir: Path, wait_s: float, report: Callable[[str], None]) -> Iterator[None]:
    """Locks `workdir`, which must exist, against other runs; ConfigError if one trains in it. The lock ends with the process.

    A run on this machine is refused at once. One on another machine may be gone, and only its lock not yet (a file server
    gives up the locks of a lost host after a while), so that is waited for, `wait_s` long. Where a file system has no locks,
    `report` is told so.
    """
    handle = os.open(workdir / ".lock", os.O_CREAT | os.O_RDWR, 0o644)
    try:
        deadline, is_told = time.monotonic() + wait_s, False
        while not _taken(handle, workdir, report):
            host, process = _owner(handle)
            if host == platform.node() or time.monotonic() > deadline:
                raise ConfigError(
                    f"{workdir}: another run trains in this folder (process {process} on {host}); let it end, or give another "
                    "--workdir."
                )
            if not is_told:
                report(
                    f"{workdir}: process {process} on {host} trains in this folder; waiting up to {wait_s:g} s for its end …"
                )
            is_told = True
            time.sleep(min(_LOOK_S, wait_s))
        with naming(workdir):
            os.truncate(handle, 0)
            os.pwrite(handle, json.dumps([platform.node(), os.getpid()]).encode(), 0)
        yield
    finally:
        os.close(handle)


def _taken(handle: int, workdir: Path, report: Callable[[str], None]) -> bool:
    try:
        return lock(handle)
    except OSError as error:
        if error.errno not in NO_LOCKS:
            raise
        report(f"{workdir}: this file system has no locks; take care that no other run trains in this folder.")
        return True


def _owner(handle: int) -> tuple[str, str]:
    """Returns host and number of the process that holds the lock, as it has noted them."""
    try:
        host, process = json.loads(os.pread(handle, 4096, 0))
    except (ValueError, TypeError):  # it is about to write
        return "a machine that has not said its name yet", "?"
    return str(host), str(process)


@contextlib.contextmanager
def compilation_cache(setting: str, workdir: Path) -> Iterator[None]:
    """Keeps compiled programs where `train.compilation_cache` says, for the runs after this one.

    In a folder that several processes see, the first writes for all; whoever can write to it can have its code run by all.
    """
    given: str | None = getattr(jax.config, _CACHE)
    if setting == "auto" and (given or jax.default_backend() == "cpu"):  # a CPU's programs fit CPUs of its kind alone
        yield
        return
    folder = workdir / "compiled" if setting == "auto" else Path(setting) if setting else None
    before = {name: getattr(jax.config, name) for name in (_CACHE, _CACHE_FROM_S)}
    try:
        _use({_CACHE: folder and str(folder.resolve()), _CACHE_FROM_S: 0.0})
        yield
    finally:
        _use(before)


def _use(settings: Mapping[str, Any]) -> None:
    for name, value in settings.items():
        jax.config.update(name, value)
    jax_cache.reset_cache()  # or the folder would stay that of the first program


Report = Callable[[str], None]


def save_config(config: RunConfig, workdir: Path) -> None:
    """Writes `workdir/config.json`."""
    write_json(workdir / "config.json", to_mapping(config), indent=2)


def save_inputs(config: RunConfig, pipeline: Pipeline, workdir: Path) -> None:
    """Writes how the samples of the run (of its first head) were made, for whoever uses the encoder."""
    head = next((head for head in config.batches.heads if head.bank == "vid"), config.batches.heads[0])
    stream = pipeline.streams[head.bank]
    video = stream.sources[0].shards.manifest.video_config(config.batches.selection)
    if head.bank == "vid":
        budget = head.budget_tokens or config.batches.budget_tokens
        mode: InputMode = "codec" if config.batches.share_codec else "frames"
        inputs = InputConfig(mode, video, budget, max(1, budget // video.grid**2))
    else:
        inputs = InputConfig("image", video, size_px=head.size_px or None)
    save_preprocessing(workdir / OF_RUN, inputs)


def save_table(table: str, workdir: Path, report: Report) -> None:
    """Writes the table of the parameters to `workdir/parameters.txt`, and to the screen."""
    write_text(workdir / "parameters.txt", table + "\n")
    report(table)


def quarantine(path: Path, report: Report) -> OnBad:
    """Notes each bad record once in a file, over restarts too, and on the screen."""
    noted = {(entry["shards"], entry["record"]) for entry in reopen_json_lines(path)}

    def note(bad: BadRecord) -> None:
        if (bad.shards, bad.record) not in noted:
            noted.add((bad.shards, bad.record))
            report(f"record {bad.record} of {bad.shards} is set aside: {bad.reason}")
            append_json_line(path, vars(bad))

    return note
