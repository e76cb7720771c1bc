"""Where compiled programs are kept, and that a run which starts again compiles nothing."""

import json
import os
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import pytest
from train_processes import CONFIG, ROOT

from ove.train.hosts.workdir import compilation_cache

COUNTED = """
import collections, json, sys
import jax
counts = collections.Counter()
jax.monitoring.register_event_listener(lambda event, **more: counts.update([event.rpartition("/")[2]]))
from launch import train
train.main(sys.argv[1:])
print(json.dumps([counts["cache_hits"], counts["cache_misses"]]))
"""


def kept(folder: Path) -> list[Path]:
    return sorted(folder.glob("*-cache"))


def test_programs_are_kept_in_the_folder_that_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    before = jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs
    with compilation_cache(str(tmp_path / "own"), tmp_path):
        jax.jit(lambda x: x + 1.25)(jnp.zeros(3)).block_until_ready()
    assert kept(tmp_path / "own")
    assert before == (jax.config.jax_compilation_cache_dir, jax.config.jax_persistent_cache_min_compile_time_secs)
    # By itself: JAX's own setting, else, on accelerators alone, in the run's folder.
    with compilation_cache("auto", tmp_path):
        assert jax.config.jax_compilation_cache_dir == before[0]
    with compilation_cache("", tmp_path):
        assert jax.config.jax_compilation_cache_dir is None
    jax.config.update("jax_compilation_cache_dir", None)
    try:
        with compilation_cache("auto", tmp_path):
            assert jax.config.jax_compilation_cache_dir is None
        monkeypatch.setattr(jax, "default_backend", lambda: "gpu")
        with compilation_cache("auto", tmp_path):
            jax.jit(lambda x: x + 1.5)(jnp.zeros(3)).block_until_ready()
    finally:
        jax.config.update("jax_compilation_cache_dir", before[0])
    assert kept(tmp_path / "compiled")


@pytest.mark.slow
def test_a_second_start_compiles_nothing_and_a_damaged_program_is_compiled_anew(tmp_path: Path, shard_folder: Path) -> None:
    (tmp_path / "config.py").write_text(CONFIG)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("JAX_COMPILATION_CACHE")}

    def start(run: str, steps: int) -> tuple[list[int], str]:
        words = [f"--config={tmp_path / 'config.py'}", f"--workdir={tmp_path / run}", f"--config.batches.shards={shard_folder}"]
        words += [f"--config.train.steps={steps}", f"--config.train.compilation_cache={tmp_path / 'cache'}"]
        done = subprocess.run(
            [sys.executable, "-c", COUNTED, *words], cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800
        )
        assert done.returncode == 0, done.stderr[-2000:]
        return json.loads(done.stdout.splitlines()[-1]), done.stderr

    (_, compiled), _ = start("first", 2)
    assert compiled > 5 and kept(tmp_path / "cache")
    assert start("second", 2)[0][1] == 0
    # What a resumed run needs besides: the programs that check and place what was restored.
    assert start("first", 3)[0][1] < compiled / 2
    assert start("second", 3)[0][1] == 0
    losses = [
        [json.loads(line)["loss"] for line in (tmp_path / run / "metrics.jsonl").read_text().splitlines()]
        for run in ("first", "second")
    ]
    assert losses[0] == losses[1] and len(losses[0]) == 3
    largest = max(kept(tmp_path / "cache"), key=lambda path: path.stat().st_size)
    largest.write_bytes(largest.read_bytes()[: largest.stat().st_size // 2])
    (_, compiled), said = start("third", 2)
    assert "Error reading persistent compilation cache entry" in said and compiled <= 1
