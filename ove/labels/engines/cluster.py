"""The engine `ray`: tasks or actors of a Ray cluster. Ray is optional (requirements-ray.txt)."""

import contextlib
import importlib
import itertools
import logging
import os
import socket
from collections.abc import Generator, Iterable, Iterator, Sequence
from types import ModuleType
from typing import Any

import cv2

from ove.config import EnginesConfig
from ove.errors import ConfigError, OveError
from ove.labels.engines.jobs import Job
from ove.labels.engines.run import Attempt, Outcomes
from ove.workers import in_time

_AHEAD = 3
"""Jobs submitted per job that Ray can run at once; queued ones make an autoscaler add machines."""
_LEAST_AHEAD = 16
_KNOCK_S = 10.0


@contextlib.contextmanager
def ray_engine(config: EnginesConfig) -> Iterator[Outcomes]:
    """Yields an engine on a Ray cluster: the one that this process is connected to, or that of `config.ray_address`.

    Closes a connection, and ends a cluster, that it opened. ConfigError without Ray, or without a cluster at the address.
    """
    ray = _ray()
    connected = ray.is_initialized()
    if not connected:
        # Otherwise Ray sends usage statistics over the network.
        os.environ.setdefault("RAY_USAGE_STATS_ENABLED", "0")
        where = config.ray_address or os.environ.get("RAY_ADDRESS", "")
        try:
            _knock(where)
            ray.init(address=where or None, log_to_driver=False, logging_level=logging.WARNING)
        except (OSError, ValueError) as error:
            raise ConfigError(
                f"engines.ray_address = {where!r}: no Ray cluster answers there ({error}); start one (docs/scale_out.md), or "
                "leave the address out."
            ) from error
    try:
        yield lambda attempt, jobs: _outcomes(ray, config, attempt, jobs)
    finally:
        if not connected:
            ray.shutdown()


class _Tasks:
    """Runs each job as a task, wherever a CPU is free."""

    def __init__(self, ray: ModuleType, config: EnginesConfig, attempt: Attempt) -> None:
        # No retries by Ray: `ove.labels.engines.run` counts attempts.
        self._work = ray.remote(num_cpus=config.ray_cpus, max_retries=0)(_work)
        self._ray, self._config, self._attempt = ray, config, ray.put(attempt)

    def room(self, in_flight: int) -> int:
        """Returns how many more jobs to submit."""
        at_once = self._ray.cluster_resources().get("CPU", 0) / self._config.ray_cpus
        return max(_LEAST_AHEAD, int(_AHEAD * at_once)) - in_flight

    def submit(self, job: Job) -> Any:
        """Submits a job; returns Ray's reference to its outcome."""
        return self._work.remote(self._attempt, self._config.time_limit_s, job)

    def ended(self, ref: Any, died: bool) -> None:
        """Called when a job has an outcome."""

    def close(self, in_flight: Iterable[Any]) -> None:
        """Cancels what still runs."""
        for ref in in_flight:
            self._ray.cancel(ref, force=True)


class _Actors:
    """Runs jobs in a fixed number of long-lived processes, one job each at a time; replaces one that dies."""

    def __init__(self, ray: ModuleType, config: EnginesConfig, attempt: Attempt) -> None:
        self._kind = ray.remote(num_cpus=config.ray_cpus, num_gpus=config.ray_gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._ray, self._limit_s, self._attempt = ray, config.time_limit_s, ray.put(attempt)
        self._idle = [self._kind.remote() for _ in range(config.ray_actors)]
        self._busy: dict[Any, Any] = {}

    def room(self, in_flight: int) -> int:
        """Returns how many more jobs to submit."""
        return len(self._idle)

    def submit(self, job: Job) -> Any:
        """Submits a job to an idle actor; returns Ray's reference to its outcome."""
        actor = self._idle.pop()
        ref = actor.work.remote(self._attempt, self._limit_s, job)
        self._busy[ref] = actor
        return ref

    def ended(self, ref: Any, died: bool) -> None:
        """Called when a job has an outcome, with whether its process died."""
        actor = self._busy.pop(ref)
        self._idle.append(self._kind.remote() if died else actor)

    def close(self, in_flight: Iterable[Any]) -> None:
        """Ends all actors."""
        for actor in (*self._idle, *self._busy.values()):
            self._ray.kill(actor)


class _Actor:
    def work(self, attempt: Attempt, limit_s: float, job: Job) -> str | None:
        """Runs a job."""
        return _work(attempt, limit_s, job)


def _outcomes(
    ray: ModuleType, config: EnginesConfig, attempt: Attempt, jobs: Sequence[Job]
) -> Generator[tuple[int, str | None], Any, None]:
    """Submits jobs as tasks or actors become free, and yields their outcomes."""
    crew = (_Actors if config.ray_actors else _Tasks)(ray, config, attempt)
    todo = iter(range(len(jobs)))
    in_flight: dict[Any, int] = {}
    try:
        while True:
            for index in itertools.islice(todo, crew.room(len(in_flight))):
                in_flight[crew.submit(jobs[index])] = index
            if not in_flight:
                return
            for ref in ray.wait(list(in_flight), num_returns=1)[0]:
                reason, died = _outcome(ray, ref)
                crew.ended(ref, died)
                yield in_flight.pop(ref), reason
    finally:
        crew.close(in_flight)


def _work(attempt: Attempt, limit_s: float, job: Job) -> str | None:
    cv2.setNumThreads(1)
    return in_time(limit_s, attempt, job)


def _outcome(ray: ModuleType, ref: Any) -> tuple[str | None, bool]:
    """Returns why a job failed, or None, and whether its process died."""
    try:
        return ray.get(ref), False
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OveError):
            raise error.cause from None
        raise ConfigError(
            f"the workers of the Ray cluster cannot run this step ({_first_line(error.cause)}); they need the same code and "
            "the same requirements as this machine (docs/scale_out.md)."
        ) from error
    except ray.exceptions.RayError as error:
        return f"the process that worked on it died or took too long ({type(error).__name__}: {_first_line(error)})", True


def _first_line(error: BaseException) -> str:
    return (str(error).strip() or type(error).__name__).splitlines()[0]


def _knock(address: str) -> None:
    """Raises OSError if nothing listens at HOST:PORT; Ray would retry for many minutes."""
    host, _, port = address.rpartition(":")
    if host and port.isdecimal():
        socket.create_connection((host, int(port)), _KNOCK_S).close()


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"engines.engine = ray: Ray is not installed ({error}); run .venv/bin/python -m pip install -r "
            "requirements-ray.txt, or leave --engine out."
        ) from error
