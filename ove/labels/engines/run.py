"""All shards of an offline step: the unfinished ones are run, the failed ones retried, the hopeless ones set aside."""

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
"""Runs a job: None, or why it failed."""
Outcomes = Callable[[Attempt, Sequence[Job]], Generator[tuple[int, str | None], Any, None]]
"""An engine: (index of the job, None or why it failed) of every job, in the order in which they are ready.

A job whose process dies or takes too long comes out as failed. Whoever stops before the end must close the generator.
"""


@dataclass(frozen=True)
class DeadLetter:
    """A job that failed every time."""

    name: str
    reason: str
    """Of the last failure."""
    attempts: int


@dataclass(frozen=True)
class StepProgress:
    """How far a step is, in shards."""

    done: int
    """Finished in this run or in an earlier one."""
    total: int
    earlier: int
    """Of those done: finished by an earlier run."""
    failed: int
    """Waiting for another attempt, or set aside."""


@dataclass(frozen=True)
class Finished:
    """What a step left behind."""

    done: dict[str, Done]
    """The finished jobs by name, in the order in which they were given."""
    dead: list[DeadLetter]


def run(
    process: Process,
    jobs: Sequence[Job],
    folder: Path,
    config: EnginesConfig,
    progress: Callable[[StepProgress], None],
    engine: Outcomes | None = None,
) -> Finished:
    """Makes the outputs of all jobs in `folder`; the ones that are there already are left alone.

    `engine` hands the jobs out (default: local processes). A job that raises, kills its process or takes longer than the time
    limit is tried again after all others, `config.retries` times; what fails to the end goes to `dead-letters.jsonl`, and is
    tried anew when the same step is started again. ConfigError ends the step at once, for it would be the same for every
    shard. More than `config.max_dead_share` of the jobs set aside raise BadShard.
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
    """The engine that works in `config.workers` processes of this machine."""

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
    """Runs the jobs in rounds, each with what failed in the one before; whatever is left over at the end is dead."""
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
    """The border where a shard that fails is set aside: None, or the reason why it failed."""
    try:
        finish(process, folder, job)
    except ConfigError:
        raise  # would be the same for every shard
    except OveError as error:
        return str(error)
    except Exception as error:  # whatever the step raises over one shard: it goes to the dead letters with its reason
        return f"unforeseen {type(error).__name__}: {error}"
    return None
