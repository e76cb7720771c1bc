"""SIGTERM: the step under way is finished and saved, and the run ends; started again it comes to the same end."""

import json
import os
import signal
import types
from pathlib import Path

import pytest
from tiny_run import STEPS, config_of

from launch import train as command
from ove.distributed import EXIT_PREEMPTED
from ove.train.hosts.watchdog import Preemption
from ove.train.loop import train


def losses(workdir: Path) -> list[float]:
    return [json.loads(line)["loss"] for line in (workdir / "metrics.jsonl").read_text().splitlines()]


def test_the_step_is_finished_and_saved(shard_folder: Path, trained_run: Path, tmp_path: Path) -> None:
    config = config_of(shard_folder)
    said: list[str] = []

    def report(line: str) -> None:
        said.append(line)
        if line.startswith("step 3/"):
            os.kill(os.getpid(), signal.SIGTERM)

    before = signal.getsignal(signal.SIGTERM)
    state = train(config, tmp_path, report)
    assert signal.getsignal(signal.SIGTERM) is before
    stopped_at = int(state.step)
    assert 3 < stopped_at < 7, "between two saves"
    assert said[-1] == f"stopped by SIGTERM: step {stopped_at} is saved; the same command resumes from it."
    assert len(losses(tmp_path)) == stopped_at
    said.clear()
    assert int(train(config, tmp_path, said.append).step) == STEPS
    assert f"resumed from step {stopped_at} of {tmp_path}/checkpoints" in said
    assert losses(tmp_path) == losses(trained_run)


def test_told_during_the_last_step_the_run_is_over(monkeypatch: pytest.MonkeyPatch, shard_folder: Path, tmp_path: Path) -> None:
    monkeypatch.setattr(Preemption, "stops_after", lambda self, step: step == STEPS)
    said: list[str] = []
    assert int(train(config_of(shard_folder), tmp_path, said.append).step) == STEPS
    assert not any("stopped by SIGTERM" in line for line in said)


@pytest.mark.parametrize(("step", "code"), [(5, EXIT_PREEMPTED), (6, 0)])
def test_the_command_says_so_by_its_code(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, step: int, code: int) -> None:
    monkeypatch.setattr(command, "train", lambda *arguments: types.SimpleNamespace(step=step))
    assert command.main(["--config=configs/toy.py:smoke", f"--workdir={tmp_path}"]) == code
    assert EXIT_PREEMPTED == 75
