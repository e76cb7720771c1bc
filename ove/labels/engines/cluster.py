"""The engine `ray`: the tasks of a Ray cluster. Ray is optional: requirements-ray.txt."""

import contextlib
import importlib
import itertools
import logging
import os
from collections.abc import Generator, Iterator, Sequence
from types import ModuleType
from typing import Any

import cv2

from ove.config.engines import EnginesConfig
from ove.errors import ConfigError, OveError
from ove.labels.engines.jobs import Job
from ove.labels.engines.local import Attempt, Outcomes
from ove.shards.workers import in_time

_AHEAD = 3
"""Jobs handed to Ray per job that it can run at once: what waits is also what an autoscaler adds machines for."""
_LEAST_AHEAD = 16


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
        try:
            ray.init(address=config.ray_address or None, log_to_driver=False, logging_level=logging.WARNING)
        except (ConnectionError, ValueError) as error:
            where = config.ray_address or os.environ.get("RAY_ADDRESS", "")
            raise ConfigError(f"engines.ray_address = {where!r}: no Ray cluster answers there ({error}).") from error
    try:
        yield lambda attempt, jobs: _outcomes(ray, config, attempt, jobs)
    finally:
        if not connected:
            ray.shutdown()


def _outcomes(
    ray: ModuleType, config: EnginesConfig, attempt: Attempt, jobs: Sequence[Job]
) -> Generator[tuple[int, str | None], Any, None]:
    """Hands out jobs as Ray takes them. Ray itself retries nothing: attempts are counted in `ove.labels.engines.run`."""
    work = ray.remote(num_cpus=config.ray_cpus, max_retries=0)(_work)
    attempt_ref = ray.put(attempt)
    todo = iter(range(len(jobs)))
    in_flight: dict[Any, int] = {}
    try:
        while True:
            at_once = ray.cluster_resources().get("CPU", 0) / config.ray_cpus
            room = max(_LEAST_AHEAD, int(_AHEAD * at_once)) - len(in_flight)
            for index in itertools.islice(todo, room):
                in_flight[work.remote(attempt_ref, config.time_limit_s, jobs[index])] = index
            if not in_flight:
                return
            for ref in ray.wait(list(in_flight), num_returns=1)[0]:
                yield in_flight.pop(ref), _outcome(ray, ref)
    finally:
        for ref in in_flight:
            ray.cancel(ref, force=True)


def _work(attempt: Attempt, limit_s: float, job: Job) -> str | None:
    cv2.setNumThreads(1)
    return in_time(limit_s, attempt, job)


def _outcome(ray: ModuleType, ref: Any) -> str | None:
    """What the task of a job returned, or why there is nothing."""
    try:
        return ray.get(ref)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, OveError):
            raise error.cause from None
        raise ConfigError(
            f"the workers of the Ray cluster cannot run this step ({error.cause!r}); they need the same code and the same "
            "requirements as this machine (docs/scale_out.md)."
        ) from error
    except ray.exceptions.RayError as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else ""
        return f"the process that worked on it died or took too long ({type(error).__name__}: {first})"


def _ray() -> ModuleType:
    try:
        return importlib.import_module("ray")
    except ModuleNotFoundError as error:
        raise ConfigError(
            f"engines.engine = ray: Ray is not installed ({error}); run .venv/bin/python -m pip install -r "
            "requirements-ray.txt, or leave --engine out."
        ) from error
