"""Files appear whole or not at all, whoever is killed or writes at the same time; locks end with who holds them."""

import errno
import json
import multiprocessing
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest

from ove import files
from ove.errors import BadShard, Unavailable

WRITE = """
import sys, time
from pathlib import Path
from ove.files import atomic_write
with atomic_write(Path(sys.argv[1])) as temporary:
    temporary.write_text("new")
    print("written", flush=True)
    time.sleep(600)
"""
HOLD = """
import sys, time
from pathlib import Path
from ove.files import locked
with locked(Path(sys.argv[1])):
    print("locked", flush=True)
    time.sleep(600)
"""


def _start(program: str, path: Path) -> subprocess.Popen[bytes]:
    process = subprocess.Popen([sys.executable, "-c", program, str(path)], stdout=subprocess.PIPE)
    assert process.stdout is not None and process.stdout.readline()
    return process


def _kill(process: subprocess.Popen[bytes]) -> None:
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()


def test_a_kill_before_the_renaming_leaves_the_old_file(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    path.write_text("old")
    _kill(_start(WRITE, path))
    assert path.read_text() == "old" and len(list(tmp_path.iterdir())) == 2
    files.remove_leftovers(tmp_path, "other.json")
    assert len(list(tmp_path.iterdir())) == 2
    files.remove_leftovers(tmp_path)
    assert list(tmp_path.iterdir()) == [path]


def test_who_writes_under_a_name_replaces_what_it_left_when_it_was_killed(tmp_path: Path) -> None:
    _kill(_start(WRITE.replace("argv[1])", "argv[1]), 'me'"), tmp_path / "file"))
    assert [path.name for path in tmp_path.iterdir()] == [".file.me.tmp"]
    files.write_array(tmp_path / "file", np.zeros(2), "me")
    assert [path.name for path in tmp_path.iterdir()] == ["file"] and np.load(tmp_path / "file").shape == (2,)


def test_an_error_leaves_the_old_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "about.json"
    path.write_text("old")
    with pytest.raises(ZeroDivisionError), files.atomic_write(path) as temporary:
        temporary.write_text("half")
        raise ZeroDivisionError
    with pytest.raises(FileNotFoundError), files.atomic_write(path):
        pass  # nothing was written
    assert path.read_text() == "old" and list(tmp_path.iterdir()) == [path]


def test_the_bytes_are_on_the_disk_before_the_name_and_the_name_before_the_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    did: list[object] = []
    fsync, replace = os.fsync, os.replace

    def noted_fsync(handle: int) -> None:
        did.append(os.fstat(handle).st_ino)
        fsync(handle)

    def noted_replace(old: Path, new: Path) -> None:
        did.append("named")
        replace(old, new)

    monkeypatch.setattr(os, "fsync", noted_fsync)
    monkeypatch.setattr(os, "replace", noted_replace)
    files.write_bytes(tmp_path / "file", b"data")
    assert did == [(tmp_path / "file").stat().st_ino, "named", tmp_path.stat().st_ino]


def _write_often(path: Path, letter: str) -> None:
    for _ in range(100):
        files.write_text(path, letter * 100_000)


def test_a_reader_of_a_file_that_two_processes_write_sees_it_whole(tmp_path: Path) -> None:
    path = tmp_path / "file"
    files.write_text(path, "c" * 100_000)
    context = multiprocessing.get_context("spawn")
    writers = [context.Process(target=_write_often, args=(path, letter)) for letter in "ab"]
    for writer in writers:
        writer.start()
    seen = set()
    while any(writer.is_alive() for writer in writers):
        text = path.read_text()
        assert len(text) == 100_000 and len(set(text)) == 1
        seen.add(text[0])
    assert [writer.exitcode for writer in writers] == [0, 0]
    assert len(seen) > 1 and list(tmp_path.iterdir()) == [path]


def test_an_error_of_the_system_names_the_file_and_not_the_temporary_one(tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"No space left on device: '.*/table\.txt'"), files.atomic_write(tmp_path / "table.txt"):
        raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


def test_what_is_written_is_what_is_read_again(tmp_path: Path) -> None:
    files.write_json(tmp_path / "a.json", {"b": "ä", "a": [1, None]})
    assert (tmp_path / "a.json").read_text(encoding="utf-8") == '{\n "b": "ä",\n "a": [\n  1,\n  null\n ]\n}\n'
    written = (tmp_path / "a.json").stat()
    files.write_json(tmp_path / "a.json", {"b": "ä", "a": [1, None]})
    assert (tmp_path / "a.json").stat().st_ino == written.st_ino  # left alone
    array = np.arange(6, dtype=np.int16).reshape(2, 3)
    files.write_array(tmp_path / "a.npy", array)
    assert np.load(tmp_path / "a.npy").dtype == np.int16 and (np.load(tmp_path / "a.npy") == array).all()
    # printf 'ove' | sha256sum
    (tmp_path / "word").write_text("ove")
    assert (
        files.sha256_of(tmp_path / "word")
        == subprocess.run(["sha256sum", tmp_path / "word"], capture_output=True, text=True, check=True).stdout.split()[0]
    )
    assert files.digest({"a": 1, "b": 2}) == files.digest({"b": 2, "a": 1}) != files.digest({"a": 1, "b": 3})


def test_a_line_that_was_cut_off_is_dropped_once_and_for_all(tmp_path: Path) -> None:
    path = tmp_path / "log.jsonl"
    assert files.reopen_json_lines(path) == [] and not path.exists()
    for step in range(3):
        files.append_json_line(path, {"step": step})
    with path.open("a") as file:
        file.write('{"step": 3, "loss": 0.')
    assert [entry["step"] for entry in files.reopen_json_lines(path)] == [0, 1, 2]
    files.append_json_line(path, {"step": 3})
    assert [json.loads(line)["step"] for line in path.read_text().splitlines()] == [0, 1, 2, 3]
    assert [entry["step"] for entry in files.reopen_json_lines(path, lambda entry: entry["step"] < 2)] == [0, 1]
    assert path.read_text() == '{"step": 0}\n{"step": 1}\n'


def test_a_lock_is_refused_or_waited_for_and_ends_with_its_process(tmp_path: Path) -> None:
    path = tmp_path / ".lock"
    other = _start(HOLD, path)
    for shared in (False, True):
        with pytest.raises(BadShard, match="wait for it"), files.locked(path, BadShard("taken; wait for it."), shared):
            pass
    began = time.monotonic()
    waiting = _start(HOLD.replace("with locked", "print('waits', flush=True)\nwith locked"), path)
    _kill(other)
    assert waiting.stdout is not None and waiting.stdout.readline() == b"locked\n"
    _kill(waiting)
    busy = BadShard("taken")
    with (
        files.locked(path, busy, shared=True),
        files.locked(path, busy, shared=True),
        pytest.raises(BadShard, match="taken"),
        files.locked(path, busy),
    ):
        pass
    with files.locked(path, BadShard("taken")):
        assert time.monotonic() - began < 300


def test_a_file_system_without_locks_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(errno.ENOLCK, "No locks available")

    monkeypatch.setattr("fcntl.flock", flock)
    sentence = r"\.lock: cannot be locked \(No locks available\); use a file system with locks"
    with pytest.raises(Unavailable, match=sentence), files.locked(tmp_path / ".lock"):
        pass
