"""A run killed 20 times, at random moments and during saves, is bit for bit the run that was not; 8 devices become 4."""

import random
import shutil
import signal
import time
from pathlib import Path

import pytest
from train_processes import Job

STEPS, KILLS = 150, 20
OPTIONS = (f"--config.train.steps={STEPS}", "--config.train.save_every=5")


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_twenty_times(processes: int, shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    whole = Job(tmp_path / "whole", shard_folder, compiled_programs, processes)
    whole.to_the_end(*OPTIONS)
    assert [line["step"] for line in whole.lines()] == list(range(1, STEPS + 1))
    dice = random.Random(processes)
    job = Job(tmp_path / "killed", shard_folder, compiled_programs, processes)
    kills, during_saves = 0, 0
    while kills < KILLS:
        job.start(*OPTIONS)
        if kills % 3 == 0:
            job.wait_until(job.is_saving)
        elif kills % 3 == 1:
            job.wait_until(job.has_logged)
            time.sleep(dice.uniform(0, 1))
        else:
            time.sleep(dice.uniform(0.5, 12))
        during_saves += job.is_saving()
        # Of several processes sometimes all are killed, sometimes one; then the others must end by themselves: within
        # silence_limit_s = 10, or, before all have found each other, meet_limit_s = 40.
        killed = range(processes) if dice.random() < 0.5 else [dice.randrange(processes)]
        for index in killed:
            job.signal(index, signal.SIGKILL)
        assert all(code != 0 for code in job.ended(90)), "the run was over before it was killed"
        kills += 1
        assert job.steps() < STEPS - 8
    assert during_saves >= KILLS // 4
    job.to_the_end(*OPTIONS)
    assert job.lines() == whole.lines()
    assert job.leaves(STEPS) == whole.leaves(STEPS)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_eight_devices_become_four(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    on_eight = Job(tmp_path / "eight", shard_folder, compiled_programs, devices=8)
    on_eight.to_the_end("--config.train.steps=10", "--config.train.save_every=10")
    on_four = Job(tmp_path / "four", shard_folder, compiled_programs, devices=4)
    shutil.copytree(on_eight.workdir, on_four.workdir)
    for job in (on_eight, on_four):
        job.to_the_end("--config.train.steps=16", "--config.train.save_every=8")
        assert "resumed from step 10" in job.said(0).read_text()
    losses = [[line["loss"] for line in job.lines()] for job in (on_eight, on_four)]
    assert len(losses[0]) == 16
    assert losses[1] == pytest.approx(losses[0], rel=1e-6)
