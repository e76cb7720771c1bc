"""How fast a run is: when the device finished each step, how long it had nothing to do, how long the host was at work."""

import contextlib
import time
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from jaxtyping import Array


class Clock:
    """Times steps that are dispatched ahead of the host.

    For each step: `batch_asked()`, fetch the batch, `batch_there()`, dispatch, `dispatched(result)`, read its result
    `with waiting():`, `step_done()`.
    """

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="clock")
        self._finished: Future[float] | None = None
        self._asked = 0.0
        self.restart()

    def restart(self) -> None:
        """Begins a new span: what has passed since the last one (compilation, saving) belongs to no step."""
        self._begun, self._idle_s, self._waited_s, self._steps = time.perf_counter(), 0.0, 0.0, 0

    def batch_asked(self) -> None:
        """The host turns to the data."""
        self._asked = time.perf_counter()

    def batch_there(self) -> None:
        """The batch has come; the time counts as waiting for which the device had finished all it was given."""
        now = time.perf_counter()
        self._waited_s += now - self._asked
        if self._finished is not None and self._finished.done():
            self._idle_s += max(0.0, now - max(self._asked, self._finished.result()))

    def dispatched(self, result: Array) -> None:
        """The step that makes `result` is under way."""
        self._finished = self._watcher.submit(_finished_at, result)

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

        `step_ms`, `samples_per_s` at `samples` a step; `data_wait`: the share of the time in which the device had nothing to do
        for want of data; `host_share`: that in which the host waited neither for a batch nor for the device, whether the device
        had work meanwhile or not. Shares are 0…1.
        """
        elapsed = time.perf_counter() - self._begun
        values = {
            "step_ms": 1000 * elapsed / self._steps,
            "samples_per_s": samples * self._steps / elapsed,
            "data_wait": min(1.0, self._idle_s / elapsed),
            "host_share": max(0.0, 1.0 - self._waited_s / elapsed),
        }
        self.restart()
        return values

    def close(self) -> None:
        """Stops the watching thread."""
        self._watcher.shutdown(wait=False)


def _finished_at(result: Array) -> float:
    result.block_until_ready()
    return time.perf_counter()
