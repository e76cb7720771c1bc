"""Processes that crash or hang over one item cost that item only."""

import multiprocessing
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from contextlib import closing
from pathlib import Path

import pytest

from ove.errors import BadClip, ConfigError
from ove.workers import Crew, Died, outcomes


def work(item: int) -> int:
    if item == 3:
        os.kill(os.getpid(), signal.SIGSEGV)
    if item == 5:
        time.sleep(600)
    return item * item


def hold_the_lock(item: int) -> bool:
    """Of Python, for about as many years as there are: a pattern that is tried in 2 ** item ways, in C."""
    return re.fullmatch("(a+)+b", "a" * item) is None


def wait_or_compute(item: str) -> float:
    """Waits, or computes, for a second of time or processor time; returns the processor time taken."""
    started = time.process_time()
    if item == "wait":
        time.sleep(1.5)
    while item == "compute" and time.process_time() - started < 1.5:
        pass
    return time.process_time() - started


def stop_or_answer(item: str) -> str:
    if item == "stop":
        os.kill(os.getpid(), signal.SIGSTOP)
    if item == "deaf":
        for number in (signal.SIGPROF, signal.SIGALRM):
            signal.signal(number, signal.SIG_IGN)
        time.sleep(600)
    return item


def die_after_two(item: Path) -> int:
    """Dies of an item, unless this process is fresh."""
    marks = item.parent / f"{os.getpid()}"
    marks.write_text(marks.read_text() + "x" if marks.exists() else "x")
    if len(marks.read_text()) > 2:
        os.kill(os.getpid(), signal.SIGSEGV)
    return os.getpid()


def fail(item: int) -> Callable[[], int]:
    if item == 0:
        raise BadClip("zero", 7)
    return lambda: item


def test_a_call_that_never_gives_up_pythons_lock_is_ended_at_its_limit() -> None:
    started = time.monotonic()
    results = dict(outcomes(hold_the_lock, [2, 64, 3], 1, limit_s=1.0))
    hung = results.pop(1)
    assert isinstance(hung, Died) and hung.timed_out and results == {0: True, 2: True}
    assert str(hung) == "the process that decoded it hung and was ended after 1 s of processor time"
    assert time.monotonic() - started < 60


def test_a_crash_and_a_stall_are_told_and_the_others_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_STALL_FACTOR", "1")
    started = time.monotonic()
    results = dict(outcomes(work, range(8), 2, limit_s=1.5))
    assert {index: r for index, r in results.items() if not isinstance(r, Died)} == {n: n * n for n in (0, 1, 2, 4, 6, 7)}
    crashed, hung = results[3], results[5]
    assert (str(crashed), crashed.timed_out) == ("the process that decoded it died (SIGSEGV)", False)
    assert hung.timed_out and "ended after 1.5 s in which it got little processor time" in str(hung)
    assert time.monotonic() - started < 300


def test_the_limit_counts_processor_time_not_waiting() -> None:
    waited, computed = (found for _, found in sorted(outcomes(wait_or_compute, ["wait", "compute"], 2, limit_s=0.8)))
    assert waited < 0.5 and isinstance(computed, Died) and computed.timed_out


def test_the_parent_ends_what_its_own_timers_cannot(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OVE_STALL_FACTOR", "1")
    results = dict(outcomes(stop_or_answer, ["stop", "a", "deaf", "b"], 2, limit_s=1.0))
    assert results[1] == "a" and results[3] == "b"
    assert all(isinstance(results[n], Died) and results[n].timed_out for n in (0, 2))


def test_what_dies_of_the_item_before_is_tried_in_a_fresh_process(tmp_path: Path) -> None:
    results = dict(outcomes(die_after_two, [tmp_path / str(n) for n in range(5)], 1))
    assert len(results) == 5 and not any(isinstance(found, Died) for found in results.values())
    assert len(set(results.values())) == 3


def test_errors_are_raised_with_their_traceback_and_no_process_is_left() -> None:
    before = set(multiprocessing.active_children())
    with pytest.raises(BadClip, match="zero") as caught:
        list(outcomes(fail, [0, 1], 1))
    assert caught.value.position == 7 and "in fail" in caught.value.__notes__[0]
    with pytest.raises((AttributeError, RuntimeError, TypeError), match="lambda"):
        list(outcomes(fail, [1], 1))
    with closing(outcomes(work, [1, 5, 5], 2)) as results:
        assert next(results) == (0, 1)
    assert set(multiprocessing.active_children()) <= before


def test_a_crew_is_called_from_threads_and_closed() -> None:
    with Crew(work, 1) as crew:
        assert [crew(2), crew(4)] == [4, 16]


def test_a_script_without_a_main_block_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text("from ove.workers import outcomes\nprint(list(outcomes(abs, [1], 1)))\n")
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    assert done.stderr.count("Traceback") == 1 and ConfigError.__name__ in done.stderr.splitlines()[-1]
    assert "import your script" in done.stderr and 'below `if __name__ == "__main__":`' in done.stderr


def test_a_process_of_others_that_imports_the_script_is_told_so(tmp_path: Path) -> None:
    script = tmp_path / "script.py"
    script.write_text(
        "import multiprocessing\nfrom ove.workers import outcomes\n"
        "if multiprocessing.current_process().name == 'other':\n    list(outcomes(abs, [1], 1))\n"
        "else:\n    multiprocessing.get_context('spawn').Process(target=print, name='other').start()\n"
    )
    done = subprocess.run([sys.executable, str(script)], capture_output=True, text=True, env={**os.environ, "PYTHONPATH": "."})
    last = done.stderr.strip().splitlines()[-1]
    assert last.startswith("ove.errors.ConfigError: a process that only imports your script")
