"""Several processes are one run: the same losses, one log, an end together."""

import json
import os
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
from train_processes import ROOT, Job

from ove.distributed import EXIT_PREEMPTED, Address, Processes, address_of, cluster_detected
from ove.errors import ConfigError

MEET = """
import sys
import jax, jax.numpy as jnp, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from ove.errors import ConfigError, TrainingStopped
from ove import distributed as processes
from ove.train.checkpoints.integrity import fingerprints

index, port = int(sys.argv[1]), sys.argv[2]
processes.initialize(processes.Address(f"localhost:{port}", 2, index), 60, 20)
ours = processes.Processes(60)
print(ours.all_gather("names", f"I am {index}"))
ours.assert_equal("colour", "red")
try:
    ours.assert_equal("taste", f"taste {index}")
except ConfigError as error:
    print(error)
values = np.arange(96, dtype=np.float32).reshape(8, 12)
mesh = Mesh(np.array(jax.devices()), ("data",))
spread = jax.make_array_from_callback(values.shape, NamedSharding(mesh, PartitionSpec("data")), lambda at: values[at])
print(fingerprints({"a": spread}) == fingerprints({"a": jnp.asarray(values)}), spread.is_fully_addressable)
if index == 0:
    try:
        processes.Processes(1).barrier("lunch")
    except TrainingStopped as error:
        print(error)
ours.all_gather("the end", "")  # until then the other is there, but does not come to lunch
sys.stdout.flush()
processes.exit(3)
"""


def test_processes_meet_agree_and_say_who_is_missing() -> None:
    with socket.socket() as free:
        free.bind(("localhost", 0))
        port = str(free.getsockname()[1])
    environment = os.environ | {"XLA_FLAGS": "--xla_force_host_platform_device_count=2"}
    both = [
        subprocess.Popen([sys.executable, "-c", MEET, str(index), port], cwd=ROOT, env=environment, stdout=subprocess.PIPE)
        for index in (0, 1)
    ]
    said = [process.communicate(timeout=800)[0].decode() for process in both]
    for text in said:
        assert "['I am 0', 'I am 1']" in text
        assert "process 1 has another taste than process 0; start all with the same command and the same files." in text
        assert "colour" not in text
        assert "True False" in text
    assert "process 1 of 2 did not come to 'lunch' within 1 s, where process 0 waits" in said[0]
    assert both[0].returncode == 3


def test_alone_nobody_is_waited_for() -> None:
    alone = Processes(1.0)
    assert (alone.index, alone.count) == (0, 1)
    assert alone.all_gather("anything", "word") == ["word"]
    alone.barrier("anywhere")


def test_hosts_that_a_file_lists_are_several(tmp_path: Path) -> None:
    listed = tmp_path / "addresses"
    assert not cluster_detected({"TPU_PROCESS_ADDRESSES_PATH": str(listed)})
    for names, several in (("t-0.t:8471\n", False), ("t-0.t:8471,t-1.t:8471\n", True)):
        listed.write_text(names)
        assert cluster_detected({"TPU_PROCESS_ADDRESSES_PATH": str(listed)}) == several


def test_an_address_is_given_whole_or_not_at_all() -> None:
    assert address_of(None, None, None, {}) is None
    assert address_of("a:1", 2, 0, {}) == Address("a:1", 2, 0)
    environment = {"JAX_COORDINATOR_ADDRESS": "10.0.0.1:8476", "JAX_NUM_PROCESSES": "4", "JAX_PROCESS_ID": "3"}
    assert address_of(None, None, None, environment) == Address("10.0.0.1:8476", 4, 3)
    assert address_of(None, None, 1, environment) == Address("10.0.0.1:8476", 4, 1)
    with pytest.raises(ConfigError, match=r"^--num-processes, --process-id must be given too"):
        address_of("a:1", None, None, {})
    for wrong in ("a", "a:b", ":1"):
        with pytest.raises(ConfigError, match="must be HOST:PORT"):
            address_of(wrong, 2, 0, {})
    for count, index in ((2, 2), (2, -1), (0, 0)):
        with pytest.raises(ConfigError, match=rf"--process-id {index} must be within"):
            address_of("a:1", count, index, {})


def test_clusters_announce_themselves() -> None:
    assert not cluster_detected({})
    assert not cluster_detected({"SLURM_STEP_NUM_TASKS": "1", "TPU_WORKER_HOSTNAMES": "localhost", "JAX_NUM_PROCESSES": ""})
    assert cluster_detected({"SLURM_STEP_NUM_TASKS": "16"})
    assert cluster_detected({"OMPI_COMM_WORLD_SIZE": "2"})
    assert cluster_detected({"TPU_WORKER_HOSTNAMES": "t-0.t,t-1.t"})
    # Slices of one host each.
    assert cluster_detected({"TPU_WORKER_HOSTNAMES": "t-0.t", "MEGASCALE_NUM_SLICES": "2"})
    assert not cluster_detected({"TPU_WORKER_HOSTNAMES": "t-0.t", "MEGASCALE_NUM_SLICES": "1"})


