"""A run that is killed with SIGKILL and started again is, bit for bit, the run that was not killed."""

import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tiny_run import STEPS, config_of
from train_processes import EXACT, ROOT

from ove.config.mapping import to_mapping
from ove.train.checkpoints.checkpoint import Checkpoints, Leaf

DIES = """
import os, signal, sys, time
from pathlib import Path
from launch import train
from launch.cli.command import run_command
from ove.train.checkpoints import checkpoint
from ove.train.monitor import metrics
from ove import distributed

where, at, saved = sys.argv[1], int(sys.argv[2]), Path(sys.argv[3])
write, seal = metrics.MetricsLog.write, checkpoint.Checkpoints._record_files

def die():
    os.kill(os.getpid(), signal.SIGKILL)

def write_and_die(log, step, values):
    write(log, step, values)
    if where == "after a step" and step == at:
        while not saved.is_dir():
            time.sleep(0.01)
        die()

def die_unsealed(checkpoints):
    if where == "in a save" and checkpoints._saving == at:
        die()
    seal(checkpoints)

metrics.MetricsLog.write = write_and_die
checkpoint.Checkpoints._record_files = die_unsealed
run_command(lambda: train.main(sys.argv[4:]), distributed.exit)
"""
"""Kills itself after a step is logged and a checkpoint is finished, or in a save, before the checkpoint is whole."""


class Run:
    """The run that `trained_run` is of, each start in a process of its own."""

    def __init__(self, workdir: Path, shards: Path, compiled: Path) -> None:
        self.workdir = workdir
        config = workdir.with_suffix(".py")
        values = repr(to_mapping(config_of(shards)))
        config.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n    return ConfigDict({values})\n")
        self.options = [f"--config={config}", f"--workdir={workdir}"]
        self.environment = os.environ | {"JAX_COMPILATION_CACHE_DIR": str(compiled)}

    def killed(self, where: str, step: int, saved: Path) -> None:
        done = self._start("-c", DIES, where, str(step), str(saved))
        assert done.returncode == -signal.SIGKILL, done.stderr[-3000:]

    def to_the_end(self) -> list[str]:
        """The lines that the finished run has printed."""
        done = self._start("-m", "launch.train")
        assert done.returncode == 0, done.stderr
        assert done.stderr == ""
        return done.stdout.splitlines()

    def checkpoints(self) -> list[str]:
        return sorted(path.name for path in (self.workdir / "checkpoints").iterdir())

    def _start(self, *program: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, *program, *self.options]
        return subprocess.run(command, cwd=ROOT, env=self.environment, capture_output=True, text=True, timeout=600)


def logged(workdir: Path) -> list[dict[str, Any]]:
    """What was logged, without times."""
    lines = map(json.loads, (workdir / "metrics.jsonl").read_text().splitlines())
    return [{name: value for name, value in line.items() if EXACT.fullmatch(name)} for line in lines]


def leaves(workdir: Path) -> dict[str, Leaf]:
    """Kinds and fingerprints of the last state."""
    with Checkpoints(workdir) as checkpoints:
        assert checkpoints.latest() == STEPS
        return checkpoints.meta(STEPS).leaves


@pytest.mark.slow
def test_killed_before_the_first_save_between_two_and_during_one(
    trained_run: Path, shard_folder: Path, compiled_programs: Path, tmp_path: Path
) -> None:
    whole = logged(trained_run)
    assert [line["step"] for line in whole] == list(range(1, STEPS + 1))
    assert len({line["order"] for line in whole}) == STEPS
    run = Run(tmp_path / "run", shard_folder, compiled_programs)
    run.killed("after a step", 3, tmp_path)
    assert logged(run.workdir) == whole[:3] and run.checkpoints() == []
    run.killed("after a step", 10, run.workdir / "checkpoints" / "7")
    assert logged(run.workdir) == whole[:10] and run.checkpoints() == ["7"]
    run.killed("in a save", STEPS, tmp_path)
    assert logged(run.workdir) == whole
    assert len(run.checkpoints()) == 2 and f"{STEPS}." in (run.checkpoints()[0]), run.checkpoints()
    printed = run.to_the_end()
    assert sum(line.startswith("resumed from step 7 of ") for line in printed) == 1
    assert logged(run.workdir) == whole
    assert leaves(run.workdir) == leaves(trained_run)
    assert run.checkpoints() == sorted(["7", str(STEPS)])
    assert json.loads((run.workdir / "config.json").read_text())["train"]["steps"] == STEPS
    assert list((run.workdir / "tensorboard").glob("events.*"))


def test_it_says_how_it_gets_on(trained_run: Path) -> None:
    printed = (trained_run.parent / "printed.txt").read_text().splitlines()
    first = next(n for n, line in enumerate(printed) if line.startswith("encoder of "))  # before it the table of parameters
    assert "8 devices" in printed[first]
    assert "compiling" in "".join(printed[first + 1 : -STEPS]) and printed[-STEPS].startswith(f"step 1/{STEPS}")
    assert "data wait" in printed[-1] and printed[-1].endswith("0m00s left")
    assert [line.split()[1] for line in printed[-STEPS:]] == [f"{step}/{STEPS}" for step in range(1, STEPS + 1)]
