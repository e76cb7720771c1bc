"""Ends a process that has got stuck, and shows where; without it a run of many machines waits for one for ever."""

import faulthandler
import os
import sys
import threading
import time
from collections.abc import Callable

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
        """What must be done next, and in how much time from now, in place of what was expected before; 0: in any time."""
        with self._changed:
            self._what, self._limit_s, self._deadline = what, within_s, time.monotonic() + within_s
            self._changed.notify()
        faulthandler.cancel_dump_traceback_later()
        if within_s and sys.__stderr__ is not None:
            faulthandler.dump_traceback_later(within_s + _LAST_RESORT_S, exit=True, file=sys.__stderr__)

    def close(self) -> None:
        """Nothing more is expected."""
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