SLOW_SAVE = """
import sys, time
import jax
from launch import train
from launch.cli.command import run_command
from ove.train.checkpoints import checkpoint
from ove import distributed as processes

save = checkpoint.Checkpoints.save

def slowly(*arguments):
    save(*arguments)
    time.sleep(4.0 * jax.process_index())

checkpoint.Checkpoints.save = slowly
run_command(lambda: train.main(sys.argv[1:]), processes.exit)
"""


def losses(job: Job) -> list[float]:
    return [line["loss"] for line in job.lines()]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_several_processes_are_one_run(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    jobs = [Job(tmp_path / f"of_{n}", shard_folder, compiled_programs, n, devices=4) for n in (1, 2, 4)]
    for job in jobs:
        job.to_the_end("--config.train.steps=8", "--config.train.save_every=4")
        assert losses(job) == pytest.approx(losses(jobs[0]), rel=1e-6) and len(losses(job)) == 8
        assert sorted(path.name for path in (job.workdir / "checkpoints").iterdir()) == ["4", "8"]
    for index in (1, 2, 3):
        assert "step 1/8" not in jobs[2].said(index).read_text()
    parts = sorted(path.name for path in (jobs[2].workdir / "checkpoints" / "8" / "state").glob("ocdbt.process_*"))
    assert parts == [f"ocdbt.process_{index}" for index in range(4)]


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_told_to_stop_all_stop_together_and_go_on_in_other_numbers(
    shard_folder: Path, tmp_path: Path, compiled_programs: Path
) -> None:
    steps = "--config.train.steps=60"
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.start(steps)
    job.wait_until(lambda: job.steps() >= 3)
    job.signal(1, signal.SIGTERM)
    assert job.ended(300) == [EXIT_PREEMPTED] * 2
    stopped_at = job.steps()
    assert 3 <= stopped_at < 50
    assert f"stopped by SIGTERM: step {stopped_at} is saved" in job.said(0).read_text()
    alone = Job(tmp_path / "run", shard_folder, compiled_programs, 1)
    alone.to_the_end(steps)
    assert f"resumed from step {stopped_at} of" in alone.said(0).read_text()
    undisturbed = Job(tmp_path / "undisturbed", shard_folder, compiled_programs, 1)
    undisturbed.to_the_end(steps)
    assert losses(alone) == pytest.approx(losses(undisturbed), rel=1e-6)


@pytest.mark.slow
@pytest.mark.timeout(3000)
@pytest.mark.parametrize("lost", [0, 1])
def test_a_process_that_is_lost_ends_the_other(lost: int, shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.start("--config.train.steps=2000")
    job.wait_until(lambda: job.steps() >= 3)
    job.signal(lost, signal.SIGKILL)
    codes = job.ended(300)  # heartbeat_timeout_s is 10
    assert codes[lost] == -signal.SIGKILL and codes[1 - lost] not in (0, EXIT_PREEMPTED)


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_a_process_that_stands_still_ends_the_other(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.start("--config.train.steps=2000")
    job.wait_until(lambda: job.steps() >= 3)
    frozen = job.running.pop(1)
    frozen.send_signal(signal.SIGSTOP)
    try:
        assert job.ended(300)[0] not in (0, EXIT_PREEMPTED)
    finally:
        frozen.kill()
        frozen.wait()


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_waiting_for_another_process_to_save_belongs_to_no_step(
    shard_folder: Path, tmp_path: Path, compiled_programs: Path
) -> None:
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.command[1:3] = ["-c", SLOW_SAVE]
    job.to_the_end("--config.train.steps=6", "--config.train.save_every=3")
    lines = [json.loads(line) for line in (job.workdir / "metrics.jsonl").read_text().splitlines()]
    assert [line["step"] for line in lines] == [1, 2, 3, 4, 5, 6]
    assert lines[3]["step_ms"] < 3000


@pytest.mark.slow
@pytest.mark.timeout(3000)
def test_different_settings_are_refused_by_all(shard_folder: Path, tmp_path: Path, compiled_programs: Path) -> None:
    job = Job(tmp_path / "run", shard_folder, compiled_programs, 2)
    job.start(each=lambda index: [f"--config.train.seed={index}"])
    assert job.ended(600) == [2, 2]
    assert "process 1 has another configuration than process 0" in job.said(0).read_text()
    assert not (job.workdir / "checkpoints").exists()
