"""The local engine: spawned processes of this machine."""

from collections.abc import Callable, Generator, Sequence
from contextlib import closing
from typing import Any

from ove.config import EnginesConfig
from ove.labels.engines.jobs import Job
from ove.workers import Died, outcomes

Attempt = Callable[[Job], str | None]
"""Runs a job: None, or why it failed."""
Outcomes = Callable[[Attempt, Sequence[Job]], Generator[tuple[int, str | None], Any, None]]
"""An engine: (index of the job, None or why it failed) of every job, in the order in which they are ready.

A job whose process dies or takes too long comes out as failed. Whoever stops before the end must close the generator.
"""


def local(config: EnginesConfig) -> Outcomes:
    """The engine that works in `config.workers` processes of this machine."""

    def run(attempt: Attempt, jobs: Sequence[Job]) -> Generator[tuple[int, str | None], Any, None]:
        limit_s = config.time_limit_s if config.workers else None
        with closing(outcomes(attempt, jobs, config.workers, limit_s)) as results:
            for index, outcome in results:
                yield index, str(outcome) if isinstance(outcome, Died) else outcome

    return run
