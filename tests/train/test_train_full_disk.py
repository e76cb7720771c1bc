"""A save that fails in the background ends the run with one sentence, and the checkpoint before it is whole."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import jax
import pytest
from train_processes import CONFIG, ROOT, Job

from ove.errors import BadCheckpoint, ProcessLost
from ove.train.checkpoints.async_save import SaveBarrier
from ove.train.checkpoints.checkpoint import restore_encoder

LIMITED = """
import os, resource, signal, sys
import jax
from launch import train
from launch.cli.command import run_command
from ove.train import loop
from ove import distributed as processes

describe = loop.describe_run

def describe_run(state, mesh):
    if int(state.step) or str(jax.process_index()) == os.environ.get("FULL"):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # as if the disk were full: less than a bank's rows
    return describe(state, mesh)

loop.describe_run = describe_run
run_command(lambda: train.main(sys.argv[1:]), processes.exit)
"""


@pytest.mark.slow
def test_one_sentence_is_the_last_word(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(CONFIG)
    environment = os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(compiled_programs)}

    def run(steps: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, f"--config={config}", f"--workdir={workdir}"]
        command += [f"--config.batches.shards={shard_folder}", f"--config.train.steps={steps}", "--config.train.save_every=2"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=400)

    assert run(2).returncode == 0
    done = run(8)
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {workdir}/checkpoints: step 4 could not be saved (") and "make room" in last
    assert restore_encoder(workdir)[2] == 2


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("full", [0, 1])
def test_where_one_process_cannot_save_none_waits_for_it(
    full: int, shard_folder: Path, tmp_path: Path, compiled_programs: Path
) -> None:
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.command[1:3] = ["-c", LIMITED]
    job.environment["FULL"] = str(full)
    job.start("--config.train.steps=4000", "--config.train.save_every=5")
    job.wait_until(lambda: job.steps() >= 5)
    codes = job.ended(300)
    assert codes[full] == 2 and codes[1 - full] in (ProcessLost.exit_code, -signal.SIGABRT)
    assert job.steps() < 100
    assert "error: " in (last := job.said(full).read_text().splitlines()[-1]) and "step 5 could not be saved (" in last


def test_after_a_failure_there_is_no_waiting_for_others(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    waited: list[str] = []
    monkeypatch.setattr("orbax.checkpoint.multihost.get_barrier_sync_fn", lambda: lambda key, timeout_ms: waited.append(key))
    barrier = SaveBarrier(tmp_path)

    def save() -> None:
        barrier(key="begin", timeout_ms=1)
        try:
            raise OSError("disk full\nand more")
        finally:
            barrier(key="end", timeout_ms=1)

    with pytest.raises(OSError, match="disk full"):
        save()
    assert waited == ["begin"]
    for _ in range(2):
        with pytest.raises(BadCheckpoint, match=r"step 7 could not be saved \(disk full\); make room"), barrier.watched(7):
            pytest.fail("the save before it has failed")


def test_who_waits_in_vain_for_another_process_blames_that_one(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def wait(key: str, timeout_ms: int) -> None:
        raise jax.errors.JaxRuntimeError("process 1 is gone")

    monkeypatch.setattr("orbax.checkpoint.multihost.get_barrier_sync_fn", lambda: wait)
    barrier = SaveBarrier(tmp_path)
    with pytest.raises(ProcessLost, match=r"another process did not come .* \(process 1 is gone\)"), barrier.watched(7):
        barrier(key="begin", timeout_ms=1)
