"""A warm pytest process that tests one mutant after the other, each in a child forked from it.

The parent has loaded `tests/conftest.py`, all libraries that the tests import, and those modules of the repository that do not
depend on the mutated file; it has computed nothing. The child loads `conftest.py` of the tests' folders, which may import the
mutated file, collects and runs the tests, and ends.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any, TextIO

import pytest

BASELINE_LIMIT_S = 1800.0
LEAST_LIMIT_S, LIMIT_TIMES = 60.0, 5.0
"""A mutant may take this many times as long as the unchanged file, and at least so long."""


class Forked:
    """A pytest plugin: in the parent the loop over mutants, in a child the order of the tests and a record of them."""

    def __init__(self, job: dict[str, Any], answers: TextIO) -> None:
        self.job, self.answers = job, answers
        self.path = Path(job["file"])
        self.cache = Path(job["cache"])
        self.report = Path(job["scratch"]) / "report.json"
        self.temporary = Path(job["scratch"]) / "pytest"
        self.is_child = False
        self.seconds: dict[str, float] = {}
        self.durations: dict[str, float] = {}
        self.failed: list[str] = []
        self.kills = Counter[str]()
        self.writes = 0

    # The parent.
    def pytest_sessionstart(self, session: pytest.Session) -> None:
        for name in self.job["warm"]:
            _import(name)
        if loaded := sorted(set(self.job["changing"]) & sys.modules.keys()):
            raise RuntimeError(f"{', '.join(loaded)} depend on {self.path} and are loaded before it is changed")
        session.config.args = self.job["tests"]  # of the child
        original = self.path.read_text()
        # First to fill the compilation cache, then for times and as proof that the tests pass with it and in the sorted order.
        for turn in ("cold", "warm"):
            found = self._tried(original, BASELINE_LIMIT_S)
            if self.is_child:
                return
            self.seconds = found["durations"]
            self._say({"baseline": turn, **found})
            if found["code"]:
                os._exit(1)
        kept = {path.name for path in self.cache.iterdir()}
        limit_s = self.job["timeout_s"] or max(LEAST_LIMIT_S, LIMIT_TIMES * found["seconds"])
        for number, text in enumerate(self.job["mutants"]):
            found = self._tried(text, limit_s)
            if self.is_child:
                return
            self.kills.update(found["failed"][:1])
            self._say({"mutant": number, **found})
            for path in self.cache.iterdir():  # also what a child that was ended has half written
                if path.name not in kept:
                    path.unlink()
        os._exit(0)

    def _say(self, answer: dict[str, Any]) -> None:
        self.answers.write(json.dumps(answer) + "\n")
        self.answers.flush()

    def _tried(self, text: str, limit_s: float) -> dict[str, Any]:
        """Returns the outcome of the tests with `text` as the file; {} in the child."""
        self.path.write_text(text)
        self.writes += 1  # bytecode is told from older bytecode by the second of the source's time and by its size
        os.utime(self.path, (1_000_000_000 + 2 * self.writes,) * 2)
        self.report.unlink(missing_ok=True)
        shutil.rmtree(self.temporary, ignore_errors=True)
        self.temporary.mkdir()
        started = time.monotonic()
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # jax warns of forks; nothing has been computed
            pid = os.fork()
        if pid == 0:
            self.is_child = True
            os.setsid()
            signal.signal(signal.SIGTERM, signal.SIG_DFL)
            return {}
        code = _ended(pid, started + limit_s)
        report = json.loads(self.report.read_text()) if self.report.exists() else {"durations": {}, "failed": []}
        return {"code": code, "seconds": round(time.monotonic() - started, 2), **report}

    # The child.
    def pytest_collection_modifyitems(self, items: list[pytest.Item]) -> None:
        seconds, kills = Counter[str](), Counter[str]()
        for name, spent in self.seconds.items():
            seconds[_file(name)] += spent
        for name, number in self.kills.items():
            kills[_file(name)] += number
        items.sort(key=lambda item: (-kills[file := _file(item.nodeid)], seconds[file], file, -self.kills[item.nodeid]))

    def pytest_collectreport(self, report: pytest.CollectReport) -> None:
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.durations[report.nodeid] = self.durations.get(report.nodeid, 0) + report.duration
        if report.failed:
            self.failed.append(report.nodeid)

    def pytest_sessionfinish(self) -> None:
        self.report.write_text(json.dumps({"durations": self.durations, "failed": self.failed}))


def _file(test: str) -> str:
    return test.split("::")[0]


def _import(name: str) -> None:
    """Imports a module, or the one that holds the name; an optional library that is missing is left to its importers."""
    for module in (name, name.rpartition(".")[0]):
        try:
            if module:
                importlib.import_module(module)
        except ImportError:
            continue
        return


def _ended(pid: int, deadline: float) -> int | None:
    """The exit code of a child (negative: a signal), None if it was ended at the deadline; its process group is gone then."""
    try:
        while time.monotonic() < deadline:
            done, status = os.waitpid(pid, os.WNOHANG)
            if done:
                return os.waitstatus_to_exitcode(status)
            time.sleep(0.01)
    finally:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(pid, signal.SIGKILL)
    os.waitpid(pid, 0)
    return None


def work(job_file: str) -> None:
    """Runs the job in a file, in the current folder; answers are lines of JSON on what was stdout."""
    job = json.loads(Path(job_file).read_text())
    answers = os.fdopen(os.dup(1), "w")
    log = os.open(job["log"], os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    os.dup2(log, 1)
    os.dup2(log, 2)
    sys.path[0] = os.getcwd()  # as for `python -m pytest`
    sys.path.append(str(Path(__file__).parent))  # spawned processes import the main module again
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that a child ends with its parent
    plugin = Forked(job, answers)
    # Without the tests: pytest would load the `conftest.py` of their folders at once.
    arguments = ["-x", "-s", "-p", "no:cacheprovider", "-m", "not slow"]
    code = pytest.main(arguments, plugins=[plugin])
    sys.stdout.flush()
    if not plugin.is_child:
        raise SystemExit(f"pytest ended with {int(code)} before any test; see {job['log']}")
    os._exit(int(code))
