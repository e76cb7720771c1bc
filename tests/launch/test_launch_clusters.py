"""The scripts for clusters: no shell mistakes, commands as announced, failures and signals handed on; no cluster is needed."""

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import train
from ove.distributed import EXIT_PREEMPTED
from ove.train.hosts.watchdog import EXIT_STUCK

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "launch" / "cluster"
SCRIPTS = sorted((ROOT / "launch").rglob("*.sh"))
WORDS = ["--config=configs/toy.py", "--workdir=/a b", "--config.train.steps=5"]
TRAIN = "-m launch.train --config=configs/toy.py --workdir=/a\\ b --config.train.steps=5"

HIDING = "--xla_gpu_enable_latency_hiding_scheduler"
ENVIRONMENT = ["export XLA_CLIENT_MEM_FRACTION=0.9", f"export XLA_FLAGS={HIDING}=true"]

Say = Callable[..., subprocess.CompletedProcess[str]]


@pytest.fixture
def say(tmp_path: Path) -> Say:
    """Runs a script of launch/cluster, where programs in `tmp_path` go before the system's and PYTHON is one of them."""

    def run(script: str, *words: str, **env: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(
            ["bash", str(CLUSTER / script), *words],
            env=environment(tmp_path) | env,
            capture_output=True,
            text=True,
            timeout=600,
        )

    return run


def environment(programs: Path) -> dict[str, str]:
    path = f"{programs}:{os.environ['PATH']}"
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("SLURM", "XLA_"))}
    return kept | {"PATH": path, "PYTHON": "python-of-the-test"}


def program(folder: Path, name: str, body: str) -> None:
    """A program that notes its arguments in `NAME.said`, a line each time, and then does what `body` says."""
    path = folder / name
    path.write_text(f'#!/usr/bin/env bash\necho "$@" >>"{folder}/{name}.said"\n{body}\n')
    path.chmod(0o755)


def said(folder: Path, name: str) -> list[str]:
    path = folder / f"{name}.said"
    return path.read_text().splitlines() if path.exists() else []


def test_the_scripts_have_no_mistakes_that_shellcheck_knows() -> None:
    assert {path.name for path in SCRIPTS} >= {
        "setup.sh",
        "accelerators.sh",
        "one_machine.sh",
        "gpus.sh",
        "slurm.sh",
        "tpu_pod.sh",
    }
    shellcheck = [str(Path(sys.executable).with_name("shellcheck")), "--external-sources", f"--source-path={ROOT}"]
    checked = subprocess.run([*shellcheck, *map(str, SCRIPTS)], capture_output=True, text=True, check=False)
    assert checked.returncode == 0, checked.stdout


@pytest.mark.parametrize(
    ("script", "before", "lines"),
    [
        ("one_machine.sh", [], [f"python-of-the-test {TRAIN}"]),
        (
            "gpus.sh",
            ["--gpus", "0,3", "--port", "9000"],
            [
                f"env CUDA_VISIBLE_DEVICES={gpu} python-of-the-test {TRAIN} --coordinator=127.0.0.1:9000 --num-processes=2 "
                f"--process-id={i}"
                for i, gpu in enumerate((0, 3))
            ],
        ),
        (
            "slurm.sh",
            [],
            [
                f"srun --kill-on-bad-exit=1 --label python-of-the-test {TRAIN}",
                "scontrol requeue JOB     # after 75 (told to stop, saved); up to 20 times after 70 (stuck), a crash",
            ],
        ),
    ],
)
def test_a_dry_run_shows_what_would_be_run(say: Say, tmp_path: Path, script: str, before: list[str], lines: list[str]) -> None:
    done = say(script, "--dry-run", *before, *WORDS)
    assert done.returncode == 0, done.stderr
    assert [line.rstrip() for line in done.stdout.splitlines()] == [*ENVIRONMENT, *lines]
    assert not list(tmp_path.glob("*.said"))


