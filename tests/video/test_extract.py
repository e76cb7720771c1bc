"""The command that goes from video files to .npz files."""

import subprocess
import sys

import cv2
import numpy as np
import pytest
from video_files import P_ONLY, moving_texture

from launch.extract import main
from ove.errors import BadClip, ConfigError
from ove.shards.quarantine import read_quarantine
from ove.video.select import select


def test_good_files_are_extracted_and_bad_ones_set_aside(tmp_path, write_video, capsys):
    folder = tmp_path / "videos"
    (folder / "jump").mkdir(parents=True)
    write_video("videos/a.mp4", moving_texture(70, 96), x264_params=P_ONLY)
    write_video("videos/jump/a.mkv", moving_texture(5, 64))
    (folder / "empty.mp4").touch()
    (folder / "notes.txt").write_text("no video")
    cv2.imwrite(str(folder / "still.png"), np.zeros((32, 32, 3), np.uint8))
    out = tmp_path / "out"
    code = main([str(folder), str(tmp_path / "gone.mp4"), "--out", str(out), "--signals", "--overlay", "--budget", "512"])
    assert code == 0
    assert "2 of 6 videos extracted" in capsys.readouterr().out
    bad = {entry.file.rsplit("/", 1)[-1]: entry.reason for entry in read_quarantine(out / "quarantine.jsonl")}
    assert sorted(bad) == ["empty.mp4", "gone.mp4", "notes.txt", "still.png"]
    assert len(set(bad.values())) == 4
    assert sorted(p.name for p in out.iterdir()) == ["a-2.npz", "a-2.png", "a.npz", "a.png", "quarantine.jsonl"]
    with np.load(out / "a.npz") as found:
        assert found["frame_index"].shape == found["pts_s"].shape == found["is_i_frame"].shape == (64,)
        assert (found["saliency"].shape, found["saliency"].dtype) == ((64, 16, 16), np.float32)
        assert (found["motion"].shape, found["motion"].dtype) == ((64, 12, 12, 2), np.float32)
        assert (found["residual"].shape, found["residual"].dtype) == ((64, 96, 96), np.int16)
        assert (str(found["source"]), str(found["codec"])) == ("bitstream", "h264")
        assert found["selected_flat"].dtype == np.int32
        np.testing.assert_array_equal(found["selected_flat"], select(found["saliency"], found["is_i_frame"], 512, "keep").flat)


def test_selection_follows_the_square_that_moves(tmp_path, write_video):
    frames = moving_texture(64, 224, pan=0.0)
    path = write_video("v.mp4", frames, crf="18", x264_params=P_ONLY)
    main([str(path), "--out", str(tmp_path / "out"), "--budget", "2048"])
    with np.load(tmp_path / "out" / "v.npz") as found:
        chosen = np.zeros(64 * 256, bool)
        chosen[found["selected_flat"]] = True
    chosen = chosen.reshape(64, 16, 16)
    hits = []
    for t in range(1, 64):
        left = (3 * t) % 168
        if t % 32 and left > 3:  # neither an I-frame nor the jump back to the left border
            hits.append(chosen[t, 224 // 3 // 14 + 1 : (224 // 3 + 56) // 14, left // 14 + 1 : (left + 56) // 14].mean())
    assert np.mean(hits) > 0.8


def test_real_videos_are_extracted(tmp_path, real_videos):
    assert main([*map(str, real_videos), "--out", str(tmp_path)]) == 0
    assert len(list(tmp_path.glob("*.npz"))) == len(real_videos)
    assert read_quarantine(tmp_path / "quarantine.jsonl") == []


def test_nothing_usable_is_a_sentence_and_an_exit_code(tmp_path):
    (tmp_path / "notes.txt").write_text("no video")
    done = subprocess.run(
        [sys.executable, "-m", "launch.extract", str(tmp_path / "notes.txt"), "--out", str(tmp_path / "out")],
        capture_output=True,
        text=True,
    )
    assert done.returncode != 0
    assert done.stderr.startswith("error: none of the 1 input files is a usable video")
    assert "Traceback" not in done.stderr


def test_impossible_requests_are_refused(tmp_path, write_video):
    path = str(write_video("v.mp4", moving_texture(10, 64)))
    with pytest.raises(ConfigError, match="budget_tokens = 100"):
        main([path, "--out", str(tmp_path / "out"), "--budget", "100"])
    with pytest.raises(ConfigError, match="size_px = 100"):
        main([path, "--out", str(tmp_path / "out"), "--size", "100"])
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadClip, match="no input files"):
        main([str(tmp_path / "bare"), "--out", str(tmp_path / "out")])
