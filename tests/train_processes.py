"""`ove train` as a test starts it: one process, or several on this machine that meet at a free port."""

import json
import os
import re
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ove.train.checkpoints.checkpoint import Checkpoints, Leaf

ROOT = Path(__file__).resolve().parents[1]
EXACT = re.compile(r"step|order|bad_records|lr.*|loss.*|grad_norm/.*|embedding_cosine/.*")
"""What is logged that depends on nothing but the run; the rest are times and memory."""
CONFIG = """
from ml_collections import ConfigDict

def get_config(arg=""):
    c = ConfigDict()
    c.batches = dict(budget_tokens=16, gop_frames=4, heads=[
        dict(bank="vid", batch_size=8, negatives=0.5, labels_per_step=2)])
    c.encoder = dict(layers=1, width=64, heads=2, mlp=64)
    c.train = dict(warmup_steps=3, log_every=1, log_images=0, barrier_timeout_s=120, heartbeat_timeout_s=10)
    return c
"""


class Job:
    """All processes of one run, with `devices` devices among them."""

    def __init__(self, workdir: Path, shards: Path, compiled: Path, processes: int = 1, devices: int = 2) -> None:
        workdir.parent.mkdir(parents=True, exist_ok=True)
        self.workdir, self.count = workdir, processes
        config = workdir.with_suffix(".py")
        config.write_text(CONFIG)
        self.command = [sys.executable, "-m", "launch.train", f"--config={config}", f"--workdir={workdir}"]
        self.command += [f"--config.batches.shards={shards}"]
        self.environment = os.environ | {
            "XLA_FLAGS": f"--xla_force_host_platform_device_count={devices // processes}",
            "JAX_COMPILATION_CACHE_DIR": str(compiled),
            "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0.2",
        }
        self.running: list[subprocess.Popen[bytes]] = []
        self.started_s = 0.0

    def start(self, *options: str, each: Callable[[int], list[str]] = lambda index: []) -> None:
        """`options` for all processes, `each(index)` for single ones."""
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        self.started_s = time.time()
        for index in range(self.count):
            address = [f"--coordinator=localhost:{port}", f"--num-processes={self.count}", f"--process-id={index}"]
            with self.said(index).open("wb") as file:
                self.running.append(
                    subprocess.Popen(
                        [*self.command, *(address if self.count > 1 else ()), *options, *each(index)],
                        cwd=ROOT,
                        env=self.environment,
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def ended(self, within_s: float = 900) -> list[int]:
        """Exit codes of all processes; those that do not end in time are killed, and that is an error."""
        deadline = time.monotonic() + within_s
        try:
            codes = [process.wait(max(0.1, deadline - time.monotonic())) for process in self.running]
        finally:
            for process in self.running:
                process.kill()
            self.running = []
        return codes

    def to_the_end(self, *options: str) -> None:
        self.start(*options)
        codes = self.ended()
        assert codes == [0] * self.count, self.said(0).read_text()[-3000:]

    def signal(self, index: int, number: signal.Signals) -> None:
        self.running[index].send_signal(number)

    def wait_until(self, reached: Callable[[], bool], within_s: float = 900) -> None:
        """All processes must still run when it is reached."""
        deadline = time.monotonic() + within_s
        while not reached():
            assert all(process.poll() is None for process in self.running), self.said(0).read_text()[-3000:]
            assert time.monotonic() < deadline
            time.sleep(0.002)

    def said(self, index: int) -> Path:
        """Where the output of a process is."""
        return self.workdir.with_name(f"{self.workdir.name}.{index}.txt")

    def lines(self) -> list[dict[str, Any]]:
        """What was logged, without times."""
        path = self.workdir / "metrics.jsonl"
        whole = [line for line in path.read_text().splitlines(True) if line.endswith("\n")] if path.exists() else []
        return [{name: value for name, value in json.loads(line).items() if EXACT.fullmatch(name)} for line in whole]

    def steps(self) -> int:
        """The last step logged, 0 if there is none."""
        lines = self.lines()
        return lines[-1]["step"] if lines else 0

    def saved(self) -> int:
        """The newest step whose checkpoint is finished, 0 if there is none."""
        return max((int(path.name) for path in (self.workdir / "checkpoints").glob("*") if path.name.isdigit()), default=0)

    def has_logged(self) -> bool:
        """Whether something was logged since the start."""
        path = self.workdir / "metrics.jsonl"
        return path.exists() and path.stat().st_mtime > self.started_s and bool(self.lines())

    def is_saving(self) -> bool:
        """Whether a checkpoint that was begun since the start is half-written."""
        try:
            begun = [path.stat().st_mtime for path in (self.workdir / "checkpoints").glob("*tmp*")]
        except FileNotFoundError:  # it was finished in between
            return False
        return any(time_s > self.started_s for time_s in begun)

    def leaves(self, step: int) -> dict[str, Leaf]:
        """Kinds and fingerprints of a saved state."""
        with Checkpoints(self.workdir) as checkpoints:
            return checkpoints.meta(step).leaves