@pytest.mark.parametrize("script", ["one_machine.sh", "gpus.sh", "slurm.sh"])
def test_jax_gets_the_environment_of_accelerators_unless_it_is_set(say: Say, tmp_path: Path, script: str) -> None:
    program(tmp_path, "python-of-the-test", f'env | grep "^XLA_" | sort >"{tmp_path}/env"')
    program(tmp_path, "srun", f'env | grep "^XLA_" | sort >"{tmp_path}/env"')
    words = ["--gpus", "0", *WORDS] if script == "gpus.sh" else WORDS
    for given, expected in (
        ({}, {"XLA_CLIENT_MEM_FRACTION": "0.9", "XLA_FLAGS": f"{HIDING}=true"}),
        # jaxlib refuses both names at once.
        ({"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5"}, {"XLA_PYTHON_CLIENT_MEM_FRACTION": "0.5", "XLA_FLAGS": f"{HIDING}=true"}),
        ({"XLA_CLIENT_MEM_FRACTION": ".8", "XLA_FLAGS": "--xla_a=1"}, {"XLA_FLAGS": f"--xla_a=1 {HIDING}=true"}),
        ({"XLA_FLAGS": f"{HIDING}=false"}, {"XLA_CLIENT_MEM_FRACTION": "0.9"}),
    ):
        done = say(script, *words, SLURM_SUBMIT_DIR=str(ROOT), **given)
        assert done.returncode == 0, done.stderr
        found = dict(line.split("=", 1) for line in (tmp_path / "env").read_text().splitlines())
        assert found == given | expected


def test_jax_takes_the_flags_of_accelerators() -> None:
    """Unknown flags would end the process, on every platform."""
    source = 'source launch/cluster/accelerators.sh && exec "$0" -c "import jax; print(jax.jit(lambda x: x + 1)(1))"'
    done = subprocess.run(["bash", "-c", source, sys.executable], cwd=ROOT, capture_output=True, text=True, timeout=300)
    assert (done.returncode, done.stdout) == (0, "2\n"), done.stderr


def test_the_flags_of_the_scripts_are_flags_of_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit):
        train.main(["--help"])
    known = set(re.findall(r"--[a-z-]+", capsys.readouterr().out))
    used = {
        flag
        for path in CLUSTER.iterdir()
        for line in path.read_text().splitlines()
        if "launch.train" in line or "--coordinator" in line
        for flag in re.findall(r"--(?:coordinator|num-processes|process-id|distributed|profile)\b", line)
    }
    assert used == {"--coordinator", "--num-processes", "--process-id", "--distributed"}
    assert used <= known
    codes = {f"{EXIT_PREEMPTED}", f"{EXIT_STUCK}"}
    assert codes <= set(re.findall(r"\b\d\d\b", (CLUSTER / "slurm.sh").read_text()))


@pytest.mark.parametrize("script", ["one_machine.sh", "gpus.sh", "slurm.sh", "tpu_pod.sh"])
def test_without_arguments_a_script_says_how_it_is_used(say: Say, script: str) -> None:
    done = say(script)
    assert done.returncode == 2 and done.stderr.startswith("usage: ") and done.stdout == ""


def test_one_machine_starts_again_after_a_preemption_and_a_crash_but_not_after_an_error(say: Say, tmp_path: Path) -> None:
    program(
        tmp_path,
        "python-of-the-test",
        f'n=$(wc -l <"{tmp_path}/python-of-the-test.said"); exit "$(cut -d" " -f$n <<<"$CODES")"',
    )
    for codes, restarts, last in (
        ("75 139 70 0", 5, 0),
        ("75 2 0", 5, 2),
        ("75 75 75", 1, 75),
        ("70 0", 0, 70),
        ("130 0", 5, 130),
    ):
        (tmp_path / "python-of-the-test.said").unlink(missing_ok=True)
        done = say("one_machine.sh", "--restarts", str(restarts), *WORDS, CODES=codes)
        assert done.returncode == last, (codes, done.stderr)
        starts = said(tmp_path, "python-of-the-test")
        assert len(starts) == (codes.split().index(str(last)) + 1 if last != 75 else 2)
        assert set(starts) == {TRAIN.replace("\\", "")}


