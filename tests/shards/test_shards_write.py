"""Shard folders are finished once, survive kills and crashes, and say what they set aside."""

import json
import multiprocessing
import os
import pickle
import shutil
import signal
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from shards_material import PATCH_PX, SIZE_PX, T, make_record, write_video
from source_files import read_quarantine

from ove.config import ShardsConfig
from ove.errors import BadClip, BadShard, ConfigError
from ove.shards.assemble import WriteSummary
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify
from ove.shards.write import WriteProgress, scratch_folder, write_shards
from ove.sources.folders import files_in_folder

MADE_WITH = {"video": {"size_px": SIZE_PX}}


def _write(videos: Path, out: Path, made_with: dict = MADE_WITH, workers: int = 0, replace: bool = False) -> WriteSummary:
    config = ShardsConfig(records_per_shard=3, workers=workers)
    return write_shards(files_in_folder(videos), out, make_record, config, made_with, lambda progress: None, replace=replace)


def _shard_bytes(out: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted(out.iterdir()) if path.suffix in (".arrayrecord", ".json")}


def test_every_video_has_its_record(video_folder: Path, tmp_path: Path) -> None:
    seen: list[WriteProgress] = []
    config = ShardsConfig(records_per_shard=3, workers=0)
    summary = write_shards(files_in_folder(video_folder), tmp_path, make_record, config, MADE_WITH, seen.append)
    shards = ShardSet.open(tmp_path)
    assert (summary.n_good, summary.n_shards, summary.bad, summary.n_earlier) == (7, 3, [], 0)
    assert [shards.record(i).key for i in range(len(shards))] == [video.key for video in files_in_folder(video_folder)]
    assert shards.grid_tyx == (T, SIZE_PX // PATCH_PX, SIZE_PX // PATCH_PX)
    assert shards.classes == ["left", "right"]
    assert shards.record(0).label == "left"
    assert verify(tmp_path).problems == []
    assert [p.done for p in seen] == list(range(8))
    assert all(p.total == 7 for p in seen)
    assert shards.manifest.made_with == MADE_WITH
    with pytest.raises(IndexError, match="record 7"):
        shards.bytes_at(7)


def test_processes_give_the_same_bytes(video_folder: Path, tmp_path: Path) -> None:
    _write(video_folder, tmp_path / "here")
    _write(video_folder, tmp_path / "processes", workers=2)
    assert _shard_bytes(tmp_path / "here") == _shard_bytes(tmp_path / "processes")


def test_a_shard_set_is_read_by_threads_and_after_pickling(video_folder: Path, tmp_path: Path) -> None:
    _write(video_folder, tmp_path)
    shards = ShardSet.open(tmp_path)
    wanted = [shards.bytes_at(i) for i in range(7)]
    again = pickle.loads(pickle.dumps(shards))
    with ThreadPoolExecutor(4) as pool:
        assert list(pool.map(again.bytes_at, list(range(7)) * 20)) == wanted * 20


def test_a_second_run_touches_nothing(video_folder: Path, tmp_path: Path) -> None:
    first = _write(video_folder, tmp_path)
    kept = {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "quarantine.jsonl"}
    second = _write(video_folder, tmp_path)
    assert {p.name: p.stat().st_mtime_ns for p in tmp_path.iterdir() if p.name != "quarantine.jsonl"} == kept
    assert second.n_earlier == 7
    assert second.fingerprint == first.fingerprint


def test_what_changed_is_made_again(video_folder: Path, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(video_folder, videos)
    first = _write(videos, out)
    write_video(videos / "right" / "6.mp4", seed=99)  # the last of all: only its group is affected
    second = _write(videos, out)
    os.utime(videos / "left" / "1.mp4")  # the first of all
    assert _write(videos, out).n_earlier == 4
    assert second.n_earlier == 6
    assert second.fingerprint != first.fingerprint
    other = {"video": {"size_px": 42}}
    assert _write(videos, out, made_with=other, replace=True).n_earlier == 0
    # Fewer videos: the surplus shards go.
    shutil.rmtree(videos / "left")
    assert _write(videos, out, made_with=other).n_shards == 2
    assert sorted(p.name for p in out.glob("*.arrayrecord")) == ["shard-00000.arrayrecord", "shard-00001.arrayrecord"]
    assert verify(out).problems == []


def test_a_folder_that_is_being_made_again_is_not_read(video_folder: Path, tmp_path: Path) -> None:
    def interrupt(progress: WriteProgress) -> None:
        if progress.done == 4:
            raise KeyboardInterrupt

    _write(video_folder, tmp_path)
    config = ShardsConfig(records_per_shard=3, workers=1)
    with pytest.raises(KeyboardInterrupt):
        write_shards(files_in_folder(video_folder), tmp_path, make_record, config, {"other": 1}, interrupt, replace=True)
    with pytest.raises(BadShard, match=r"holds no manifest\.json"):
        ShardSet.open(tmp_path)
    assert multiprocessing.active_children() == []


def test_bad_files_are_set_aside(video_folder: Path, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(video_folder, videos)
    (videos / "empty.mp4").touch()
    write_video(videos / "strange.mp4", seed=1)
    seen: list[WriteProgress] = []
    config = ShardsConfig(records_per_shard=3, workers=0)
    summary = write_shards(files_in_folder(videos), out, make_record, config, MADE_WITH, seen.append)
    assert (summary.n_good, len(ShardSet.open(out))) == (7, 7)
    assert seen[0] == WriteProgress(0, 9, 0, 0) and seen[-1] == WriteProgress(9, 9, 0, 2)
    assert [progress.done for progress in seen] == list(range(10))
    entries = read_quarantine(out / "quarantine.jsonl")
    assert [Path(entry.file).name for entry in entries] == ["empty.mp4", "strange.mp4"]
    assert "not a video" in entries[0].reason
    assert "unforeseen ZeroDivisionError" in entries[1].reason
    again: list[WriteProgress] = []
    second = write_shards(files_in_folder(videos), out, make_record, config, MADE_WITH, again.append)
    assert second.bad == entries and again == [WriteProgress(9, 9, 9, 2)]  # a second run, which skips all, still knows them


def test_scratch_folders_go_and_keep_no_file_open(tmp_path: Path) -> None:
    before = len(os.listdir("/proc/self/fd"))
    (tmp_path / "a" / "b" / ".scratch-left").mkdir(parents=True)
    with scratch_folder(tmp_path / "a" / "b") as running:
        assert os.listdir(running.parent) == [running.name], "that of a run that has ended is removed"
        with scratch_folder(running.parent) as other:
            assert {running.name, other.name} == set(os.listdir(running.parent)), "that of a run that goes on is not"
    with scratch_folder(tmp_path / "new" / "folder") as first:
        (first / "x").touch()
    assert not os.listdir(first.parent) and not os.listdir(running.parent)
    assert len(os.listdir("/proc/self/fd")) == before


def test_nothing_usable_is_an_error_and_leaves_no_manifest(video_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "empty.mp4").touch()
    with pytest.raises(BadClip, match="none of the 1 inputs is usable"):
        _write(tmp_path / "videos", tmp_path / "out")
    assert len(read_quarantine(tmp_path / "out" / "quarantine.jsonl")) == 1
    with pytest.raises(BadShard, match=r"holds no manifest\.json"):
        ShardSet.open(tmp_path / "out")


def test_a_file_that_kills_the_decoder_is_named(video_folder: Path, tmp_path: Path) -> None:
    videos, out = tmp_path / "videos", tmp_path / "out"
    shutil.copytree(video_folder, videos)
    write_video(videos / "left" / "2crash.mp4", seed=1)
    summary = _write(videos, out, workers=2)
    assert summary.n_good == 7
    assert [Path(entry.file).name for entry in summary.bad] == ["2crash.mp4"]
    assert "died (SIGSEGV)" in summary.bad[0].reason


def test_two_runs_do_not_write_to_one_folder(video_folder: Path, tmp_path: Path) -> None:
    def meanwhile(progress: WriteProgress) -> None:
        if progress.done == 1:
            with pytest.raises(BadShard, match="another run is writing"):
                _write(video_folder, tmp_path)

    config = ShardsConfig(records_per_shard=3, workers=0)
    assert write_shards(files_in_folder(video_folder), tmp_path, make_record, config, MADE_WITH, meanwhile).n_good == 7


_KILLED = """
import sys
from pathlib import Path
from ove.config import ShardsConfig
from ove.sources.folders import files_in_folder
from ove.shards.write import write_shards
from shards_material import make_record_slowly
if __name__ == "__main__":
    videos, out = map(Path, sys.argv[1:])
    config = ShardsConfig(records_per_shard=3, workers=2)
    write_shards(files_in_folder(videos), out, make_record_slowly, config, {made_with!r}, lambda progress: None)
"""


def _children(pid: int) -> set[int]:
    tasks = Path(f"/proc/{pid}/task").iterdir()  # each thread has its own
    return {int(child) for task in tasks for child in (task / "children").read_text().split()}


def test_killed_in_the_middle_then_run_again(video_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "run.py").write_text(_KILLED.format(made_with=MADE_WITH))
    out, whole = tmp_path / "out", tmp_path / "whole"
    path = os.pathsep.join(map(str, Path(__file__).parents[1:3]))
    process = subprocess.Popen(
        [sys.executable, "run.py", str(video_folder), str(out)], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    deadline = time.monotonic() + 600
    while not (out / "shard-00000.done.json").exists():
        assert process.poll() is None
        assert time.monotonic() < deadline
        time.sleep(0.01)
    children = _children(process.pid)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert len(children) >= 2
    while any(Path(f"/proc/{child}").exists() for child in children):
        assert time.monotonic() < deadline, "workers outlive the run"
        time.sleep(0.05)
    assert not (out / "shard-00002.done.json").exists()
    with pytest.raises(BadShard, match=r"holds no manifest\.json"):
        ShardSet.open(out)
    (out / ".shard-00009.arrayrecord.tmp").write_bytes(b"half")
    first_written = (out / "shard-00000.arrayrecord").stat().st_mtime_ns
    assert _write(video_folder, out).n_earlier >= 3
    _write(video_folder, whole)
    assert (out / "shard-00000.arrayrecord").stat().st_mtime_ns == first_written
    assert _shard_bytes(out) == _shard_bytes(whole)
    assert list(out.glob("*.tmp")) + list(out.glob(".*.tmp")) == []


def test_a_wrong_configuration_stops_the_run(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="records_per_shard = 0"):
        ShardsConfig(records_per_shard=0)


@pytest.mark.parametrize("place", [0.0, 0.1, 0.5, 0.99])
def test_a_flipped_byte_is_found(video_folder: Path, tmp_path: Path, place: float) -> None:
    _write(video_folder, tmp_path)
    shard = tmp_path / "shard-00001.arrayrecord"
    data = bytearray(shard.read_bytes())
    data[int(place * len(data))] ^= 1
    shard.write_bytes(data)
    problems = verify(tmp_path).problems
    assert {problem.file for problem in problems} == {"shard-00001.arrayrecord"}
    assert any("SHA-256" in problem.reason for problem in problems)


def test_a_damaged_record_is_refused(video_folder: Path, tmp_path: Path) -> None:
    _write(video_folder, tmp_path)
    shards = ShardSet.open(tmp_path)
    shard = tmp_path / "shard-00001.arrayrecord"
    data = shard.read_bytes()
    place = data.index(shards.record(4).frames[3]) + 50
    shard.write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
    damaged = ShardSet.open(tmp_path)
    with pytest.raises(BadShard, match=r"shard-00001\.arrayrecord: record 1 is damaged"):
        damaged.record(4)
    assert damaged.record(3).key == shards.record(3).key
    assert [problem.record for problem in verify(tmp_path).problems] == [None, 4]


def test_a_shard_with_other_records_than_its_manifest_says_is_refused(video_folder: Path, tmp_path: Path) -> None:
    """Of 3, 3 and 1 records the manifest of another set says 2, 4 and 1: keys would belong to other videos, silently."""
    _write(video_folder, tmp_path)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    for shard, records in zip(manifest["shards"], (2, 4, 1), strict=True):
        shard["records"] = records
    (tmp_path / "manifest.json").write_text(json.dumps(manifest))
    shards = ShardSet.open(tmp_path)
    for index, name, words in (
        (0, "shard-00000", "it holds 3 records, 2 were written"),
        (2, "shard-00001", "it holds 3 records, 4 were written"),
    ):
        with pytest.raises(BadShard, match=rf"{name}\.arrayrecord: record 0 is damaged \({words}\)"):
            shards.bytes_at(index)
    assert shards.record(6).key == files_in_folder(video_folder)[6].key


def test_what_is_missing_is_said_in_a_sentence(video_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(BadShard, match="no such shard folder"):
        ShardSet.open(tmp_path / "nowhere")
    _write(video_folder, tmp_path)
    shard, manifest = tmp_path / "shard-00001.arrayrecord", tmp_path / "manifest.json"
    whole, text = shard.read_bytes(), manifest.read_text()
    shard.write_bytes(whole[:-1])
    with pytest.raises(BadShard, match=r"has \d+ bytes"):
        ShardSet.open(tmp_path)
    assert _write(video_folder, tmp_path).n_earlier == 4  # a short shard is made again
    shard.unlink()
    with pytest.raises(BadShard, match="is missing"):
        ShardSet.open(tmp_path)
    assert [problem.reason for problem in verify(tmp_path).problems] == ["is missing"]
    manifest.write_text(json.dumps({**json.loads(text), "schema_version": 99}))
    with pytest.raises(BadShard, match="schema_version 99"):
        ShardSet.open(tmp_path)
    manifest.write_text(text[:-20])
    with pytest.raises(BadShard, match="is damaged"):
        ShardSet.open(tmp_path)
