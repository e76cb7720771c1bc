"""The engine `ray`: the tasks or actors of a Ray cluster. Ray is optional: requirements-ray.txt."""

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
"""Jobs handed to Ray per job that it can run at once: what waits is also what an autoscaler adds machines for."""
_LEAST_AHEAD = 16
_KNOCK_S = 10.0


@contextlib.contextmanager
def ray_engine(config: EnginesConfig) -> Iterator[Outcomes]:
    """The engine that works on a Ray cluster: the one that this process is connected to, or `config.ray_address`.

    A connection made here is closed at the end, with it a cluster that was started here. Without Ray, or without a cluster at
    the address, ConfigError.
    """
    ray = _ray()
    connected = ray.is_initialized()
    if not connected:
        # Otherwise Ray sends statistics of use over the network.
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
    """Every job is a task of its own; Ray starts it where a CPU is free, in a process that may have run others before."""

    def __init__(self, ray: ModuleType, config: EnginesConfig, attempt: Attempt) -> None:
        # Ray itself retries nothing: attempts are counted in `ove.labels.engines.run`.
        self._work = ray.remote(num_cpus=config.ray_cpus, max_retries=0)(_work)
        self._ray, self._config, self._attempt = ray, config, ray.put(attempt)

    def room(self, in_flight: int) -> int:
        """How many more jobs should be handed out."""
        at_once = self._ray.cluster_resources().get("CPU", 0) / self._config.ray_cpus
        return max(_LEAST_AHEAD, int(_AHEAD * at_once)) - in_flight

    def submit(self, job: Job) -> Any:
        """Hands out a job; returns Ray's reference to the outcome."""
        return self._work.remote(self._attempt, self._config.time_limit_s, job)

    def ended(self, ref: Any, died: bool) -> None:
        """Tells that a job has an outcome."""

    def close(self, in_flight: Iterable[Any]) -> None:
        """Ends what still runs."""
        for ref in in_flight:
            self._ray.cancel(ref, force=True)


class _Actors:
    """A fixed number of processes that stay, each with one job at a time; one that dies is replaced."""

    def __init__(self, ray: ModuleType, config: EnginesConfig, attempt: Attempt) -> None:
        self._kind = ray.remote(num_cpus=config.ray_cpus, num_gpus=config.ray_gpus, max_restarts=0, max_task_retries=0)(_Actor)
        self._ray, self._limit_s, self._attempt = ray, config.time_limit_s, ray.put(attempt)
        self._idle = [self._kind.remote() for _ in range(config.ray_actors)]
        self._busy: dict[Any, Any] = {}

    def room(self, in_flight: int) -> int:
        """How many more jobs should be handed out."""
        return len(self._idle)

    def submit(self, job: Job) -> Any:
        """Gives a job to an actor; returns Ray's reference to the outcome."""
        actor = self._idle.pop()
        ref = actor.work.remote(self._attempt, self._limit_s, job)
        self._busy[ref] = actor
        return ref

    def ended(self, ref: Any, died: bool) -> None:
        """Tells that a job has an outcome, and whether its process died."""
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
    """Hands out jobs as tasks or actors take them."""
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
    """Why a job failed, if it did, and whether its process died of it."""
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
    """OSError if nobody listens at HOST:PORT: Ray would try for many minutes."""
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