def test_a_signal_reaches_the_run_and_is_no_reason_to_start_again(tmp_path: Path) -> None:
    program(tmp_path, "python-of-the-test", 'trap "exit 75" TERM; touch "$0.up"; while :; do sleep 0.05; done')
    words = ["bash", str(CLUSTER / "one_machine.sh"), "--restarts", "3", *WORDS]
    running = subprocess.Popen(words, env=environment(tmp_path))
    wait_for(tmp_path / "python-of-the-test.up")
    running.send_signal(signal.SIGTERM)
    assert running.wait(timeout=300) == 75
    assert len(said(tmp_path, "python-of-the-test")) == 1


def wait_for(path: Path) -> None:
    until = time.monotonic() + 300
    while not path.exists() and time.monotonic() < until:
        time.sleep(0.02)
    assert path.exists()


def test_a_process_that_fails_ends_those_of_the_other_gpus(say: Say, tmp_path: Path) -> None:
    waits = 'trap "touch $0.told; exit 75" TERM; touch "$0.up.$$"; while :; do sleep 0.05; done'
    fails = 'while [ "$(ls "$0".up.* 2>/dev/null | wc -l)" -lt 2 ]; do sleep 0.05; done; exit 2'
    program(tmp_path, "python-of-the-test", f'case "$*" in *--process-id=1*) {fails} ;; esac\n{waits}')
    done = say("gpus.sh", "--gpus", "0,1,2", *WORDS)
    assert done.returncode == 2, done.stderr
    assert (tmp_path / "python-of-the-test.told").exists()
    assert len(said(tmp_path, "python-of-the-test")) == 3


@pytest.mark.parametrize(("codes", "last"), [((69, 2), 2), ((2, 69), 2), ((69, 139), 139), ((69, 69), 69)])
def test_the_process_that_was_lost_says_why_not_those_that_lost_it(
    say: Say, tmp_path: Path, codes: tuple[int, int], last: int
) -> None:
    program(tmp_path, "python-of-the-test", f'case "$*" in *--process-id=1*) exit {codes[1]} ;; esac; exit {codes[0]}')
    assert say("gpus.sh", "--gpus", "0,1", *WORDS).returncode == last


def test_gpus_are_counted_by_nvidia_smi(say: Say, tmp_path: Path) -> None:
    program(tmp_path, "nvidia-smi", "printf '0\\n1\\n'")
    program(tmp_path, "python-of-the-test", "echo $CUDA_VISIBLE_DEVICES")
    done = say("gpus.sh", *WORDS)
    assert done.returncode == 0 and sorted(done.stdout.split()) == ["0", "1"]
    program(tmp_path, "nvidia-smi", "exit 9")
    done = say("gpus.sh", *WORDS)
    assert done.returncode == 2 and "error: no GPUs found" in done.stderr


@pytest.mark.parametrize(
    ("code", "before", "requeued"),
    [
        *((code, 0, False) for code in (0, 1, 2, 130)),
        *((code, 19, True) for code in (69, 70, 75, 134, 137, 139, 143)),
        *((code, 20, False) for code in (69, 70, 137)),
        (75, 99, True),
    ],
)
def test_slurm_requeues_what_a_restart_can_mend_but_not_without_end(
    say: Say, tmp_path: Path, code: int, before: int, requeued: bool
) -> None:
    program(tmp_path, "srun", f"exit {code}")
    program(tmp_path, "scontrol", "")
    done = say("slurm.sh", *WORDS, SLURM_JOB_ID="17", SLURM_RESTART_COUNT=str(before), SLURM_SUBMIT_DIR=str(ROOT))
    assert done.returncode == code
    assert said(tmp_path, "scontrol") == (["requeue 17"] if requeued else [])
    assert said(tmp_path, "srun") == [f"--kill-on-bad-exit=1 --label python-of-the-test {TRAIN}".replace("\\", "")]
    assert "warning: no --cpus-per-task" in done.stderr
    elsewhere = say("slurm.sh", *WORDS, SLURM_SUBMIT_DIR=str(tmp_path))
    assert elsewhere.returncode == 2 and "is not the folder of this project" in elsewhere.stderr


