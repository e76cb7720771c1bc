"""Local processes that work on files in parallel, and survive a file that crashes the decoder."""

import ctypes
import functools
import multiprocessing
import os
import signal
import sys
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any, TypeVar

import cv2

from ove.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
"""Files per worker: one in work, one waiting, so that workers do not idle."""
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True)
class Died:
    """The outcome of an item whose process ended without an answer."""

    exit_code: int
    """Of the process; −n where signal n ended it."""

    @property
    def timed_out(self) -> bool:
        """Returns whether the item took longer than allowed."""
        return self.exit_code == -signal.SIGALRM

    def __str__(self) -> str:
        if self.timed_out:
            return "the process that decoded it hung and was ended"
        name = signal.Signals(-self.exit_code).name if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the process that decoded it died ({name})"


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    function: Callable[[T], R], items: Sequence[T], workers: int, limit_s: float | None = None
) -> Generator[tuple[int, R | Died], None, None]:
    """Yields (index, function(item)) of each item, in order of completion, from `workers` spawned processes.

    With 0 workers all runs in this process, without a limit. A worker ends itself after `limit_s` seconds on one item. When a
    worker dies, the items it may have died of run again, each alone in a fresh process; those that kill that too become `Died`.
    An exception from `function` ends everything. Close the generator when stopping early, so that its processes end.
    """
    if workers == 0:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    if limit_s is not None:
        function = functools.partial(in_time, limit_s, function)
    todo = iter(range(len(items)))
    waiting = next(todo, None)
    while waiting is not None:
        suspects: list[int] = []
        with _pool(workers) as pool:
            in_flight: dict[Future[R], int] = {}
            while waiting is not None or in_flight:
                while waiting is not None and not suspects and len(in_flight) < _AHEAD * workers:
                    try:
                        in_flight[pool.submit(function, items[waiting])] = waiting
                    except BrokenProcessPool:
                        suspects.append(waiting)
                    waiting = next(todo, None)
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    index = in_flight.pop(future)
                    if isinstance(future.exception(), BrokenProcessPool):
                        suspects.append(index)
                    else:
                        yield index, future.result()
                if suspects and not in_flight:
                    break
        for index in sorted(suspects):
            yield index, _alone(function, items[index])


class _pool(ProcessPoolExecutor):
    """A pool whose processes end with it, at once after an exception."""

    def __init__(self, workers: int) -> None:
        self._before = set(multiprocessing.active_children())
        super().__init__(workers, multiprocessing.get_context("spawn"), start_worker)

    def __exit__(self, kind: Any, value: Any, traceback: Any) -> None:
        if kind is not None:
            for process in set(multiprocessing.active_children()) - self._before:
                process.kill()
        super().__exit__(kind, value, traceback)


def start_worker() -> None:
    """Sets up this process as a worker: one OpenCV thread, Ctrl-C left to the parent, ended with the parent."""
    cv2.setNumThreads(1)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it died before it could be watched
            os._exit(1)


def in_time(limit_s: float, function: Callable[[T], R], item: T) -> R:
    """Returns function(item), or ends this process, the only way to stop a call that hangs in a library.

    By the signal of a timer, which works even while a library holds the GIL.
    """
    signal.setitimer(signal.ITIMER_REAL, limit_s)
    try:
        return function(item)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)


def _alone(function: Callable[[T], R], item: T) -> R | Died:
    context = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    process = context.Process(target=_answer, args=(sender, function, item))
    process.start()
    sender.close()
    started = False
    try:
        started = receiver.recv()
        return receiver.recv()
    except EOFError:
        process.join()
        assert process.exitcode is not None
        if not started:
            raise ConfigError(
                f"worker processes end before they begin (exit code {process.exitcode}); see the messages above. In your own "
                'script, call this below `if __name__ == "__main__":`, for workers import the script; or give workers = 0.'
            ) from None
        return Died(process.exitcode)
    finally:
        receiver.close()
        process.kill()
        process.join()
        process.close()


def _answer(sender: Connection, function: Callable[[Any], Any], item: Any) -> None:
    start_worker()
    sender.send(True)
    sender.send(function(item))
    sender.close()
