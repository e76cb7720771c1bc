"""Ends a run from outside: a watchdog for processes that hang, and SIGTERM (preemption)."""

import faulthandler
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils

EXIT_STUCK = 70
"""Exit code of a process that the watchdog has ended (EX_SOFTWARE of sysexits.h)."""
_LAST_RESORT_S = 30
"""So much later the process ends even if a library never lets Python run."""


class Watchdog:
    """A thread with a deadline. Past it, the stacks of all threads go to stderr and the process exits with EXIT_STUCK."""

    def __init__(self, leave: Callable[[int], object] = os._exit) -> None:
        self._leave = leave
        self._changed = threading.Condition()
        self._what, self._limit_s, self._deadline = "", 0.0, 0.0
        self._is_open = True
        self._thread = threading.Thread(target=self._watch, name="watchdog", daemon=True)
        self._thread.start()

    def expect(self, what: str, within_s: float) -> None:
        """Sets a new deadline: `what` must be done `within_s` from now; 0 for no limit. Replaces the one before."""
        with self._changed:
            self._what, self._limit_s, self._deadline = what, within_s, time.monotonic() + within_s
            self._changed.notify()
        faulthandler.cancel_dump_traceback_later()
        if within_s and sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(within_s + _LAST_RESORT_S, exit=True, file=sys.__stderr__)

    def close(self) -> None:
        """Ends the watchdog."""
        faulthandler.cancel_dump_traceback_later()
        with self._changed:
            self._is_open = False
            self._changed.notify()
        self._thread.join()

    def _watch(self) -> None:
        with self._changed:
            while self._is_open:
                left_s = self._deadline - time.monotonic()
                if not self._limit_s:
                    self._changed.wait()
                elif left_s > 0:
                    self._changed.wait(left_s)
                else:
                    self._bark()
                    return

    def _bark(self) -> None:
        stderr = sys.__stderr__
        if stderr is not None:
            print(f"stuck: {self._what} has taken longer than {self._limit_s:g} s. Where each thread stands:", file=stderr)
            faulthandler.dump_traceback(stderr, all_threads=True)
            stderr.flush()
        self._leave(EXIT_STUCK)


class Preemption:
    """Notices SIGTERM while it is entered; with several processes all stop when one of them is told to."""

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._told = False
        self._before: Any = None

    def __enter__(self) -> "Preemption":
        # With several processes jax has its own handler, which tells the other processes too.
        if self._alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def stops_after(self, step: int) -> bool:
        """Returns whether to save and stop after this step; must be called by every process, once a step.

        With several processes the step is one that none of them has passed, some steps after the signal.
        """
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True
