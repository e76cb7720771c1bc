"""A full disk ends each command in one sentence that names the file, leaves nothing half-written, and blames no input."""

import os
import subprocess
import sys
from pathlib import Path

import pytest
from shards_material import write_video
from source_files import read_quarantine

from launch import shards as command
from ove import files
from ove.shards.shard_set import ShardSet

ROOT = Path(__file__).resolve().parents[1]
LIMITED = """
import importlib, resource, signal, sys
from launch.cli.command import run_command
limit, name = int(sys.argv[1]), sys.argv[2]
command = importlib.import_module(f"launch.{name}")
signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
resource.setrlimit(resource.RLIMIT_FSIZE, (limit, limit))  # as if so many bytes of the disk were free for each file
if __name__ == "__main__":
    run_command(lambda: command.main(sys.argv[3:]))
"""
SMALL = ("--size", "56", "--frames", "8", "--gop", "4")


def _limited(limit: int, *words: str | Path) -> str:
    """Runs a command that can write files of `limit` bytes; returns the one line that it says on stderr."""
    done = subprocess.run(
        [sys.executable, "-c", LIMITED, str(limit), *map(str, words)],
        cwd=ROOT,
        env=os.environ | {"PYTHONPATH": str(ROOT), "JAX_PLATFORMS": "cpu"},
        capture_output=True,
        text=True,
        timeout=400,
    )
    assert done.returncode == 2, done.stderr[-3000:]
    (line,) = [line for line in done.stderr.splitlines() if line.startswith(("error", "Traceback"))]
    assert line.startswith("error: ") and line.endswith("File too large."), line
    return line


def _leftovers(folder: Path) -> list[Path]:
    return [path for path in folder.rglob("*") if ".tmp" in path.name or path.name.startswith(".scratch")]


@pytest.fixture
def videos(tmp_path: Path) -> Path:
    for number in range(3):
        write_video(tmp_path / "v" / f"{number}.mp4", seed=number)
    (tmp_path / "v" / "bad.mp4").write_text("<html>")
    return tmp_path / "v"


@pytest.mark.parametrize("workers", ["0", "1"])
def test_shards(videos: Path, tmp_path: Path, workers: str) -> None:
    out = tmp_path / "s"
    words = ("--videos", videos, "--out", out, *SMALL, "--workers", workers, "--records-per-shard", "2")
    assert f"{out}/shard-00000.arrayrecord" in _limited(40_000, "shards", *words)
    assert not _leftovers(out) and not list(out.glob("*.arrayrecord"))
    command.main([*map(str, words)])
    for file in (*out.glob("shard-00000.*"), out / "quarantine.jsonl"):
        file.unlink()
    assert f"{out}/shard-00000.arrayrecord" in _limited(40_000, "shards", *words)
    assert not _leftovers(out)
    assert [Path(entry.file).name for entry in read_quarantine(out / "quarantine.jsonl")] == ["bad.mp4"]
    command.main([*map(str, words)])
    assert len(ShardSet.open(out)) == 3


def test_shards_of_an_archive_that_finds_no_room_to_be_unpacked(videos: Path, tmp_path: Path) -> None:
    subprocess.run(["tar", "-czf", tmp_path / "v.tar.gz", "-C", tmp_path, "v"], check=True)
    out = tmp_path / "s"
    assert f"{out}/.scratch-" in _limited(2_000, "shards", "--videos", tmp_path / "v.tar.gz", "--out", out, *SMALL)
    assert not _leftovers(out)


@pytest.mark.parametrize(
    ("more", "name"), [((), "0.npz"), (("--overlay",), "0.png"), (("--export=mosaics",), "0/mosaic_000.jpg")]
)
def test_extracts_keep_what_was_set_aside(videos: Path, tmp_path: Path, more: tuple[str, ...], name: str) -> None:
    out = tmp_path / "x"
    limit = 20_000 if more == ("--overlay",) else 3_000
    words = ("extract", videos / "bad.mp4", videos / "0.mp4", "--out", out, "--workers", "0", "--budget=0.125", *more)
    assert f"{out}/{name}" in _limited(limit, *words)
    assert not _leftovers(out) and not (out / name).exists()
    assert [Path(entry.file).name for entry in read_quarantine(out / "quarantine.jsonl")] == ["bad.mp4"]


def test_embeddings(shard_folder: Path, tmp_path: Path) -> None:
    work = tmp_path / "work"
    words = ("labels", "embed", "--shards", shard_folder, "--work", work, "--set", "labels.teacher=thumbnails")
    assert f"{work}/vid/chunk-" in _limited(3_000, *words)
    assert not _leftovers(work) and not list(work.rglob("*.safetensors"))


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RuntimeError("write() failed: No space left on device; at byte 262144"), 28),
        (ValueError("Error while serializing: I/O error: Disk quota exceeded (os error 122)"), 122),
        (OSError("4096 requested and 0 written"), 28),
        (OSError(27, "File too large"), 27),
    ],
)
def test_what_libraries_say_of_a_full_disk_becomes_an_error_of_the_system(error: Exception, code: int, tmp_path: Path) -> None:
    with pytest.raises(OSError, match=r"file\.bin") as caught, files.atomic_write(tmp_path / "file.bin") as temporary:
        temporary.write_bytes(b"half")
        raise error
    assert (caught.value.errno, caught.value.filename) == (code, str(tmp_path / "file.bin"))
    assert not list(tmp_path.iterdir())


def test_other_errors_pass_unchanged(tmp_path: Path) -> None:
    error = ValueError("No such thing")
    with pytest.raises(ValueError, match="No such thing") as caught, files.atomic_write(tmp_path / "file.bin"):
        raise error
    assert caught.value is error
