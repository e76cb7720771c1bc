"""The command that embeds, clusters and labels a shard folder."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from launch import labels as command
from ove.errors import BadShard, ConfigError
from ove.shards.labels import read_centers, read_labels

Write = Callable[[Path, int], None]


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
    written = (tmp_path / "labels" / "vid.json").stat().st_mtime_ns
    assert command.main(arguments) == 0
    assert "already" in capsys.readouterr().out
    assert (tmp_path / "labels" / "vid.json").stat().st_mtime_ns == written
    assert command.main([*arguments, "--seed", "1", "--replace"]) == 0
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
        command.main(["--shards", str(tmp_path), "--centers", "5", "--labels", "4"])
    both = r"n_centers = 64 is more than half of the 9 records, and labels\.n_labels = 10 .*; give --centers 4 and --labels 4"
    with pytest.raises(ConfigError, match=both):
        command.main(["--shards", str(tmp_path)])
    with pytest.raises(ConfigError, match=r"more than the 4 centers; give --labels 4 or fewer"):
        command.main(["--shards", str(tmp_path), "--centers", "4", "--labels", "5"])
    with pytest.raises(BadShard, match="no such shard folder"):
        command.main(["--shards", str(tmp_path / "nowhere")])
