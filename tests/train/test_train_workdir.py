"""Two runs do not train in one folder; a lock that outlives a lost machine is waited for."""

import errno
import threading
import time
from pathlib import Path

import pytest
from tiny_run import config_of

from ove.distributed import Processes
from ove.errors import ConfigError
from ove.train.hosts import workdir
from ove.train.hosts.workdir import claimed, held
from ove.train.loop import train


def test_a_second_run_is_refused_at_once_and_changes_nothing(shard_folder: Path, tmp_path: Path) -> None:
    half_written = tmp_path / "checkpoints" / "7.orbax-checkpoint-tmp"
    half_written.mkdir(parents=True)
    before = time.monotonic()
    with (
        held(tmp_path, 600.0, pytest.fail),
        pytest.raises(ConfigError, match=r"another run trains in this folder \(process \d+ on "),
    ):
        train(config_of(shard_folder), tmp_path, lambda line: None)
    assert time.monotonic() - before < 300
    assert half_written.is_dir() and not (tmp_path / "config.json").exists()
    with held(tmp_path, 60.0, pytest.fail):
        pass


def test_the_lock_of_another_machine_is_waited_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    said: list[str] = []
    monkeypatch.setattr(workdir, "_LOOK_S", 0.05)
    monkeypatch.setattr("platform.node", lambda: "host-a")
    other = held(tmp_path, 0.0, pytest.fail)
    other.__enter__()
    monkeypatch.setattr("platform.node", lambda: "host-b")
    with pytest.raises(ConfigError, match=r"on host-a\); let it end"), held(tmp_path, 0.2, said.append):
        pass
    assert len(said) == 1 and "on host-a trains in this folder; waiting up to 0.2 s" in said[0]
    threading.Timer(0.2, lambda: other.__exit__(None, None, None)).start()
    with held(tmp_path, 60.0, said.append):
        assert "host-b" in (tmp_path / ".lock").read_text()


def test_where_there_are_no_locks_that_is_said(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    def flock(handle: int, how: int) -> None:
        raise OSError(problem, "no")

    monkeypatch.setattr("fcntl.flock", flock)
    said: list[str] = []
    problem = errno.ENOLCK
    with held(tmp_path, 60.0, said.append):
        assert len(said) == 1 and "has no locks" in said[0]
    problem = errno.EIO
    with pytest.raises(OSError, match="no"), held(tmp_path, 60.0, said.append):
        pass


class Second(Processes):
    """The second of two, to whom the first says `word`."""

    def __init__(self, word: str) -> None:
        self.index, self.count, self.limit_s, self.word = 1, 2, 1.0, word

    def all_gather(self, name: str, word: str, limit_s: float | None = None) -> list[str]:
        return [self.word, word]


def test_what_is_refused_to_the_first_is_refused_to_all(tmp_path: Path) -> None:
    with claimed(tmp_path, Second(""), pytest.fail):
        assert not (tmp_path / ".lock").exists()
    with pytest.raises(ConfigError, match="taken"), claimed(tmp_path, Second("it is taken"), pytest.fail):
        pass
