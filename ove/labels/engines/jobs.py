"""One shard of an offline step: a file that appears whole, and a marker that says what it was made of."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ove.files import atomic_write, sha256_of, write_json

Process = Callable[[Any, Path], Mapping[str, Any]]
"""process(argument, path) writes the output of one shard to `path` and returns what is worth knowing of it, as JSON.

It must be picklable, and give the same bytes for the same argument whenever and wherever it runs.
"""


@dataclass(frozen=True)
class Job:
    """What a step does to one shard."""

    name: str
    """Of the file it makes, within the folder of its step."""
    argument: Any
    """What `process` is given; picklable."""
    inputs: str
    """Digest of all that the output depends on: shard, settings, versions."""


@dataclass(frozen=True)
class Done:
    """A finished job, as its marker tells."""

    inputs: str
    bytes: int
    sha256: str
    """Of the output file, hexadecimal."""
    about: dict[str, Any]
    """What `process` returned."""


def finish(process: Process, folder: Path, job: Job) -> None:
    """Runs a job unless it is done: output under a temporary name, renamed, then the marker.

    May be run again at any time, after a crash or by two workers at once: each writes a temporary file of its own, and all
    of them write the same bytes.
    """
    if read_done(folder, job) is not None:
        return
    folder.mkdir(parents=True, exist_ok=True)
    done_path(folder, job.name).unlink(missing_ok=True)
    with atomic_write(folder / job.name) as temporary:
        about = process(job.argument, temporary)
        sha256, size = sha256_of(temporary), temporary.stat().st_size
    marker = {"inputs": job.inputs, "bytes": size, "sha256": sha256, "about": dict(about)}
    write_json(done_path(folder, job.name), marker)


def read_done(folder: Path, job: Job) -> Done | None:
    """The marker of a job, if it is of these inputs and its output is still there; else None."""
    try:
        done = Done(**json.loads(done_path(folder, job.name).read_text(encoding="utf-8")))
        size = (folder / job.name).stat().st_size
    except (FileNotFoundError, ValueError, TypeError):  # none, or not of this code: the job runs (again)
        return None
    return done if done.inputs == job.inputs and done.bytes == size else None


def done_path(folder: Path, name: str) -> Path:
    """The file that says that a job is done."""
    return folder / f"{name}.done.json"
