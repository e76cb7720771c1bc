"""A decoder that never returns and holds Python's lock: every command ends that work in time and says of which file."""

import json
import os
import shutil
import struct
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from shards_material import write_video
from source_files import encoded, picture

from launch import shards
from ove.errors import BadShard
from ove.probing.dataset import ProbeDataset, readers
from ove.shards.shard_set import ShardSet
from ove.stream.modes import TokenView

ROOT = Path(__file__).resolve().parents[2]
MARK = b"never returns"
LIMIT_S = 2.0
SMALL = ("--set", "video.n_frames=8", "--set", "video.size_px=28", "--set", f"video.time_limit_s={LIMIT_S}")


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two videos and two pictures, of which one each never comes out of the decoder."""
    folder = tmp_path_factory.mktemp("files")
    for name, seed in (("good", 0), ("hangs", 1)):
        write_video(folder / "videos" / f"{name}.mp4", seed)
        (folder / "pictures").mkdir(exist_ok=True)
        (folder / "pictures" / f"{name}.jpg").write_bytes(encoded(picture(seed, 64, 64)))
    with (folder / "videos" / "hangs.mp4").open("ab") as file:
        file.write(struct.pack(">I4s", 8 + len(MARK), b"free") + MARK)
    jpeg = (folder / "pictures" / "hangs.jpg").read_bytes()
    comment = b"\xff\xfe" + struct.pack(">H", 2 + len(MARK)) + MARK
    (folder / "pictures" / "hangs.jpg").write_bytes(jpeg[:2] + comment + jpeg[2:])
    run(folder, "shards", "--images", folder / "pictures", "--out", folder / "shards", "--workers", 1, hang=False)
    return folder


def run(folder: Path, *words: object, hang: bool = True) -> subprocess.CompletedProcess[str]:
    """Runs a command; fails unless it ends soon after the limit of one file."""
    path = [str(ROOT), *([str(ROOT / "tests" / "launch" / "hanging")] if hang else [])]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(path), "OVE_RECORD_LIMIT_S": str(LIMIT_S)}
    command = [sys.executable, "-m", "launch", *map(str, words)]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=240)


def set_aside(path: Path) -> list[tuple[str, str]]:
    entries = [json.loads(line) for line in path.read_text().splitlines()]
    return [(Path(entry["file"]).name, entry["reason"]) for entry in entries]


def is_told(reasons: Sequence[tuple[str, str]], name: str) -> bool:
    return [found for found, _ in reasons] == [name] and "hung and was ended after" in reasons[0][1]


def test_extract(files: Path, tmp_path: Path) -> None:
    started = time.monotonic()
    done = run(files, "extract", files / "videos", "--out", tmp_path, "--budget", 8, *SMALL)
    assert done.returncode == 0, done.stderr
    assert is_told(set_aside(tmp_path / "quarantine.jsonl"), "hangs.mp4") and (tmp_path / "good.npz").is_file()
    assert time.monotonic() - started < 120


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["videos", "images"])
def test_shards(files: Path, tmp_path: Path, kind: str) -> None:
    source = files / ("videos" if kind == "videos" else "pictures")
    done = run(files, "shards", f"--{kind}", source, "--out", tmp_path, *SMALL)
    assert done.returncode == 0, done.stderr
    assert is_told(set_aside(tmp_path / "quarantine.jsonl"), "hangs.mp4" if kind == "videos" else "hangs.jpg")
    assert "1 good, 1 bad" in done.stdout


def test_verify_decodes_and_ends_a_record_that_hangs(files: Path) -> None:
    done = run(files, "verify", files / "shards", "--decode", "--workers", 2)
    assert done.returncode == 1
    assert "record 1: cannot be decoded: the process that decoded it hung and was ended after 2 s of processor" in done.stdout
    assert "1 of 2 in 1 shards" in done.stdout and "1 problem." in done.stdout


def test_probe_ends_a_record_that_hangs(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(files / "pictures", tmp_path / "in" / "kind")
    assert shards.main(["--images", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--workers", "0"]) == 0
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, ROOT / "tests" / "launch" / "hanging"))))
    monkeypatch.setenv("OVE_RECORD_LIMIT_S", str(LIMIT_S))
    found = ShardSet.open(tmp_path / "out")
    with readers(found, 1) as apart:
        dataset = ProbeDataset(found, ("kind",), "image", TokenView(4, size_px=28), apart=apart)
        np.testing.assert_array_equal(dataset.read(0).patches, dataset(0).patches)
        with pytest.raises(
            BadShard, match=r"out: record 1 cannot be decoded: the process that decoded it hung and was ended after 2 s"
        ):
            dataset.read(1)
        assert dataset.read(0, epoch=1).label == 0


@pytest.mark.slow
def test_show(files: Path, tmp_path: Path) -> None:
    for key, code in (("good.jpg", 0), ("hangs.jpg", 2)):
        done = run(files, "show", files / "shards", key, "--out", tmp_path / "out.png")
        assert done.returncode == code, done.stderr
    assert "record 1 (hangs.jpg) cannot be drawn: the process that decoded it hung and was ended after 2 s" in done.stderr


@pytest.mark.slow
@pytest.mark.parametrize("mode", ["codec", "image"])
def test_encode(files: Path, tmp_path: Path, mode: str) -> None:
    weights = files / "weights"
    if not weights.exists():
        make = (
            "import sys, jax; from pathlib import Path; from ove.config import EncoderConfig;"
            "from ove.encoder import published; from ove.encoder.encoder import init;"
            "c = EncoderConfig(layers=1, width=64, heads=1, mlp=128);"
            "published.save(published.assemble(c, init(c, jax.random.key(0))), Path(sys.argv[1]))"
        )
        subprocess.run([sys.executable, "-c", make, str(weights)], check=True, env={**os.environ, "PYTHONPATH": str(ROOT)})
    inputs = files / ("videos" if mode == "codec" else "pictures")
    words = ["encode", "--weights", weights, "--inputs", inputs, "--mode", mode, "--out", tmp_path / "f.npz"]
    limits = ["--budget", 8, *SMALL] if mode == "codec" else []
    if mode == "image":  # whose limit is that of videos by default
        config = {"mode": "image", "video": {"time_limit_s": LIMIT_S}}
        (weights / "preprocessor_config.json").write_text(json.dumps({"ove": config}))
    done = run(files, *words, *limits)
    assert done.returncode == 0, done.stderr
    with np.load(tmp_path / "f.npz") as found:
        assert [Path(name).stem for name in found["files"]] == ["good"]
        assert is_told([(Path(str(found["bad_files"][0])).stem, str(found["bad_reasons"][0]))], "hangs")


@pytest.mark.slow
def test_ocr(files: Path, tmp_path: Path) -> None:
    limits = ("engines.time_limit_s=2", "engines.retries=0", "engines.max_dead_share=1")
    settings = [word for limit in limits for word in ("--set", limit)]
    done = run(files, "labels", "ocr", "--shards", files / "shards", *settings)
    (letters,) = (files / "shards").rglob("dead-letters.jsonl")
    assert "hung and was ended after 2 s of processor time" in letters.read_text(), done.stderr
