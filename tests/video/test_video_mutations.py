"""Damaged files, a few of the thousands of bench/mutations.py."""

import json
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


def test_damaged_files_give_sound_clips_or_are_refused():
    command = [sys.executable, "bench/mutations.py", "--quick", "--seed", "17"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout.splitlines()[-1])
    assert summary["files"] == sum(summary["outcomes"].values()) == 60
    assert summary["faults"] == 0
    assert any(name.startswith("read") for name in summary["outcomes"])
    assert any(name.startswith("refused") for name in summary["outcomes"])


def test_reading_leaks_nothing():
    done = subprocess.run([sys.executable, "bench/leaks.py", "--quick"], cwd=ROOT, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stdout + done.stderr
