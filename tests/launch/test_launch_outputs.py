"""Outputs land where they were asked for and nowhere else, and overwrite nothing of the user's, in every command."""

import importlib
import os
import subprocess
import sys
from collections.abc import Callable, Sequence
from pathlib import Path

import cv2
import numpy as np
import pytest

from ove.errors import ConfigError, OveError

WITHOUT_OUTPUTS = {"bench_data", "compile", "plan", "verify"}
"""Commands that print; what `ove compile --save-hlo` takes is tested on its own."""
FOLDERS: dict[str, Sequence[str]] = {
    "shards": ("--videos", "{source}", "--out"),
    "extract": ("{source}", "--out"),
    "toy": ("--train", "0", "--probe", "0", "--val", "0", "--out"),
    "quickstart": ("{source}", "--out"),
    "convert": ("{source}",),
    "import_tfio": ("{source}/a.tfrecord", "--image", "image", "--out"),
    "train": ("--config=toy", "--workdir"),
    "study": ("all", "--config=study_toy", "--out"),
    "centers report": ("{source}", "--shards", "{shards}", "--out"),
    "labels": ("embed", "--shards", "{shards}", "--work"),
}
FILES: dict[str, Sequence[str]] = {
    "annotations": ("k400", "--annotations", "{source}", "--videos", "{source}", "--split", "train", "--out"),
    "encode": ("--weights", "{source}", "--inputs", "{source}", "--out"),
    "probe": ("--config=probe", "--out"),
    "probe ": ("--config=probe", "--predictions"),
    "centers export": ("{source}", "--out"),
    "show": ("{shards}", "--index", "0", "--out"),
}
ENDINGS = {
    "annotations": ".jsonl",
    "encode": ".npz",
    "probe": ".json",
    "probe ": ".csv",
    "centers export": ".npy",
    "show": ".png",
}
READS_SOURCE = ("shards", "extract", "quickstart", "encode")
Run = Callable[..., None]


@pytest.fixture
def run(tmp_path: Path, shard_folder: Path) -> Run:
    """Runs a command of the tables with an output."""
    (tmp_path / "source").mkdir()
    cv2.imwrite(str(tmp_path / "source" / "a.png"), np.zeros((32, 32, 3), np.uint8))

    def run(command: str, out: str | Path, *more: str) -> None:
        name, *task = command.split()
        words = [word.format(source=tmp_path / "source", shards=shard_folder) for word in (FOLDERS | FILES)[command]]
        arguments = [*task, *words, str(out), *more]
        importlib.import_module(f"launch.{name}").main(arguments)

    return run


def _contents(folder: Path) -> dict[str, bytes | None]:
    return {str(path): path.read_bytes() if path.is_file() else None for path in folder.rglob("*")}


def test_every_command_is_among_them() -> None:
    commands = {path.stem for path in (Path(__file__).resolve().parents[2] / "launch").glob("[a-z]*.py")}
    assert {command.split()[0] for command in (*FOLDERS, *FILES)} | WITHOUT_OUTPUTS == commands


def test_a_compiled_program_is_written_to_local_files_alone() -> None:
    words = ["--config=toy", "--devices", "1", "--kind", "h200", "--save-hlo", "gs://a/b.txt"]
    with pytest.raises(ConfigError, match=r"--save-hlo gs://a/b.txt.*: results are written on this machine only"):
        importlib.import_module("launch.compile").main(words)


