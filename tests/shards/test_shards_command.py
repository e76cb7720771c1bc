"""`ove shards` as a person types it: good files in, bad files named, one sentence where nothing works."""

import json
import os
import subprocess
import sys
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from shards_material import write_video
from source_files import read_quarantine

from launch import shards as command
from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.shards.schema import decode_frames
from ove.shards.shard_set import ShardSet
from ove.shards.verify import verify
from ove.video.decode import read_video

SMALL = ["--size", "56", "--frames", "8", "--gop", "4"]


def _run(*arguments: str | Path) -> subprocess.CompletedProcess:
    root = Path(__file__).parents[2]
    return subprocess.run(
        [sys.executable, "-m", "launch.shards", *map(str, arguments)],
        cwd=root,
        capture_output=True,
        text=True,
        timeout=800,
        env={**os.environ, "PYTHONPATH": str(root)},
    )


def _write_sound(path: Path, codec: str) -> None:
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=16000)
        tone = np.sin(np.arange(16000) / 9).astype(np.float32) * 9000
        frame = av.AudioFrame.from_ndarray(tone.astype(np.int16)[None], "s16", "mono")
        frame.sample_rate = 16000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


@pytest.fixture
def mixed_folder(tmp_path: Path) -> Path:
    """Three good videos, one of them of 5 frames, among files that are none."""
    folder = tmp_path / "videos"
    write_video(folder / "a.mp4", seed=1, n_frames=20)
    write_video(folder / "b.mp4", seed=2, n_frames=20)
    write_video(folder / "five.mp4", seed=3, n_frames=5)
    whole = (folder / "a.mp4").read_bytes()
    (folder / "empty.mp4").touch()
    (folder / "truncated.mp4").write_bytes(whole[: len(whole) // 2])
    (folder / "text.txt").write_text("no video\n" * 50)
    (folder / "text.mp4").write_text("no video either\n" * 50)
    _write_sound(folder / "sound.wav", "pcm_s16le")
    _write_sound(folder / "without_video_stream.mp4", "aac")
    cv2.imwrite(str(folder / "picture.png"), np.zeros((64, 64, 3), np.uint8))
    return folder


def test_good_files_are_processed_and_bad_ones_named(mixed_folder: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    done = _run("--videos", mixed_folder, "--out", out, "--records-per-shard", "4", *SMALL)
    assert done.returncode == 0, done.stderr
    assert "3 good, 6 bad" in done.stdout
    assert f"{mixed_folder}: 1 lists, notes or subtitles in it are left out: text.txt" in done.stderr
    shards = ShardSet.open(out)
    assert [shards.record(i).key for i in range(len(shards))] == ["a.mp4", "b.mp4", "five.mp4"]
    assert shards.grid_tyx == (8, 4, 4)
    assert verify(out).problems == []
    entries = read_quarantine(out / "quarantine.jsonl")
    assert sorted(Path(entry.file).name for entry in entries) == [
        "empty.mp4",
        "picture.png",
        "sound.wav",
        "text.mp4",
        "truncated.mp4",
        "without_video_stream.mp4",
    ]
    for entry in entries:
        assert "unforeseen" not in entry.reason
        assert entry.file in entry.reason
        assert entry.reason in done.stdout
    five = shards.record(2)
    assert five.n_decoded == 5
    np.testing.assert_array_equal(five.frame_index, np.linspace(0, 4, 8).astype(int))
    assert decode_frames(five, range(8)).shape == (8, 56, 56, 3)
    assert shards.manifest.made_with["video"]["n_frames"] == 8


def test_nothing_usable_is_one_sentence(tmp_path: Path) -> None:
    (tmp_path / "videos").mkdir()
    (tmp_path / "videos" / "notes.mp4").write_text("no video\n" * 50)
    done = _run("--videos", tmp_path / "videos", "--out", tmp_path / "out", *SMALL)
    assert done.returncode != 0
    assert "none of the 1 inputs is usable" in done.stderr
    assert "Traceback" not in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_list_gives_labels_and_settings_arrive(mixed_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("videos/b.mp4\tsecond\nvideos/a.mp4\tfirst\nvideos/missing.mp4\n")
    arguments = ["--videos", str(tmp_path / "list.txt"), "--out", str(tmp_path / "out"), "--workers", "0", *SMALL]
    assert command.main([*arguments, "--set", "video.sampling=consecutive", "--set", "shards.jpeg_quality=80"]) == 0
    shards = ShardSet.open(tmp_path / "out")
    assert shards.classes == ["first", "second"]
    assert shards.manifest.made_with["shards"]["jpeg_quality"] == 80
    assert np.all(np.diff(shards.record(0).frame_index) == 1)
    assert shards.record(0).saliency.max() > 0
    assert "missing.mp4" in read_quarantine(tmp_path / "out" / "quarantine.jsonl")[0].file


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("video.sise_px=14", "did you mean video.size_px"),
        ("shards.workers=many", "shards.workers"),
        ("nothing", "expected video.KEY=VALUE"),
        ("train.lr=1", "expected video.KEY=VALUE"),
    ],
)
def test_wrong_settings_are_refused(setting: str, message: str, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=message):
        command.main(["--videos", str(tmp_path / "in"), "--out", str(tmp_path / "out"), "--set", setting])


def test_parts_of_one_video_become_records_of_their_own(video_folder: Path, tmp_path: Path) -> None:
    video = video_folder / "right" / "0.mp4"
    clip, _ = read_video(video, VideoConfig(n_frames=4, size_px=56))
    middle = float(clip.pts_s[-1] + clip.pts_s[0]) / 2
    rows = [{"path": str(video), "start_s": a, "end_s": b, "key": k} for k, a, b in (("1", 0, middle), ("2", middle, 999))]
    listed = tmp_path / "list.jsonl"
    listed.write_text("\n".join(map(json.dumps, rows)))
    command.main(["--videos", str(listed), "--out", str(tmp_path / "out"), "--workers", "0", *SMALL])
    shards = ShardSet.open(tmp_path / "out")
    first, second = (shards.video(n) for n in range(2))
    assert first.n_decoded + second.n_decoded == clip.n_decoded
    assert first.pts_s.max() < middle <= second.pts_s.min()
