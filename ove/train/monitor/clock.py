"""How fast a run is, measured at the device: when each step was finished, how long it had nothing to do, and why."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from jaxtyping import Array


class Clock:
    """Times steps that are dispatched ahead of the host.

    For each step: `batch_asked()`, fetch the batch, `batch_there()`, dispatch it `with dispatching():`, `dispatched(result)`,
    read its result `with waiting():`, `step_done()`.
    """

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="clock")
        self._finished: Future[float] | None = None
        self._asked = 0.0
        self.restart()

    def restart(self) -> None:
        """Begins a new span: what has passed since the last one (compilation, saving) belongs to no step."""
        self._begun = self._seen = time.perf_counter()
        self._data_idle_s, self._host_idle_s, self._waited_s, self._steps = 0.0, 0.0, 0.0, 0

    def batch_asked(self) -> None:
        """The host turns to the data."""
        self._host_idle_s += self._idle_s()
        self._asked = self._seen

    def batch_there(self) -> None:
        """The batch has come; the time counts as waiting for which the device had finished all it was given."""
        self._data_idle_s += self._idle_s()
        self._waited_s += self._seen - self._asked

    @contextlib.contextmanager
    def dispatching(self) -> Iterator[None]:
        """Within it the host gives a step to the device."""
        idle_s = self._idle_s()
        before, worked = time.perf_counter(), time.thread_time()
        yield
        # Where it lasts as long as a step before (several devices of a CPU, a queue that is full), that is waiting.
        worked_s = time.thread_time() - worked
        self._waited_s += max(0.0, time.perf_counter() - before - worked_s)
        self._host_idle_s += idle_s + worked_s if idle_s else 0.0

    def dispatched(self, result: Array) -> None:
        """The step that makes `result` is under way."""
        self._finished = self._watcher.submit(_finished_at, result)
        self._seen = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Within it the host does nothing but wait for the device."""
        before = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - before

    def step_done(self) -> None:
        """Counts a finished step to the span."""
        self._steps += 1

    def lap(self, samples: int) -> dict[str, float]:
        """Of the steps counted since the span began, at least one; begins a new span.

        `step_ms`, and `samples_per_s` at `samples` a step. Shares of the time, 0…1: `data_wait` and `host_wait`, in which the
        device had nothing to do for want of data, or because the host was at work; `host_share`, in which the host was at work
        at all: it dispatched steps, or read and logged what they said, and waited neither for a batch nor for the device.
        """
        self._host_idle_s += self._idle_s()
        elapsed = time.perf_counter() - self._begun
        values = {
            "step_ms": 1000 * elapsed / self._steps,
            "samples_per_s": samples * self._steps / elapsed,
            "data_wait": min(1.0, self._data_idle_s / elapsed),
            "host_wait": min(1.0, self._host_idle_s / elapsed),
            "host_share": max(0.0, 1.0 - self._waited_s / elapsed),
        }
        self.restart()
        return values

    def close(self) -> None:
        """Stops the watching thread."""
        self._watcher.shutdown(wait=False)

    def _idle_s(self) -> float:
        """How long the device has had nothing to do since this was asked last."""
        now, since = time.perf_counter(), self._seen
        self._seen = now
        return max(0.0, now - max(since, self._finished.result())) if self._finished and self._finished.done() else 0.0


def _finished_at(result: Array) -> float:
    result.block_until_ready()
    return time.perf_counter()