@pytest.mark.parametrize("command", [*FOLDERS, *FILES])
@pytest.mark.parametrize("uri", ["gs://bucket/out", "s3://bucket/out", "hf://datasets/a/b"])
def test_a_remote_output_is_refused(run: Run, command: str, uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    before = _contents(tmp_path)
    with pytest.raises(ConfigError, match=rf"{uri}.*: results are written on this machine only; give a local path"):
        run(command, uri + ENDINGS.get(command, ""))
    assert _contents(tmp_path) == before


@pytest.mark.parametrize("command", FOLDERS)
def test_a_file_is_no_folder_to_write_to(run: Run, command: str, tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("the user's")
    for out in (tmp_path / "taken", tmp_path / "taken" / "below"):
        with pytest.raises(ConfigError, match=rf"{tmp_path}/taken.*is (a file, and a folder is needed|not a folder)"):
            run(command, out)
    assert (tmp_path / "taken").read_text() == "the user's"


@pytest.mark.parametrize("command", FILES)
def test_a_folder_is_no_file_to_write(run: Run, command: str, tmp_path: Path) -> None:
    out = tmp_path / f"folder{ENDINGS[command]}"
    out.mkdir()
    with pytest.raises(ConfigError, match=r"is a folder, and a file is needed"):
        run(command, out)


@pytest.mark.parametrize("command", FILES)
def test_a_file_of_the_user_is_not_overwritten(run: Run, command: str, tmp_path: Path) -> None:
    out = tmp_path / f"mine{ENDINGS[command]}"
    out.write_text("the user's")
    before = _contents(tmp_path)
    with pytest.raises(ConfigError, match=r"mine.*: exists, and is not known to have been written by this command.*--replace"):
        run(command, out)
    assert _contents(tmp_path) == before


@pytest.mark.parametrize(
    ("command", "name"),
    [
        ("train", "config.json"),
        ("train", "preprocessing.json"),
        ("quickstart", "report.md"),
        ("quickstart", "videos"),
        ("study", "budget.csv"),
        ("centers report", "index.html"),
        ("convert", "anything"),
    ],
)
def test_a_file_in_the_folder_is_not_overwritten(run: Run, command: str, name: str, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / name).write_text('{"model_type": "the user\'s"}')
    before = _contents(tmp_path / "out")
    with pytest.raises(ConfigError, match=rf"out/{name}: exists, and is not known|out: is not empty|no such file"):
        run(command, tmp_path / "out")
    assert _contents(tmp_path / "out") == before


@pytest.mark.parametrize("command", READS_SOURCE)
@pytest.mark.parametrize("below", ["", "below", "link"])
def test_nothing_is_written_among_what_is_read(run: Run, command: str, below: str, tmp_path: Path) -> None:
    (tmp_path / "link").symlink_to(tmp_path / "source")
    out = tmp_path / "link" / "out" if below == "link" else tmp_path / "source" / below
    if command in FILES:
        out /= f"x{ENDINGS[command]}"
    before = _contents(tmp_path / "source")
    with pytest.raises(ConfigError, match=r"lies within the source|is the source itself"):
        run(command, out)
    assert _contents(tmp_path / "source") == before


@pytest.mark.parametrize("command", [*FOLDERS, *FILES])
def test_names_that_no_file_can_have_are_refused(run: Run, command: str, tmp_path: Path) -> None:
    for name in ("x" * 256, "a\0b", "~nobody-of-this-name/x"):
        with pytest.raises(ConfigError, match=r"cannot be the name of a file|has no such home directory"):
            run(command, f"{tmp_path}/{name}{ENDINGS.get(command, '')}" if name[0] != "~" else name + ENDINGS.get(command, ""))


def test_the_home_directory_is_expanded(run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.chdir(tmp_path)
    run("show", "~/pictures/record.png")
    assert (tmp_path / "home" / "pictures" / "record.png").is_file() and not (tmp_path / "~").exists()


def test_a_picture_that_was_drawn_is_drawn_again(run: Run, tmp_path: Path) -> None:
    for ending in (".png", ".jpg", ".webp"):
        out = tmp_path / f"record{ending}"
        run("show", out)
        before = out.read_bytes()
        run("show", out)
        assert out.read_bytes() == before and cv2.imread(str(out)).mean() > 0
        cv2.imwrite(str(out), np.zeros((4, 4, 3), np.uint8))
        with pytest.raises(ConfigError, match="exists, and is not known"):
            run("show", out)
        run("show", out, "--replace")
        assert out.read_bytes() == before


def test_what_the_terminal_cannot_print_is_escaped(tmp_path: Path) -> None:
    code = (
        "from launch.cli.command import run_command\n"
        "from ove.errors import BadClip\n"
        "def main():\n    print('caf\\udce9 → é')\n    raise BadClip('bad\\udce9.mp4: → nothing')\n"
        "run_command(main)\n"
    )
    root = Path(__file__).resolve().parents[2]
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=root, env=os.environ | {"PYTHONIOENCODING": "ascii"}, capture_output=True, text=True
    )
    assert done.returncode == 2 and done.stdout == "caf\\udce9 \\u2192 \\xe9\n"
    assert done.stderr == "error: bad\\udce9.mp4: \\u2192 nothing\n"


HOLD = """
import sys, time
from pathlib import Path
from ove.errors import OveError
from ove.files import locked, only_writer
path = Path(sys.argv[1])
with locked(path, OveError()) if path.name == ".lock" else only_writer(path):
    print("held", flush=True)
    time.sleep(600)
"""


@pytest.mark.parametrize(
    ("command", "held"),
    [
        ("shards", "out/.lock"),
        ("extract", "out/extracts.jsonl"),
        ("encode", "out.npz"),
        ("study", "out/budget.json"),
    ],
)
def test_a_place_is_written_by_one_command_until_that_ends_however_it_does(
    run: Run, command: str, held: str, tmp_path: Path
) -> None:
    out = tmp_path / Path(held).parts[0]
    (tmp_path / held).parent.mkdir(exist_ok=True)
    half = (tmp_path / held).with_name(f".{Path(held).name}.0123456789ab.tmp")
    half.touch()
    with subprocess.Popen([sys.executable, "-c", HOLD, str(tmp_path / held)], stdout=subprocess.PIPE) as other:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        before = _contents(tmp_path)
        try:
            with pytest.raises(OveError, match=r"another (command|run) is writing.*; wait .* or give another"):
                run(command, out)
        finally:
            other.kill()
        assert _contents(tmp_path) == before
    with pytest.raises(OveError) as raised:  # of the input, which is none
        run(command, out)
    assert "is writing" not in str(raised.value)
    assert not half.exists()


def test_extract_deletes_what_it_left_half_written_and_no_more(run: Run, tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    kept = (".b.npz.0123456789ab.tmp", ".a.npz.tmp", "a.npz.0123456789ab.tmp")
    for name in (*kept, ".a.npz.0123456789ab.tmp", ".extracts.jsonl.0123456789ab.tmp"):
        (tmp_path / "out" / name).write_text("x")
    with pytest.raises(OveError, match="none of the 1 input files"):
        run("extract", tmp_path / "out", "--workers", "0")
    assert {path.name for path in (tmp_path / "out").iterdir()} == {*kept, "extracts.jsonl", "quarantine.jsonl"}
