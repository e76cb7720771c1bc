"""A save that fails in the background ends the run with one sentence, and the checkpoint before it is whole."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from train_processes import CONFIG, ROOT

from ove.train.checkpoint import restore_encoder

LIMITED = """
import resource, signal, sys
from launch import command, train
from ove.train import loop, processes

report_of = loop.opening.described

def described(state, mesh):
    if int(state.step):
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (60_000, 60_000))  # as if the disk were full: less than a bank's rows
    return report_of(state, mesh)

loop.opening.described = described
command.run(lambda: train.main(sys.argv[1:]), processes.leave)
"""


@pytest.mark.slow
def test_one_sentence_is_the_last_word(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    config, workdir = tmp_path / "config.py", tmp_path / "run"
    config.write_text(CONFIG)
    environment = os.environ | {"XLA_FLAGS": "", "JAX_COMPILATION_CACHE_DIR": str(compiled_programs)}

    def run(steps: int) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-c", LIMITED, f"--config={config}", f"--workdir={workdir}"]
        command += [f"--config.batches.shards={shard_folder}", f"--config.train.steps={steps}", "--config.train.save_every=2"]
        return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=200)

    assert run(2).returncode == 0
    done = run(8)
    assert done.returncode == 2, done.stderr[-3000:]
    last = done.stderr.splitlines()[-1]
    assert last.startswith(f"error: {workdir}/checkpoints: step 4 could not be saved (") and "make room" in last
    assert restore_encoder(workdir)[2] == 2
