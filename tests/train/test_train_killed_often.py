"""A run killed 20 times, at random moments and during saves, is bit for bit the run that was not; 8 devices become 4."""

import collections
import random
import re
import shutil
import signal
import time
from collections.abc import Callable
from pathlib import Path

import pytest
from train_processes import Job

STEPS, KILLS, SAVE_EVERY = 300, 20, 5
PLACES = ("a save", "a save", "a step", "a save", "the start")
"""Where kills fall, again and again."""
OPTIONS = (f"--config.train.steps={STEPS}", f"--config.train.save_every={SAVE_EVERY}")


def wait_for_more(job: Job, count: Callable[[], int], more: int) -> None:
    reached = count() + more
    job.wait_until(lambda: count() >= reached)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("processes", [1, 2])
def test_killed_twenty_times(processes: int, shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    whole = Job(tmp_path / "whole", shard_folder, compiled_programs, processes)
    whole.to_the_end(*OPTIONS)
    assert [line["step"] for line in whole.lines()] == list(range(1, STEPS + 1))
    dice = random.Random(processes)
    job = Job(tmp_path / "killed", shard_folder, compiled_programs, processes)
    start_s, landed, resumed = 5.0, collections.Counter[str](), set[str]()
    for kill in range(KILLS):
        job.start(*OPTIONS)
        if PLACES[kill % len(PLACES)] == "the start":
            time.sleep(dice.uniform(0.1, 1.0) * start_s)
        else:
            job.wait_until(job.has_logged)
            start_s = time.time() - job.started_s
            if PLACES[kill % len(PLACES)] == "a save":
                wait_for_more(job, job.saved, SAVE_EVERY * dice.randint(0, 2))
                job.wait_until(job.is_saving)
                time.sleep(dice.uniform(0, 0.03))
            else:
                wait_for_more(job, job.steps, dice.randint(1, 2 * SAVE_EVERY))
                job.wait_until(lambda: not job.is_saving())
        has_logged = job.has_logged()
        resumed.update(re.findall(r"resumed from step (\d+)", job.said(0).read_text()))
        assert all(process.poll() is None for process in job.running), "over before it was killed"
        # Of several processes all are killed, or one, and then the others must end by themselves.
        one = kill % 3 == 2
        for index in [dice.randrange(processes)] if one else range(processes):
            job.signal(index, signal.SIGKILL)
        codes = job.ended(300)
        assert 0 not in codes and -signal.SIGKILL in codes
        # What was being saved can no longer be finished, and says so.
        landed["a save" if job.is_saving() else "a step" if has_logged else "the start"] += 1
        assert job.steps() < STEPS
    print(f"{processes} processes, {KILLS} kills: {dict(landed)}; taken up at {len(resumed)} steps, at last from {job.steps()}")
    assert sum(landed.values()) == KILLS and len(resumed) >= KILLS // 5
    assert landed["a save"] >= KILLS // 3 and landed["a step"] >= 2 and landed["the start"] >= 2, landed
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
