"""Batches made in processes: the same stream, whatever is killed, and nothing left behind."""

import contextlib
import itertools
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterable
from pathlib import Path

import pytest
from synthetic import BUDGET, GOP

from ove.config import BatchesConfig, HeadConfig, SelectionConfig
from ove.stream.batch_pipeline import Pipeline, StreamProgress

TRAINER = """
import os, signal, subprocess, sys, time
from ove.stream.batch_pipeline import Pipeline
from ove.config import BatchesConfig, HeadConfig, SelectionConfig

def children():
    command = ["ps", "-ww", "-o", "pid=,args=", "--ppid", str(os.getpid())]
    listed = subprocess.run(command, capture_output=True, text=True).stdout
    return [int(line.split()[0]) for line in listed.splitlines() if "spawn_main" in line]

if __name__ == "__main__":
    folder, budget, gop, processes = sys.argv[1], *map(int, sys.argv[2:])
    heads = (HeadConfig("vid", 8), HeadConfig("obj", 4))
    pipeline = Pipeline(BatchesConfig(
        shards=folder, budget_tokens=budget, heads=heads, threads=1,
        selection=SelectionConfig(gop_frames=gop), num_workers=processes))
    for _ in range(3):
        next(pipeline)
    while not children():
        time.sleep(0.1)
    os.kill(children()[-1], signal.SIGKILL)
    for _ in range(9):
        next(pipeline)
    print(pipeline.progress.order, *children(), flush=True)
    time.sleep(600)
"""


def config_of(folder: Path, **changes: object) -> BatchesConfig:
    heads = (HeadConfig("vid", 8), HeadConfig("obj", 4))
    return BatchesConfig(
        **(
            {
                "shards": str(folder),
                "budget_tokens": BUDGET,
                "selection": SelectionConfig(gop_frames=GOP),
                "heads": heads,
                "threads": 0,
            }
            | changes
        )
    )


def shared_memory(pids: Iterable[int]) -> set[str]:
    """The segments that processes have mapped; others on this machine have theirs."""
    found = set()
    for pid in pids:
        with contextlib.suppress(FileNotFoundError, ProcessLookupError):
            found |= set(re.findall(r"/dev/shm/(psm_\w+)", Path(f"/proc/{pid}/maps").read_text()))
    return found


def is_running(pid: int) -> bool:
    """Not a zombie that waits for its parent."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[0] not in "ZX"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.parametrize("processes", [1, pytest.param(2, marks=pytest.mark.slow)])
def test_a_killed_process_loses_nothing_and_a_killed_trainer_leaves_nothing(
    shard_folder: Path, tmp_path: Path, processes: int
) -> None:
    pipeline = Pipeline(config_of(shard_folder))
    for _ in itertools.islice(pipeline, 12):
        pass
    script = tmp_path / "trainer.py"
    script.write_text(TRAINER)
    command = [sys.executable, str(script), str(shard_folder), str(BUDGET), str(GOP), str(processes)]
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).resolve().parents[2])}
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment) as trainer:
        assert trainer.stdout is not None and trainer.stderr is not None
        line = trainer.stdout.readline().split()
        assert line, trainer.stderr.read()
        order, *workers = map(int, line)
        assert order == pipeline.progress.order
        assert len(workers) == processes and all(is_running(pid) for pid in workers)
        segments = shared_memory([trainer.pid, *workers])
        trainer.send_signal(signal.SIGKILL)
        ends = time.monotonic() + 300
        while time.monotonic() < ends and (any(map(is_running, workers)) or segments & set(os.listdir("/dev/shm"))):
            segments |= shared_memory(workers)
            time.sleep(0.1)
        assert not any(map(is_running, workers))
        assert segments and not segments & set(os.listdir("/dev/shm"))
        assert "a process that builds batches has died" in trainer.stderr.read()


@pytest.mark.slow
@pytest.mark.parametrize("processes", [1, 2])
@pytest.mark.parametrize("hosts", [1, 2, 4])
def test_hosts_and_processes_share_one_stream_and_restore_each_others_state(
    shard_folder: Path, hosts: int, processes: int
) -> None:
    alone = Pipeline(config_of(shard_folder))
    whole = list(itertools.islice(alone, 6))
    parts = []
    for index in range(hosts):
        pipeline = Pipeline(config_of(shard_folder, threads=1, num_workers=processes), index, hosts)
        pipeline.restore(StreamProgress(2))  # where another number of hosts had got to
        parts.append(list(itertools.islice(pipeline, 4)))
        pipeline.close()
    for step, batch in enumerate(whole[2:]):
        for bank, expected in batch.items():
            for name, values in vars(expected).items():
                found = [value for part in parts for value in getattr(part[step][bank], name)]
                assert all((value == wanted).all() for value, wanted in zip(found, values, strict=True))
