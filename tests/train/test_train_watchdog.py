"""A process that gets stuck shows where and exits; one that gets on is left alone."""

import subprocess
import sys
import threading
import time

from train_processes import ROOT

from ove.train.hosts.watchdog import EXIT_STUCK, Watchdog

STUCK = """
import time
from ove.train.hosts.watchdog import Watchdog

def waits_for_ever():
    time.sleep(1000)

watchdog = Watchdog()
watchdog.expect("step 7", 0.3)
waits_for_ever()
"""


def test_stuck_it_shows_where_and_exits() -> None:
    began = time.monotonic()
    done = subprocess.run([sys.executable, "-c", STUCK], cwd=ROOT, capture_output=True, text=True, timeout=600)
    assert done.returncode == EXIT_STUCK == 70
    assert time.monotonic() - began < 900
    assert done.stderr.startswith("stuck: step 7 has taken longer than 0.3 s. Where each thread stands:\n")
    assert "in waits_for_ever" in done.stderr


def test_what_gets_on_is_left_alone() -> None:
    codes: list[int] = []
    watchdog = Watchdog(leave=codes.append)
    for step in range(6):
        watchdog.expect(f"step {step}", 2.0)
        time.sleep(0.4)  # six of them are longer than the limit, and one leaves a busy machine time
    watchdog.expect("something that may take any time", 0.0)
    time.sleep(0.2)
    watchdog.expect("the next", 100.0)
    watchdog.close()
    time.sleep(0.2)
    assert codes == []
    assert not any(thread.name == "watchdog" for thread in threading.enumerate())
    watchdog = Watchdog(leave=codes.append)
    watchdog.expect("what does not come", 0.05)
    ends = time.monotonic() + 300
    while not codes and time.monotonic() < ends:
        time.sleep(0.01)
    watchdog.close()
    assert codes == [EXIT_STUCK]
