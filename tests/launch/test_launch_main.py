"""All commands under one name, in the repository and in a wheel."""

import errno
import os
import re
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

from launch.__main__ import GROUPS
from launch.cli.command import run_command
from launch.cli.settings import load_config

ROOT = Path(__file__).resolve().parents[2]


def asked(*words: str, cwd: Path = ROOT, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", *words]
    return subprocess.run(command, cwd=cwd, env=os.environ | environment, capture_output=True, text=True, timeout=600)


def test_every_command_is_in_a_group() -> None:
    modules = {path.stem for path in (ROOT / "launch").glob("[a-z]*.py")}
    assert sorted(name for group in GROUPS.values() for name in group) == sorted(modules)


def test_help_lists_the_commands_and_one_of_them_runs(tmp_path: Path) -> None:
    listed = asked("launch", "--help")
    assert listed.returncode == 0 and all(f"  {name} " in listed.stdout for group in GROUPS.values() for name in group)
    drawn = asked("launch", "toy", "--out", str(tmp_path), "--train", "1", "--probe", "0", "--val", "0")
    assert drawn.returncode == 0, drawn.stderr
    assert len(list((tmp_path / "train").rglob("*.mp4"))) == 1


def test_an_unknown_command_suggests_the_nearest() -> None:
    refused = asked("launch", "extrakt")
    assert (refused.returncode, refused.stderr) == (2, "error: ove has no command 'extrakt'; did you mean extract?\n")


@pytest.mark.parametrize("words", [("help", "toy"), ("-h", "toy"), ("--help", "toy"), ("toy", "--help"), ("toy", "-h")])
def test_help_of_a_command_is_asked_for_in_any_order(words: tuple[str, ...]) -> None:
    told = asked("launch", *words)
    assert (told.returncode, told.stderr) == (0, "")
    assert told.stdout.startswith("usage: ove toy ") and "--workers" in told.stdout


def test_help_of_an_unknown_command_suggests_the_nearest() -> None:
    refused = asked("launch", "help", "trian")
    assert (refused.returncode, refused.stderr) == (2, "error: ove has no command 'trian'; did you mean train?\n")
    refused = asked("launch", "help", "nonsense")
    assert (refused.returncode, refused.stderr) == (2, "error: ove has no command 'nonsense'; `ove --help` lists all.\n")


@pytest.mark.parametrize("words", [["--help"], ["help", "toy"], ["shards", "--help-config"]])
@pytest.mark.parametrize("buffered", ["", "1"])
def test_a_reader_that_has_gone_ends_a_command_quietly(words: list[str], buffered: str) -> None:
    reader, writer = os.pipe()
    os.close(reader)
    command = [sys.executable, "-m", "launch", *words]
    environment = os.environ | {"PYTHONUNBUFFERED": buffered}
    ended = subprocess.run(command, cwd=ROOT, env=environment, stdout=writer, stderr=subprocess.PIPE, text=True, timeout=600)
    os.close(writer)
    assert ended.stderr == ""
    assert ended.returncode == 141 or (buffered, words) == ("1", ["help", "toy"])  # argparse ignores it and exits with 0


def test_another_broken_pipe_is_reported(capfd: pytest.CaptureFixture[str]) -> None:
    def main() -> None:
        raise BrokenPipeError(errno.EPIPE, "Broken pipe")

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == 2 and capfd.readouterr().err == "error: the system: Broken pipe.\n"


def test_configurations_are_found_by_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    assert load_config("toy:smoke")["train"]["steps"] == 6
    (tmp_path / "mine.py").write_text(
        "from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n    return ConfigDict({1: 2})\n"
    )
    assert load_config("mine.py") == {1: 2}


@pytest.mark.slow
def test_a_wheel_has_one_package_with_commands_and_configurations(tmp_path: Path) -> None:
    source, site, empty = tmp_path / "source", tmp_path / "site", tmp_path / "empty"
    names = subprocess.run(["git", "ls-files"], cwd=ROOT, capture_output=True, text=True, check=True).stdout.split("\n")
    for name in filter(None, names):
        if re.match(r"(ove|launch|configs)/|(pyproject\.toml|setup\.py|README\.md|LICENSE)$", name):
            (source / name).parent.mkdir(parents=True, exist_ok=True)
            (source / name).write_bytes((ROOT / name).read_bytes())
    built = asked("pip", "wheel", "--quiet", "--no-deps", "--wheel-dir", str(tmp_path), str(source), cwd=tmp_path)
    assert built.returncode == 0, built.stderr
    (wheel,) = tmp_path.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        files = set(archive.namelist())
        archive.extractall(site)
    tops = {name.split("/")[0] for name in files}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"ove"}
    assert {
        "ove/py.typed",
        "ove/__init__.pyi",
        "ove/configs/toy.py",
        "ove/launch/cli/command.py",
        "ove/plan/gpus/h200.txtpb",
    } <= files
    assert {f"ove/{path.relative_to(ROOT / 'ove')}" for path in (ROOT / "ove").rglob("*.py")} <= files
    empty.mkdir()
    words = ["toy", "--out", "videos", "--train", "1", "--probe", "0", "--val", "0"]
    made = asked("ove.launch", *words, cwd=empty, PYTHONPATH=str(site))
    assert made.returncode == 0 and list(empty.rglob("*.mp4")), made.stderr
    planned = asked("ove.launch", "plan", "--config=toy", "--devices", "1", cwd=empty, PYTHONPATH=str(site))
    assert planned.returncode == 0, planned.stderr
