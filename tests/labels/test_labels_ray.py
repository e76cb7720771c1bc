"""The same step on a Ray cluster of two nodes: complete, exact, the poison set aside, the same bytes as on local processes."""

import importlib
import importlib.util
import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import yaml
from shard_jobs import jobs_of, process

from ove.config import EnginesConfig
from ove.errors import ConfigError
from ove.labels.engines.cluster import ray_engine
from ove.labels.engines.run import run

HERE, ROOT = Path(__file__).parent, Path(__file__).parents[2]
SHARDS, POISON = 200, ("00017.txt", "00090.txt", "00151.txt")
needs_ray = pytest.mark.skipif(
    importlib.util.find_spec("ray") is None,
    reason="Ray is not installed (.venv/bin/python -m pip install -r requirements-ray.txt)",
)


def outputs(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir() if path.name not in (".lock", "dead-letters.jsonl")}


def run_program(name: str, *arguments: object) -> None:
    environment = os.environ | {"RAY_USAGE_STATS_ENABLED": "0", "PYTHONPATH": os.fspath(ROOT)}
    program = [sys.executable, os.fspath(HERE / name), *map(str, arguments)]
    done = subprocess.run(program, env=environment, capture_output=True, text=True, timeout=800)
    assert done.returncode == 0, done.stderr[-2000:]


@pytest.fixture(scope="module")
def local_outputs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, bytes]:
    """What the local engine makes of the 197 good shards."""
    folder = tmp_path_factory.mktemp("local")
    good = [job for job in jobs_of(SHARDS, pause_s=0.05) if job.name not in POISON]
    run(process, good, folder, EnginesConfig(workers=2), lambda progress: None)
    return outputs(folder)


@needs_ray
@pytest.mark.slow
@pytest.mark.parametrize("actors", [0, 3], ids=["tasks", "actors"])
def test_two_nodes_with_workers_killed_do_what_local_processes_do(
    actors: int, local_outputs: dict[str, bytes], tmp_path: Path
) -> None:
    run_program("ray_two_nodes.py", tmp_path, actors)
    result = json.loads((tmp_path / "result.json").read_text())
    assert result["nodes"] == 2
    assert result["killed"] >= 5
    assert result["done"] == SHARDS - len(POISON)
    assert tuple(letter["name"] for letter in result["dead"]) == POISON
    assert {letter["attempts"] for letter in result["dead"]} == {3}
    crashed, raised, hung = (letter["reason"] for letter in result["dead"])
    assert raised == "shard 90 is damaged; write it again."
    assert "died or took too long" in crashed and "died or took too long" in hung
    assert result["last"] == {"done": 197, "total": 200, "earlier": 0, "failed": 3}
    assert result["connected_still"]  # a connection that was there before is left as it was
    assert outputs(tmp_path / "ray") == local_outputs
    letters = [json.loads(line) for line in (tmp_path / "ray" / "dead-letters.jsonl").read_text().splitlines()]
    assert letters == result["dead"]


def test_without_ray_it_says_what_to_install(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "ray", None)
    with pytest.raises(ConfigError, match=r"Ray is not installed.*requirements-ray\.txt"), ray_engine(EnginesConfig()):
        pass


@needs_ray
def test_an_address_where_nobody_listens_is_told_at_once() -> None:
    with pytest.raises(ConfigError, match=r"engines\.ray_address = '127\.0\.0\.1:1': no Ray cluster answers"):
        ray_engine(EnginesConfig(ray_address="127.0.0.1:1")).__enter__()


@needs_ray
def test_the_cluster_file_is_what_ray_expects() -> None:
    found = yaml.safe_load((ROOT / "launch" / "ray_cluster.yaml").read_text())
    rules = importlib.import_module("ray.autoscaler._private.util")
    rules.validate_config(rules.prepare_config(found))
    assert found["min_workers"] == found["max_workers"] == len(found["provider"]["worker_ips"])
