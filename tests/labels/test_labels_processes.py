"""ove labels as several processes is one job: the same bytes as one process writes, and an end together."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from launch import labels as command

Write = Callable[[Path, int], None]
ROOT = Path(__file__).parents[2]
SETTINGS = ["--bank", "vid", "--centers", "10", "--labels", "3", "--iterations", "2", "--set", "labels.chunk_records=8"]
SETTINGS += ["--set", "labels.heartbeat_timeout_s=10", "--set", "labels.barrier_timeout_s=300"]


class Job:
    """Two processes with two devices each."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.running: list[subprocess.Popen[bytes]] = []

    def start(self, *options: str, each: Callable[[int], list[str]] = lambda index: []) -> None:
        with socket.socket() as free:
            free.bind(("localhost", 0))
            port = free.getsockname()[1]
        for index in (0, 1):
            address = [f"--coordinator=localhost:{port}", "--num-processes=2", f"--process-id={index}"]
            with self.said(index).open("wb") as file:
                self.running.append(
                    subprocess.Popen(
                        [sys.executable, "-m", "launch.labels", *options, *SETTINGS, *address, *each(index)],
                        cwd=ROOT,
                        env=os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"},
                        stdout=file,
                        stderr=subprocess.STDOUT,
                    )
                )

    def ended(self, within_s: float = 800) -> list[int]:
        deadline = time.monotonic() + within_s
        return [process.wait(max(0.1, deadline - time.monotonic())) for process in self.running]

    def said(self, index: int) -> Path:
        return self.folder / f"said.{index}.txt"


@pytest.fixture
def job(tmp_path: Path) -> Iterator[Job]:
    job = Job(tmp_path)
    yield job
    for process in job.running:
        process.kill()
        process.wait()


def _left(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "labels").rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


@pytest.mark.parametrize("start", ["random", pytest.param("two_level", marks=pytest.mark.slow)])
def test_two_processes_leave_what_one_leaves(write_kinds: Write, tmp_path: Path, job: Job, start: str) -> None:
    write_kinds(tmp_path / "one", 40)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    settings = ["--set", f"labels.start={start}"]
    settings += ["--set", "labels.duplicates=near", "--set", "labels.threshold=0.9999"] if start == "two_level" else []
    job.start("all", "--shards", str(tmp_path / "two"), *settings)
    assert command.main(["all", "--shards", str(tmp_path / "one"), *SETTINGS, *settings]) == 0
    assert job.ended() == [0, 0], job.said(0).read_text()[-3000:] + job.said(1).read_text()[-3000:]
    wanted = _left(tmp_path / "one")
    assert len(wanted) > 15 and _left(tmp_path / "two") == wanted
    assert "vid: 40 records, 3 labels each of 10 centers" in job.said(0).read_text()
    assert "vid:" not in job.said(1).read_text()


@pytest.mark.slow
def test_what_is_wrong_with_one_ends_both_with_its_sentence(write_kinds: Write, tmp_path: Path, job: Job) -> None:
    write_kinds(tmp_path / "set", 40)
    job.start("embed", each=lambda index: ["--shards", str(tmp_path / ("set" if index == 0 else "nowhere"))])
    assert job.ended(120) == [69, 2]
    assert f"process 1 of 2 ended: {tmp_path}/nowhere: no such shard folder" in job.said(0).read_text()
    assert "no such shard folder" in job.said(1).read_text()


@pytest.mark.slow
def test_different_settings_are_refused_by_both(write_kinds: Write, tmp_path: Path, job: Job) -> None:
    write_kinds(tmp_path / "set", 40)
    job.start("all", "--shards", str(tmp_path / "set"), each=lambda index: ["--seed", str(index)])
    assert job.ended(120) == [2, 2]
    assert "process 1 has another set of embeddings or of settings than process 0" in job.said(0).read_text()
    assert not (tmp_path / "set" / "labels" / "steps" / "vid" / "kmeans.json").exists()


@pytest.mark.slow
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_lost_ends_the_other_and_started_again_they_go_on(
    write_kinds: Write, tmp_path: Path, job: Job, lost: int
) -> None:
    write_kinds(tmp_path / "one", 400)
    shutil.copytree(tmp_path / "one", tmp_path / "two")
    long = ["--set", "labels.start=random", "--centers", "150", "--iterations", "400"]
    job.start("all", "--shards", str(tmp_path / "two"), each=lambda index: long)
    state = tmp_path / "two" / "labels" / "steps" / "vid" / "kmeans.json"
    while not state.exists():
        assert all(process.poll() is None for process in job.running), job.said(0).read_text()[-3000:]
        time.sleep(0.01)
    job.running[lost].send_signal(signal.SIGKILL)
    codes = job.ended(60)
    assert codes[lost] == -signal.SIGKILL and codes[1 - lost] != 0
    job.running = []
    job.start("all", "--shards", str(tmp_path / "two"), each=lambda index: long)
    assert job.ended() == [0, 0], job.said(0).read_text()[-3000:]
    assert command.main(["all", "--shards", str(tmp_path / "one"), *SETTINGS, *long]) == 0
    assert _left(tmp_path / "two") == _left(tmp_path / "one")
