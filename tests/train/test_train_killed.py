"""A run that is killed with SIGKILL and started again is, bit for bit, the run that was not killed."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from train_processes import EXACT

from ove.train.checkpoints.checkpoint import Checkpoints, Leaf

ROOT = Path(__file__).resolve().parents[2]
STEPS, SAVE_EVERY = 84, 8
CONFIG = f"""
from ml_collections import ConfigDict

def get_config(arg=""):
    c = ConfigDict()
    c.batches = dict(budget_tokens=16, gop_frames=4, heads=[
        dict(bank="vid", batch_size=8, negatives=0.5, labels_per_step=2),
        dict(bank="obj", batch_size=4, negatives=0.5, labels_per_step=2)])
    c.encoder = dict(layers=2, width=64, heads=2, mlp=128)
    c.train = dict(steps={STEPS}, warmup_steps=5, log_every=1, save_every={SAVE_EVERY})
    return c
"""


class Run:
    """`python -m launch.train` on a small shard folder, on two devices."""

    def __init__(self, workdir: Path, shards: Path, config: Path, compiled: Path) -> None:
        self.workdir = workdir
        self.command = [sys.executable, "-m", "launch.train", f"--config={config}", f"--workdir={workdir}"]
        self.command += [f"--config.batches.shards={shards}"]
        self.environment = os.environ | {
            "XLA_FLAGS": "--xla_force_host_platform_device_count=2",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }

    def to_the_end(self) -> str:
        """What the finished run has printed."""
        done = subprocess.run(self.command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=200)
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout

    def killed_when(self, reached: Callable[[], bool]) -> None:
        """Starts the run and kills it as soon as `reached`; it must not have come to its end by then."""
        process = subprocess.Popen(self.command, cwd=ROOT, env=self.environment, stdout=subprocess.DEVNULL)
        deadline = time.monotonic() + 200
        while not reached():
            assert process.poll() is None and time.monotonic() < deadline
            time.sleep(0.001)
        process.send_signal(signal.SIGKILL)
        assert process.wait() == -signal.SIGKILL

    def lines(self) -> list[dict[str, Any]]:
        """What was logged, without times."""
        path = self.workdir / "metrics.jsonl"
        whole = [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
        return [{name: value for name, value in json.loads(line).items() if EXACT.fullmatch(name)} for line in whole]

    def leaves(self) -> dict[str, Leaf]:
        """Kinds and fingerprints of the last state."""
        checkpoints = Checkpoints(self.workdir)
        assert checkpoints.latest() == STEPS
        meta = checkpoints.meta(STEPS)
        checkpoints.close()
        return meta.leaves

    def saved(self) -> list[int]:
        """Steps whose checkpoints are finished."""
        return sorted(int(name) for name in self._checkpoints() if name.isdigit())

    def saving(self) -> bool:
        """Whether a checkpoint after the first is half-written."""
        return bool(self.saved()) and any("tmp" in name for name in self._checkpoints())

    def _checkpoints(self) -> list[str]:
        folder = self.workdir / "checkpoints"
        return [path.name for path in folder.iterdir()] if folder.is_dir() else []


MakeRun = Callable[[str], Run]


@pytest.fixture(scope="module")
def make_run(tmp_path_factory: pytest.TempPathFactory, shard_folder: Path, compiled_programs: Path) -> MakeRun:
    folder = tmp_path_factory.mktemp("runs")
    (folder / "config.py").write_text(CONFIG)
    return lambda name: Run(folder / name, shard_folder, folder / "config.py", compiled_programs)


@pytest.fixture(scope="module")
def whole(make_run: MakeRun) -> tuple[list[dict[str, Any]], dict[str, Leaf]]:
    """Log and last state of a run that nobody disturbed."""
    run = make_run("whole")
    printed = run.to_the_end().splitlines()
    first = next(n for n, line in enumerate(printed) if line.startswith("encoder of "))  # before it the table of parameters
    assert "2 devices" in printed[first]
    assert "compiling" in "".join(printed[first + 1 : -STEPS]) and printed[-STEPS].startswith(f"step 1/{STEPS}")
    assert "data wait" in printed[-1] and printed[-1].endswith("0m00s left")
    assert list((run.workdir / "tensorboard").glob("events.*"))
    assert json.loads((run.workdir / "config.json").read_text())["train"]["steps"] == STEPS
    lines = run.lines()
    assert [line["step"] for line in lines] == list(range(1, STEPS + 1))
    assert len({line["order"] for line in lines}) == STEPS
    return lines, run.leaves()


def test_killed_before_the_first_save_and_again_at_some_step(make_run: MakeRun, whole: tuple) -> None:
    run = make_run("twice")
    run.killed_when(lambda: len(run.lines()) >= 3)
    # Where exactly, between two saves, is up to the scheduler.
    run.killed_when(lambda: any(run.lines()[-1]["step"] >= step + 3 for step in run.saved()))
    logged, newest = run.lines()[-1]["step"], run.saved()[-1]
    printed = run.to_the_end()
    resumed_at = int(printed.split("resumed from step ")[1].split()[0])
    assert resumed_at == newest < logged
    assert resumed_at + 20 <= STEPS
    assert run.lines() == whole[0]
    assert run.leaves() == whole[1]


def test_killed_during_a_save(make_run: MakeRun, whole: tuple) -> None:
    run = make_run("during_save")
    run.killed_when(run.saving)
    run.to_the_end()
    assert run.lines() == whole[0]
    assert run.leaves() == whole[1]
    assert sorted(path.name for path in (run.workdir / "checkpoints").iterdir()) == [
        str(STEPS - STEPS % SAVE_EVERY),
        str(STEPS),
    ]
    assert f"nothing to do: train.steps = {STEPS}, and {STEPS} are done." in run.to_the_end()
