"""Labels lie beside the shards they belong to, and nobody takes them for those of others."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch import labels as command
from ove.errors import BadShard, ConfigError
from ove.labels.store import read_centers, read_labels, write_labels

Write = Callable[[Path, int], None]


def test_labels_come_back_with_their_centers(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path, 6)
    labels = np.arange(12, dtype=np.int32).reshape(6, 2) % 5
    centers = np.eye(5, 7, dtype=np.float32)
    write_labels(tmp_path, "vid", labels, centers, {"teacher": "thumbnails"})
    found = read_labels(tmp_path, "vid")
    np.testing.assert_array_equal(found.labels, labels)
    assert found.n_centers == 5
    assert found.info["teacher"] == "thumbnails"
    np.testing.assert_array_equal(read_centers(tmp_path, "vid"), centers)
    with pytest.raises(BadShard, match="6 records, and 5 labels"):
        write_labels(tmp_path, "vid", labels[:5], centers, {})


def test_missing_stale_and_damaged_labels_say_what_to_run(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path, 6)
    with pytest.raises(BadShard, match=r"no labels of the bank obj; run `python -m launch\.labels --shards"):
        read_labels(tmp_path, "obj")
    write_labels(tmp_path, "obj", np.zeros((6, 1), np.int32), np.ones((1, 3), np.float32), {})
    stored = (tmp_path / "labels" / "obj.npz").read_bytes()
    for damage in (stored[:-30], b"", b"text"):
        (tmp_path / "labels" / "obj.npz").write_bytes(damage)
        with pytest.raises(BadShard, match="is damaged"):
            read_labels(tmp_path, "obj")
    (tmp_path / "labels" / "obj.npz").write_bytes(stored)
    write_kinds(tmp_path, 7)
    with pytest.raises(BadShard, match=r"made for other shards.*run `python -m launch\.labels"):
        read_labels(tmp_path, "obj")


def test_the_command_labels_both_banks_once(write_kinds: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    write_kinds(tmp_path, 24)
    arguments = ["--shards", str(tmp_path), "--centers", "4", "--labels", "2"]
    assert command.main(arguments) == 0
    assert "4 centers" in capsys.readouterr().out
    for bank in ("vid", "obj"):
        nearest = read_labels(tmp_path, bank).labels[:, 0]
        kinds = [set(nearest[kind::4].tolist()) for kind in range(4)]
        assert all(len(kind) == 1 for kind in kinds)
        assert len(set.union(*kinds)) == 4
    written = (tmp_path / "labels" / "vid.npz").stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert "already" in capsys.readouterr().out
    assert (tmp_path / "labels" / "vid.npz").stat().st_mtime_ns == written
    assert command.main([*arguments, "--seed", "1"]) == 0
    assert "already" not in capsys.readouterr().out


def test_centers_are_taken_over(write_kinds: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    train, val = tmp_path / "train", tmp_path / "val"
    write_kinds(train, 24)
    write_kinds(val, 5)
    command.main(["--shards", str(train), "--centers", "4", "--labels", "1"])
    arguments = ["--shards", str(val), "--from", str(train), "--labels", "3"]
    assert command.main(arguments) == 0
    np.testing.assert_array_equal(read_centers(val, "vid"), read_centers(train, "vid"))
    np.testing.assert_array_equal(read_labels(val, "vid").labels[:4, 0], read_labels(train, "vid").labels[:4, 0])
    capsys.readouterr()
    command.main(arguments)
    assert "already" in capsys.readouterr().out
    with pytest.raises(ConfigError, match="leave --centers"):
        command.main([*arguments, "--centers", "3"])


def test_impossible_numbers_are_refused(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path, 9)
    with pytest.raises(ConfigError, match=r"more than half of the 9 records; give --centers 4 or fewer"):
        command.main(["--shards", str(tmp_path), "--centers", "5"])
    with pytest.raises(ConfigError, match=r"more than the 4 centers; give --labels 4 or fewer"):
        command.main(["--shards", str(tmp_path), "--centers", "4", "--labels", "5"])
    with pytest.raises(BadShard, match="no such shard folder"):
        command.main(["--shards", str(tmp_path / "nowhere")])
