"""Two commands on one folder: kept apart, unless they make different parts; a lock is gone with who held it."""

import signal
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import labels as command
from ove.errors import BadShard, ConfigError
from ove.labels.parts import WHOLE, working
from ove.shards.labels import read_labels

Write = Callable[[Path, int], None]
HOLD = """
import sys, time
from pathlib import Path
from ove.labels.parts import working
with working(Path(sys.argv[1])):
    print("held", flush=True)
    time.sleep(600)
"""


def test_the_whole_is_alone_and_parts_are_side_by_side(tmp_path: Path) -> None:
    with working(tmp_path), pytest.raises(BadShard, match=r"another `ove labels` works on it; wait for it or give another"):
        working(tmp_path, (0, 2)).__enter__()
    with working(tmp_path, (0, 2)), working(tmp_path, (1, 2)), working(tmp_path, (0, 3)):
        with pytest.raises(BadShard, match=r"does part 1/2; wait for it or do another part"):
            working(tmp_path, (1, 2)).__enter__()
        half = tmp_path / ".piece.0123.tmp"
        half.touch()
        with pytest.raises(BadShard, match="another `ove labels` works"):
            working(tmp_path).__enter__()
        assert half.exists()
    with working(tmp_path, WHOLE):
        assert not half.exists()  # of somebody who was killed


def test_the_command_is_refused_until_the_other_is_gone_however_it_ends(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path, 24)
    arguments = ["--shards", str(tmp_path), "--bank", "obj", "--centers", "4", "--labels", "2"]
    folder = tmp_path / "labels" / "steps" / "obj"
    other = subprocess.Popen([sys.executable, "-c", HOLD, str(folder)], stdout=subprocess.PIPE)
    try:
        assert other.stdout is not None and other.stdout.readline() == b"held\n"
        for task in (["all"], ["embed", "--part", "0/2"], ["assign"]):
            with pytest.raises(BadShard, match=r"steps/obj: another `ove labels` works on it"):
                command.main([*task, *arguments])
        assert command.main([*arguments, "--work", str(tmp_path / "elsewhere")]) == 0
        other.send_signal(signal.SIGKILL)
        other.wait()
        assert command.main(["embed", *arguments]) == 0
    finally:
        other.kill()
        other.wait()
        other.stdout.close()


def test_parts_of_the_labels_are_put_together_by_the_last(
    write_kinds: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kinds(tmp_path, 24)
    arguments = ["--shards", str(tmp_path), "--bank", "obj", "--centers", "4", "--set", "labels.chunk_records=5"]
    assert command.main(["all", *arguments, "--labels", "3"]) == 0
    wanted = {path.name: path.read_bytes() for path in (tmp_path / "labels").glob("obj*")}
    assert command.main(["all", *arguments, "--labels", "2", "--replace"]) == 0
    others = {path.name: path.read_bytes() for path in (tmp_path / "labels").glob("obj*")}
    capsys.readouterr()
    assert command.main(["assign", *arguments, "--labels", "3", "--part", "1/2", "--replace"]) == 0
    assert "assigned 10 records; 3 of 5 pieces are lacking" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "labels").glob("obj*")} == others
    assert command.main(["assign", *arguments, "--labels", "3", "--part", "0/2", "--replace"]) == 0
    assert "assigned 14 records; 0 of 5 pieces are lacking" in capsys.readouterr().out
    assert {path.name: path.read_bytes() for path in (tmp_path / "labels").glob("obj*")} == wanted
    assert read_labels(tmp_path, "obj").labels.shape == (24, 3)


def test_an_engine_is_for_ocr(write_kinds: Write, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"--engine is an option of ocr; embed is a JAX program: start several processes"):
        command.main(["embed", "--shards", str(tmp_path), "--engine", "ray"])


def test_the_text_of_a_folder_is_read_by_one_at_a_time_and_once(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path, 3)
    with working(tmp_path / "text"), pytest.raises(BadShard, match=r"text: another `ove labels` works on it; wait for it to"):
        command.main(["ocr", "--shards", str(tmp_path)])
    with pytest.raises(ConfigError, match="is given more than once"):
        command.main(["ocr", "--shards", str(tmp_path), f"{tmp_path}/../{tmp_path.name}"])
