"""One shard of an offline step: its output file, and a marker with the digest of its inputs."""

import json
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ove.files import atomic_write, sha256_of, write_json

Process = Callable[[Any, Path], Mapping[str, Any]]
"""process(argument, path) writes the output of one shard to `path` and returns facts about it, as JSON.

Must be picklable, and write the same bytes for the same argument on any machine.
"""


@dataclass(frozen=True)
class Job:
    """The work of a step on one shard."""

    name: str
    """Of its output file, within the folder of the step."""
    argument: Any
    """For `process`; picklable."""
    inputs: str
    """Digest of all that the output depends on: shard, settings, versions."""


@dataclass(frozen=True)
class Done:
    """The marker of a finished job."""

    inputs: str
    bytes: int
    sha256: str
    """Of the output file, hexadecimal."""
    about: dict[str, Any]
    """What `process` returned."""


def finish(process: Process, folder: Path, job: Job) -> None:
    """Runs a job unless it is done: writes the output atomically, then the marker.

    Safe to repeat after a crash, and by two workers at once, for all write the same bytes.
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
    """Reads the marker of a job; None unless it is of these inputs and the output exists."""
    try:
        done = Done(**json.loads(done_path(folder, job.name).read_text(encoding="utf-8")))
        size = (folder / job.name).stat().st_size
    except (FileNotFoundError, ValueError, TypeError):  # missing, or from other code: the job runs (again)
        return None
    return done if done.inputs == job.inputs and done.bytes == size else None


def done_path(folder: Path, name: str) -> Path:
    """Returns the path of a job's marker."""
    return folder / f"{name}.done.json"
