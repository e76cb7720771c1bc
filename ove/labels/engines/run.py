"""Runs an offline step on all its shards: skips finished ones, retries failed ones, sets aside those that keep failing."""

import functools
from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from ove.config import EnginesConfig
from ove.errors import BadShard, ConfigError, OveError
from ove.files import remove_leftovers, write_json_lines
from ove.labels.engines.jobs import Done, Job, Process, finish, read_done
from ove.labels.parts import working
from ove.workers import Died, outcomes

DEAD_LETTERS = "dead-letters.jsonl"
Attempt = Callable[[Job], str | None]
"""Runs a job; returns None, or why it failed."""
Outcomes = Callable[[Attempt, Sequence[Job]], Generator[tuple[int, str | None], Any, None]]
"""An engine: yields (index of the job, None or why it failed) for every job as it ends.

A job whose process dies or exceeds the time limit fails. Close the generator to stop early.
"""


@dataclass(frozen=True)
class DeadLetter:
    """A job that failed in every attempt."""

    name: str
    reason: str
    """Of the last failure."""
    attempts: int


@dataclass(frozen=True)
class StepProgress:
    """Progress of a step, in shards."""

    done: int
    """Finished in this run or in an earlier one."""
    total: int
    earlier: int
    """Of those done: finished by an earlier run."""
    failed: int
    """Waiting for another attempt, or set aside."""


@dataclass(frozen=True)
class Finished:
    """The results of a step."""

    done: dict[str, Done]
    """Finished jobs by name, in the given order."""
    dead: list[DeadLetter]


def run(
    process: Process,
    jobs: Sequence[Job],
    folder: Path,
    config: EnginesConfig,
    progress: Callable[[StepProgress], None],
    engine: Outcomes | None = None,
) -> Finished:
    """Runs all jobs whose output in `folder` is missing; `engine` distributes them (default: local processes).

    A job that raises, kills its process or exceeds the time limit is retried after all others, `config.retries` times; then it
    goes to `dead-letters.jsonl`, and runs again when the step is started again. A ConfigError ends the step at once, for it
    would be the same for every shard. BadShard if more than `config.max_dead_share` of the jobs are set aside.
    """
    with working(folder, remedy="wait for it to end"):
        todo = [job for job in jobs if read_done(folder, job) is None]
        dead = _attempts(process, todo, len(jobs), folder, config, progress, engine or local(config))
        remove_leftovers(folder)  # a worker that is not quite dead notices, and its output is not used
        if dead:
            write_json_lines(folder / DEAD_LETTERS, map(asdict, dead))
        else:
            (folder / DEAD_LETTERS).unlink(missing_ok=True)
    if len(dead) > config.max_dead_share * len(jobs):
        raise BadShard(
            f"{folder / DEAD_LETTERS}: {len(dead)} of {len(jobs)} shards failed {dead[0].attempts} times, more than "
            f"engines.max_dead_share = {config.max_dead_share:g} allows; the first: {dead[0].name}: {dead[0].reason}"
        )
    names = {letter.name for letter in dead}
    found = {job.name: read_done(folder, job) for job in jobs if job.name not in names}
    missing = [name for name, done in found.items() if done is None]
    if missing:
        raise BadShard(
            f"{folder / missing[0]}: a worker wrote it, and it is not here; the folder must lie on storage that all "
            f"machines share ({len(missing)} files are missing)."
        )
    return Finished({name: done for name, done in found.items() if done is not None}, dead)


def local(config: EnginesConfig) -> Outcomes:
    """Returns the engine that runs `config.workers` processes on this machine."""

    def run(attempt: Attempt, jobs: Sequence[Job]) -> Generator[tuple[int, str | None], Any, None]:
        limit_s = config.time_limit_s if config.workers else None
        with closing(outcomes(attempt, jobs, config.workers, limit_s)) as results:
            for index, outcome in results:
                yield index, str(outcome) if isinstance(outcome, Died) else outcome

    return run


def _attempts(
    process: Process,
    todo: Sequence[Job],
    total: int,
    folder: Path,
    config: EnginesConfig,
    progress: Callable[[StepProgress], None],
    engine: Outcomes,
) -> list[DeadLetter]:
    """Runs the jobs in rounds, each with the failures of the one before; returns those that are left."""
    earlier = done = total - len(todo)
    pending, reasons = list(todo), dict[str, str]()
    progress(StepProgress(done, total, earlier, 0))
    for _ in range(1 + config.retries):
        if not pending:
            break
        failed = []
        with closing(engine(functools.partial(_try, process, folder), pending)) as reasons_by_job:
            for index, reason in reasons_by_job:
                if reason is None:
                    done += 1
                    reasons.pop(pending[index].name, None)
                else:
                    failed.append(index)
                    reasons[pending[index].name] = reason
                progress(StepProgress(done, total, earlier, len(reasons)))
        pending = [pending[index] for index in sorted(failed)]
    return [DeadLetter(job.name, reasons[job.name], 1 + config.retries) for job in pending]


def _try(process: Process, folder: Path, job: Job) -> str | None:
    """Runs a job; returns None, or why it failed: the border where a bad shard is set aside."""
    try:
        finish(process, folder, job)
    except ConfigError:
        raise  # would be the same for every shard
    except OveError as error:
        return str(error)
    except Exception as error:  # any error on one shard becomes the reason of a dead letter
        return f"unforeseen {type(error).__name__}: {error}"
    return None
