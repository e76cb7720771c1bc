"""Local processes that work on files in parallel, and survive a file that crashes the decoder or never lets go."""

import contextlib
import ctypes
import multiprocessing
import os
import pickle
import queue
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Generator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from itertools import islice
from multiprocessing.connection import Connection
from multiprocessing.context import SpawnProcess
from typing import Any, Generic, TypeVar

import cv2

from ove.config import limits
from ove.errors import ConfigError

T = TypeVar("T")
R = TypeVar("R")

_AHEAD = 2
"""Items per worker that are in work or wait for a thread."""
_PR_SET_PDEATHSIG = 1
_GRACE_S = 5.0
"""Beyond the limit by the clock on the wall, after which the parent ends a process whose own timer did not."""
_LONGEST_S = 1e6
"""Eleven days: timers take no more."""
_NAME = "ove worker"
_STARTS_OTHERS = 43
"""Exit code of a worker whose script would start workers itself while it is imported."""
_BELOW_MAIN = 'call it below `if __name__ == "__main__":`, or give workers = 0'
_TIMERS = (signal.SIGPROF, signal.SIGALRM)
"""What the timers of processor time and of time send; nothing handles them, so the kernel ends the process."""


@dataclass(frozen=True)
class Died:
    """The outcome of an item whose process ended without an answer."""

    exit_code: int
    """Of the process; −n where signal n ended it."""
    after: str = ""
    """The time limit that it exceeded, in words; empty if it died of itself."""

    @property
    def timed_out(self) -> bool:
        """Returns whether the item took longer than allowed."""
        return bool(self.after)

    def __str__(self) -> str:
        if self.timed_out:
            return f"the process that decoded it hung and was ended after {self.after}"
        name = signal.Signals(-self.exit_code).name if self.exit_code < 0 else f"exit code {self.exit_code}"
        return f"the process that decoded it died ({name})"


def cores() -> int:
    """Returns the number of processor cores that this process may use."""
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def outcomes(
    function: Callable[[T], R], items: Sequence[T], workers: int, limit_s: float | None = None
) -> Generator[tuple[int, R | Died], None, None]:
    """Yields (index, function(item)) of each item, in order of completion, from `workers` spawned processes.

    With 0 workers all runs in this process, without a limit. Otherwise as `Crew`. An exception from `function` ends everything.
    Close the generator when stopping early, so that its processes end.
    """
    if workers == 0:
        yield from ((index, function(item)) for index, item in enumerate(items))
        return
    todo = iter(enumerate(items))
    with ThreadPoolExecutor(workers, thread_name_prefix="worker") as threads, Crew(function, workers, limit_s) as crew:
        in_flight: dict[Future[R | Died], int] = {}
        try:
            while True:
                for index, item in islice(todo, _AHEAD * workers - len(in_flight)):
                    in_flight[threads.submit(crew, item)] = index
                if not in_flight:
                    return
                for future in wait(in_flight, return_when=FIRST_COMPLETED).done:
                    yield in_flight.pop(future), future.result()
        finally:
            for future in in_flight:
                future.cancel()


def check_may_start() -> None:
    """Raises ConfigError in a process that still imports its parent's script; a worker ends, and its parent raises it."""
    this = multiprocessing.current_process()
    if not getattr(this, "_inheriting", False):
        return
    if this.name == _NAME:
        sys.exit(_STARTS_OTHERS)
    raise ConfigError(f"a process that only imports your script starts others by a function of ove; {_BELOW_MAIN}.")


class Crew(Generic[T, R]):
    """Spawned processes that call one function, each on one item at a time; a context manager, callable from threads.

    `limit_s` is processor time for an item, so that the same ones are set aside however busy the machine is; one that
    stalls ends after `LimitsConfig.stall_factor` times that by the clock. The kernel ends the process then, also within a call
    that holds Python's lock, and this process ends it if that does not happen. What dies otherwise is tried once more in a
    fresh process, for it may have died of the item before.
    """

    def __init__(self, function: Callable[[T], R], workers: int, limit_s: float | None = None) -> None:
        check_may_start()
        self._idle: queue.SimpleQueue[_Worker] = queue.SimpleQueue()
        self._all = [_Worker(function, limit_s) for _ in range(workers)]
        for worker in self._all:
            self._idle.put(worker)

    def __call__(self, item: T) -> R | Died:
        """Returns function(item), or how its process ended; waits for an idle process."""
        worker = self._idle.get()
        try:
            outcome = worker.call(item)
            if isinstance(outcome, Died) and not outcome.timed_out and not worker.closed:
                outcome = worker.call(item)
            return outcome
        finally:
            self._idle.put(worker)

    def __enter__(self) -> "Crew[T, R]":
        return self

    def __exit__(self, kind: Any, *_: Any) -> None:
        for worker in self._all:
            worker.close(kill=kind is not None)


