"""One and two processes give the same scores; what they say of each sample stands in the file once."""

import json
import os
import socket
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from synthetic import BUDGET, GOP, write_set

ROOT = Path(__file__).resolve().parents[2]
VAL = 23
"""Two processes do not divide it."""
CONFIG = """
from ml_collections import ConfigDict


def get_config(arg):
    return ConfigDict(dict(budgets=[{budget}], modes=["codec"], gop_frames={gop}, epochs=2, batch_size=8, lr=3e-3))
"""


def probed(count: int, folder: Path, *options: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
    """Scores and predictions of a job of so many processes, of which only the first writes and prints."""
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = free.getsockname()[1]
    (folder / "probe.py").write_text(CONFIG.format(budget=BUDGET, gop=GOP))
    words = [sys.executable, "-m", "launch.probe", f"--config={folder / 'probe.py'}", *options]
    words += [f"--out={folder / 'probe.json'}", f"--predictions={folder / 'said.jsonl'}"]
    environment = os.environ | {"XLA_FLAGS": f"--xla_force_host_platform_device_count={2 // count}"}
    running = []
    for index in range(count):
        address = [f"--coordinator=localhost:{port}", f"--num-processes={count}", f"--process-id={index}"]
        running.append(
            subprocess.Popen(
                [*words, *(address if count > 1 else ())], cwd=ROOT, env=environment, stdout=subprocess.PIPE, text=True
            )
        )
    try:
        said = [process.communicate(timeout=1100)[0] for process in running]
    finally:
        for process in running:
            process.kill()
    assert [process.returncode for process in running] == [0] * count, said
    assert "given weights" in said[0] and all(line.startswith("[Gloo]") for words in said[1:] for line in words.splitlines())
    lines = (folder / "said.jsonl").read_text().splitlines()
    return json.loads((folder / "probe.json").read_text()), [json.loads(line) for line in lines]


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_two_processes_score_each_sample_once_and_alike(trained_run: Path, shard_folder: Path, tmp_path: Path) -> None:
    settings = {"weights": trained_run, "train_shards": shard_folder, "val_shards": write_set(tmp_path / "val", VAL)}

    def run(count: int, features: str) -> tuple[dict[str, Any], list[dict[str, Any]]]:
        folder = tmp_path / f"{count} {features}"
        folder.mkdir()
        values = settings | {"features": features, "cache": folder / "cache"}
        return probed(count, folder, *(f"--config.{key}={value}" for key, value in values.items()))

    one, said_by_one = run(1, "memory")
    for features in ("memory", "disk", "encode"):
        two, said_by_two = run(2, features)
        assert two["probe"] == one["probe"] and {row["samples"] for row in two["rows"]} == {VAL}
        keys = Counter(line["key"] for line in said_by_two)
        assert len(keys) == VAL and set(keys.values()) == {2}  # given weights, untrained
        for a, b in zip(said_by_one, said_by_two, strict=True):
            assert (a["key"], a["classes"]) == (b["key"], b["classes"])
            assert a["probabilities"] == pytest.approx(b["probabilities"], abs=1e-3)
