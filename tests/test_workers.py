"""Processes that crash or hang over one item cost that item only."""

import os
import re
import signal
import time

from ove.workers import Died, outcomes


def work(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 5:
        time.sleep(600)
    return item * item


def hold_the_lock(item: int) -> bool:
    """Of Python, for about as many years as there are: a pattern that is tried in 2 ** item ways, in C."""
    return re.fullmatch("(a+)+b", "a" * item) is None


def test_a_call_that_never_gives_up_pythons_lock_is_ended_too():
    results = dict(outcomes(hold_the_lock, [2, 64, 3], 1, limit_s=1.0))
    hung = results.pop(1)
    assert isinstance(hung, Died) and hung.timed_out and results == {0: True, 2: True}


def test_a_crash_and_a_hang_are_told_and_the_others_go_on():
    started = time.monotonic()
    results = dict(outcomes(work, range(8), 2, limit_s=1.5))
    assert {index: r for index, r in results.items() if not isinstance(r, Died)} == {n: n * n for n in (0, 1, 2, 4, 6, 7)}
    crashed, hung = results[3], results[5]
    assert (str(crashed), crashed.timed_out) == ("the process that decoded it died (SIGSEGV)", False)
    assert (str(hung), hung.timed_out) == ("the process that decoded it hung and was ended", True)
    assert time.monotonic() - started < 300