class _Worker:
    """One process, started when it is needed and again after it died."""

    _starting = threading.Lock()  # multiprocessing counts its children without one

    def __init__(self, function: Callable[[Any], Any], limit_s: float | None) -> None:
        self.closed = False
        self._function, self._limit_s = function, None if limit_s is None else min(limit_s, _LONGEST_S)
        self._wall_s = None if limit_s is None else min(limit_s * limits().stall_factor, _LONGEST_S)
        self._process: SpawnProcess | None = None
        self._pipe: Connection | None = None

    def call(self, item: Any) -> Any:
        """Returns function(item), raises what it raises, or returns how the process ended."""
        if self._process is None:
            self._start()
        try:
            assert self._pipe is not None
            self._pipe.send(item)
            if not self._pipe.poll(None if self._wall_s is None else self._wall_s + _GRACE_S):
                return self._died(by_force=True)
            answer = self._pipe.recv()
        except (EOFError, OSError):
            return self._died()
        if isinstance(answer, _Raised):
            raise answer.error
        return answer

    def close(self, kill: bool) -> None:
        """Ends the process: at once, or (it is idle) by itself."""
        self.closed = True
        process, pipe = self._process, self._pipe
        if process is None or pipe is None:
            return
        with contextlib.suppress(ValueError):  # a thread may have noticed its end in the meantime
            if kill:
                process.kill()
            else:
                pipe.close()
            process.join()

    def _start(self) -> None:
        context = multiprocessing.get_context("spawn")
        self._pipe, theirs = context.Pipe()
        with self._starting:
            arguments = theirs, self._function, self._limit_s, self._wall_s
            process = context.Process(target=_serve, args=arguments, name=_NAME, daemon=True)
            process.start()
        self._process = process
        theirs.close()
        try:
            self._pipe.recv()
        except EOFError:
            code = self._died().exit_code
            if self.closed:
                raise
            if code == _STARTS_OTHERS:
                raise ConfigError(
                    f"worker processes import your script, which calls this again meanwhile; {_BELOW_MAIN}."
                ) from None
            raise ConfigError(
                f"worker processes end before they begin (exit code {code}); see the messages above. In your own script, "
                f"{_BELOW_MAIN}."
            ) from None

    def _died(self, by_force: bool = False) -> Died:
        """Returns how the process ended, and forgets it."""
        process, pipe = self._process, self._pipe
        if process is None or pipe is None:
            return Died(-signal.SIGKILL)
        if by_force:
            process.kill()
        while process.exitcode is None:
            process.join(0.1)
        code, after = process.exitcode, ""
        if code == -signal.SIGPROF:
            after = f"{self._limit_s:g} s of processor time"
        elif by_force or code == -signal.SIGALRM:
            after = f"{self._wall_s:g} s in which it got little processor time"
        pipe.close()
        self._process = self._pipe = None
        return Died(code, after)


@dataclass(frozen=True)
class _Raised:
    error: Exception


def _serve(pipe: Connection, function: Callable[[Any], Any], limit_s: float | None, wall_s: float | None) -> None:
    start_worker()
    pipe.send(None)
    while True:
        try:
            item = pipe.recv()
        except (EOFError, OSError):  # the parent needs this process no more
            return
        try:
            answer = function(item) if limit_s is None else in_time(limit_s, function, item, wall_s)
        except Exception as error:  # raised again by the parent
            answer = _Raised(_portable(error))
        try:
            pipe.send(answer)
        except (pickle.PicklingError, TypeError, AttributeError) as error:
            pipe.send(_Raised(_portable(error)))


def _portable(error: Exception) -> Exception:
    """Returns an exception that can be sent, with its traceback as a note."""
    error.add_note("".join(traceback.format_exception(error)))
    try:
        pickle.loads(pickle.dumps(error))
    except Exception as reason:  # whatever an exception's own constructor raises
        portable = RuntimeError(f"{type(error).__name__}: {error} (which cannot be sent between processes: {reason})")
        portable.add_note(error.__notes__[0])
        return portable
    return error


def start_worker() -> None:
    """Sets up this process as a worker: one OpenCV thread, Ctrl-C left to the parent, ended with the parent."""
    cv2.setNumThreads(1)
    cv2.utils.logging.setLogLevel(cv2.utils.logging.LOG_LEVEL_SILENT)  # its own lines about bad files lack their names
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    for number in _TIMERS:
        signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, _TIMERS)
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        parent = multiprocessing.parent_process()
        if parent is not None and os.getppid() != parent.pid:  # it died before it could be watched
            os._exit(1)


def in_time(limit_s: float, function: Callable[[T], R], item: T, wall_s: float | None = None) -> R:
    """Returns function(item), or ends this process, the only way to stop a call that hangs in a library.

    By the kernel's timers of processor time (`limit_s`) and of time (`wall_s`), which work even while a library holds the GIL.
    """
    signal.setitimer(signal.ITIMER_PROF, limit_s)
    signal.setitimer(signal.ITIMER_REAL, limit_s * limits().stall_factor if wall_s is None else wall_s)
    try:
        return function(item)
    finally:
        signal.setitimer(signal.ITIMER_PROF, 0)
        signal.setitimer(signal.ITIMER_REAL, 0)
