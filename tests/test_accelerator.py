"""bench/accelerator.py: parts have processes and limits of their own, and whatever happens, what was found by then is written.

That its own parts run is tested by tests/test_bench.py.
"""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[1]
sys.path.append(str(ROOT / "bench"))
import accelerator  # noqa: E402
from accelerator import Part, run_parts, table  # noqa: E402

FAULTS = """
import subprocess, sys, time
def fine_part(say, is_quick):
    say("a row", ms=1.5, quick=is_quick)
    say("another", gib=2)
def crash_part(say, is_quick):
    say("before", ms=1)
    raise ValueError("no such kernel")
def hang_part(say, is_quick):
    child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    say("before", child=child.pid)
    time.sleep(600)
"""
RUN = """
import sys
from pathlib import Path
import accelerator
accelerator.LEAST_S = 0.0
with accelerator.told_to_stop():
    accelerator.run_parts({name: accelerator.Part("faults", 1, "") for name in ("fine", "hang")}, Path(sys.argv[1]), 10, True)
"""


@pytest.fixture
def faults(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder of results, with a module of parts that go wrong on the path of processes."""
    (tmp_path / "code").mkdir()
    (tmp_path / "code" / "faults.py").write_text(FAULTS)
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'code'}:{ROOT / 'bench'}")
    monkeypatch.setattr(accelerator, "LEAST_S", 0.0)
    (tmp_path / "out").mkdir()
    return tmp_path / "out"


def is_running(pid: int) -> bool:
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except FileNotFoundError:
        return False


def test_a_part_that_crashes_or_hangs_is_told_with_its_figures_and_the_next_goes_on(faults: Path) -> None:
    shares = {"crash": 10, "hang": 1, "fine": 20}
    found = run_parts({name: Part("faults", share, "") for name, share in shares.items()}, faults, 40 / 60, False)
    parts = found["parts"]
    assert [entry["ended"] for entry in parts.values()] == ["failed with code 1", "out of time", "done"]
    assert parts["crash"]["rows"] == [{"row": "before", "ms": 1}]
    assert parts["crash"]["last_words"].endswith("ValueError: no such kernel")
    assert parts["fine"]["rows"] == [{"row": "a row", "ms": 1.5, "quick": False}, {"row": "another", "gib": 2}]
    # What a crash leaves is shared among the others: a twenty-first of it for the one that hangs.
    assert 1 < parts["hang"]["limit_s"] < 2 and parts["hang"]["seconds"] < 5 and parts["fine"]["limit_s"] > 30
    (row,) = parts["hang"]["rows"]
    assert not is_running(row["child"])
    assert json.loads((faults / "accelerator.json").read_text()) == found
    written = (faults / "accelerator.md").read_text()
    assert "## hang: out of time after " in written and "| a row | 1.5 | False |  |" in written


def test_without_time_left_a_part_is_not_started(faults: Path) -> None:
    parts = run_parts({"hang": Part("faults", 1, ""), "fine": Part("faults", 1e-9, "")}, faults, 1 / 60, True)["parts"]
    accelerator_says = parts["fine"]["ended"]
    assert parts["hang"]["ended"] == "out of time" and accelerator_says in ("not run: no time is left", "out of time")
    assert parts["fine"]["rows"] == []


def test_a_run_that_is_cut_short_has_written_what_it_found(faults: Path) -> None:
    running = subprocess.Popen([sys.executable, "-c", RUN, str(faults)], env=os.environ | {})
    until_s = time.monotonic() + 60
    while not (faults / "hang.jsonl").exists() or not (faults / "hang.jsonl").read_text().endswith("\n"):
        assert time.monotonic() < until_s and running.poll() is None
        time.sleep(0.02)
    before: dict[str, Any] = json.loads((faults / "accelerator.json").read_text())["parts"]
    assert before.keys() == {"fine"} and before["fine"]["ended"] == "done"
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=60) == 128 + signal.SIGTERM
    parts = json.loads((faults / "accelerator.json").read_text())["parts"]
    assert parts["fine"] == before["fine"] and parts["hang"]["ended"] == "cut short"
    assert not is_running(parts["hang"]["rows"][0]["child"])


def test_a_table_has_a_column_for_each_figure() -> None:
    assert table([]) == "no figures"
    assert table([{"row": "a|b", "ms": 1}, {"row": "c\nd", "ok": True}]).splitlines() == [
        "| row | ms | ok |",
        "| --- | --- | --- |",
        "| a/b | 1 |  |",
        "| c d |  | True |",
    ]


def test_every_part_has_a_function() -> None:
    sources = {part.module: (ROOT / "bench" / f"{part.module}.py").read_text() for part in accelerator.PARTS.values()}
    for name, part in accelerator.PARTS.items():
        assert f"def {name}_part(say: Say, is_quick: bool)" in sources[part.module]