def test_slurm_tasks_get_the_cores_that_the_job_asked_for(say: Say, tmp_path: Path) -> None:
    program(tmp_path, "srun", "")
    done = say("slurm.sh", *WORDS, SLURM_SUBMIT_DIR=str(ROOT), SLURM_CPUS_PER_TASK="12")
    assert done.returncode == 0 and done.stderr == ""
    (words,) = said(tmp_path, "srun")
    assert words.startswith("--kill-on-bad-exit=1 --label --cpus-per-task=12 python-of-the-test -m launch.train ")


@pytest.mark.parametrize("found", ["3.12", ""])
def test_tpu_workers_get_a_python_where_their_image_has_none(say: Say, tmp_path: Path, found: str) -> None:
    program(tmp_path, "gcloud", 'printf "%s\\n" "$@" >>"$0.words"')
    assert say("tpu_pod.sh", "pod", "zone-a", "setup").returncode == 0
    command = (tmp_path / "gcloud.words").read_text().splitlines()[-1].removeprefix("--command=")
    home = tmp_path / "home"
    (home / "checkout" / "launch").mkdir(parents=True)
    says = 'if [ "$1" = --found ]; then echo "$FOUND"; else echo "$PYTHON $1" >"$HOME/set-up"; fi'
    (home / "checkout" / "launch" / "setup.sh").write_text(says)
    subprocess.run(["tar", "-czf", home / "ove.tar.gz", "-C", home / "checkout", "launch"], check=True)
    program(tmp_path, "python3", 'case "$*" in *find*) echo /home/of/uv/python3.12 ;; esac')
    path = f"{tmp_path}:{os.environ['PATH']}"
    on_worker = {"HOME": str(home), "PATH": path, "FOUND": found}
    subprocess.run(["bash", "-c", command], cwd=home, env=on_worker, check=True, timeout=300)
    installed = ["-m pip install --user --quiet uv", "-m uv python install 3.12", "-m uv python find 3.12"]
    assert said(tmp_path, "python3") == ([] if found else installed)
    assert (home / "set-up").read_text().split() == (["tpu"] if found else ["/home/of/uv/python3.12", "tpu"])


def test_tpu_workers_get_the_checkout_the_command_and_the_signal(say: Say, tmp_path: Path) -> None:
    program(tmp_path, "gcloud", 'printf "%s\\n" "$@" >"$0.words"')
    train_words = say("tpu_pod.sh", "pod", "zone-a", "train", *WORDS)
    assert train_words.returncode == 0, train_words.stderr
    words = (tmp_path / "gcloud.words").read_text().splitlines()
    assert words[:7] == ["compute", "tpus", "tpu-vm", "ssh", "pod", "--zone=zone-a", "--worker=all"]
    # What the workers' shell makes of the command.
    (tmp_path / "ove" / ".venv" / "bin").mkdir(parents=True)
    program(tmp_path / "ove" / ".venv" / "bin", "python", 'trap "exit 75" TERM; touch "$HOME/up"; while :; do sleep 0.05; done')
    on_worker = {"HOME": str(tmp_path), "PATH": os.environ["PATH"]}
    subprocess.run(["bash", "-c", words[7].removeprefix("--command=")], cwd=tmp_path, env=on_worker, check=True, timeout=300)
    wait_for(tmp_path / "up")
    assert said(tmp_path / "ove" / ".venv" / "bin", "python") == [f"-m launch.train --distributed {' '.join(WORDS)}"]
    say("tpu_pod.sh", "pod", "zone-a", "stop")
    stop = (tmp_path / "gcloud.words").read_text().splitlines()[7].removeprefix("--command=")
    number = int((tmp_path / "ove" / "train.pid").read_text())
    subprocess.run(["bash", "-c", stop], cwd=tmp_path, env=on_worker, check=True, timeout=300)
    until = time.monotonic() + 300
    while Path(f"/proc/{number}").exists() and time.monotonic() < until and "Z" not in _state(number):
        time.sleep(0.02)
    assert not Path(f"/proc/{number}").exists() or "Z" in _state(number)
    assert say("tpu_pod.sh", "pod", "zone-a", "dance").returncode == 2


def _state(number: int) -> str:
    try:
        return Path(f"/proc/{number}/stat").read_text().rpartition(")")[2].split()[0]
    except FileNotFoundError:
        return "Z"
