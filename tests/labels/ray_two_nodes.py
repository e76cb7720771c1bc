"""A program (arguments OUT ACTORS): a Ray cluster of two nodes here, 200 shards, workers killed in the middle, 3 poison shards.

What came of it goes to OUT/result.json. It is a process of its own, for Ray does not leave one as it found it.
"""

import json
import os
import random
import signal
import sys
import threading
import time
from pathlib import Path

import ray
from ray.cluster_utils import Cluster
from shard_jobs import jobs_of, process

from ove.config import EnginesConfig
from ove.labels.engines.cluster import ray_engine
from ove.labels.engines.run import StepProgress, run

SHARDS, KILLS = 200, 8
POISON = {17: "crash", 90: "raise", 151: "hang"}


class Killer(threading.Thread):
    """Kills a worker that is at work now and then, never over the same shard twice."""

    def __init__(self, pids: Path) -> None:
        super().__init__(daemon=True)
        self.pids, self.done, self.enough = pids, [], threading.Event()

    def run(self) -> None:
        hit: set[str] = set()
        while len(self.done) < KILLS and not self.enough.wait(0.15):
            at_work = [(p.name, p.read_text()) for p in self.pids.iterdir()]
            at_work = [(pid, n) for pid, n in at_work if n and int(n) not in POISON and n not in hit and alive(pid)]
            if at_work:
                pid, n = random.choice(at_work)
                hit.add(n)
                os.kill(int(pid), signal.SIGKILL)
                self.done.append(n)


def alive(pid: str) -> bool:
    return Path(f"/proc/{pid}").exists()


def main(out: Path, actors: int) -> None:
    pids = out / "pids"
    pids.mkdir(parents=True)
    cluster = Cluster(initialize_head=True, head_node_args={"num_cpus": 2, "include_dashboard": False})
    cluster.add_node(num_cpus=2)
    ray.init(address=cluster.address, log_to_driver=False)
    killer = Killer(pids)
    seen: list[StepProgress] = []
    config = EnginesConfig(retries=2, time_limit_s=4, max_dead_share=0.05, ray_actors=actors)
    started = time.monotonic()
    try:
        nodes = sum(node["Alive"] for node in ray.nodes())
        killer.start()
        with ray_engine(config) as engine:
            found = run(process, jobs_of(SHARDS, POISON, pids, 0.05), out / "ray", config, seen.append, engine)
        killer.enough.set()
        result = {
            "nodes": nodes,
            "done": len(found.done),
            "dead": [vars(letter) for letter in found.dead],
            "killed": len(killer.done),
            "connected_still": ray.is_initialized(),
            "last": vars(seen[-1]),
            "seconds": round(time.monotonic() - started, 1),
        }
        (out / "result.json").write_text(json.dumps(result))
    finally:
        ray.shutdown()
        cluster.shutdown()


if __name__ == "__main__":
    main(Path(sys.argv[1]), int(sys.argv[2]))
