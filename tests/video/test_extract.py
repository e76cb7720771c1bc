"""The command that goes from video files to .npz files, mosaics and pictures."""

import json
import subprocess
import sys

import cv2
import numpy as np
import pytest
from source_files import read_quarantine
from video_files import P_ONLY, moving_texture

from launch.extract import main
from ove.errors import BadClip, ConfigError
from ove.video.select import select


def test_good_files_are_extracted_and_bad_ones_set_aside(tmp_path, write_video, capsys):
    folder = tmp_path / "videos"
    (folder / "jump").mkdir(parents=True)
    write_video("videos/a.mp4", moving_texture(70, 96), x264_params=P_ONLY)
    write_video("videos/jump/a.mkv", moving_texture(5, 64))
    (folder / "empty.mp4").touch()
    (folder / "notes.mp4").write_text("no video")
    cv2.imwrite(str(folder / "still.png"), np.zeros((32, 32, 3), np.uint8))
    out = tmp_path / "out"
    code = main([str(folder), str(tmp_path / "gone.mp4"), "--out", str(out), "--signals", "--overlay", "--budget", "512"])
    assert code == 0
    assert "2 of 6 videos extracted" in capsys.readouterr().out
    bad = {entry.file.rsplit("/", 1)[-1]: entry.reason for entry in read_quarantine(out / "quarantine.jsonl")}
    assert sorted(bad) == ["empty.mp4", "gone.mp4", "notes.mp4", "still.png"]
    assert len(set(bad.values())) == 4
    made = sorted(p.relative_to(out).as_posix() for p in out.rglob("*") if p.is_file())
    assert made == ["a.npz", "a.png", "extracts.jsonl", "jump/a.npz", "jump/a.png", "quarantine.jsonl"]
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


def test_impossible_requests_are_refused_before_anything_is_decoded(tmp_path, write_video):
    path, out = str(write_video("v.mp4", moving_texture(10, 64))), ["--out", str(tmp_path / "out")]
    for arguments, told in (
        (["--budget", "100"], "budget_tokens = 100"),
        (["--size", "100"], "size_px = 100"),
        (["--export", "npz,pdf"], "'pdf' is none of npz, mosaics"),
        (["--export", "mosaics", "--budget", "2000"], "multiple of 256, for example 2048"),
        (["--set", "video.samplin=energy"], "did you mean video.sampling"),
    ):
        with pytest.raises(ConfigError, match=told):
            main([path, *out, *arguments])
    assert not (tmp_path / "out").exists()
    (tmp_path / "bare").mkdir()
    with pytest.raises(BadClip, match="no input files"):
        main([str(tmp_path / "bare"), *out])


def test_mosaics_are_what_was_selected(tmp_path, write_video):
    path, out = write_video("v.mp4", moving_texture(70, 112), x264_params=P_ONLY), tmp_path / "out"
    settings = ["--size", "56", "--budget", "0.125", "--workers", "0"]
    assert main(["--export=npz,mosaics", str(path), "--out", str(out), *settings]) == 0
    (line,) = (out / "mosaics.jsonl").read_text().splitlines()
    entry = json.loads(line)
    with np.load(out / "v.npz") as found:
        chosen, grid = found["selected_flat"], tuple(found["grid_tyx"])
    assert len(chosen) == 128 == len(entry["image"]) * 16
    np.testing.assert_array_equal(np.load(entry["positions_thw"]), np.stack(np.unravel_index(chosen, grid), axis=1))
    assert main(["--export=mosaics", str(path), "--out", str(tmp_path / "alone"), *settings]) == 0
    assert sorted(p.name for p in (tmp_path / "alone").iterdir()) == [
        "extracts.jsonl",
        "mosaics.jsonl",
        "quarantine.jsonl",
        "v",
    ]


def test_a_bare_overlay_is_a_sheet_and_takes_no_file_for_its_kind(tmp_path, write_video):
    path = str(write_video("v.mp4", moving_texture(20, 64), x264_params=P_ONLY))
    common = ["--size", "56", "--budget", "0.125", "--workers", "0", "--out"]
    assert main(["--overlay", path, *common, str(tmp_path / "sheet")]) == 0
    assert main([path, *common, str(tmp_path / "video"), "--overlay", "video"]) == 0
    assert [(tmp_path / kind / name).exists() for kind, name in (("sheet", "v.png"), ("video", "v.mp4"))] == [True, True]
    with pytest.raises(SystemExit):
        main([path, *common, str(tmp_path / "other"), "--overlay=film"])


@pytest.mark.parametrize(
    "settings", [["--preset=probe"], ["--preset=frames"], ["--preset=lmm"], ["--source=transcode"], ["--sampling=pool"]]
)
def test_settings_reach_the_selection(tmp_path, write_video, settings):
    frames = moving_texture(80, 96, 64)
    path = str(write_video("v.mp4", frames, x264_params=P_ONLY))
    selected = []
    for name, more in (("plain", []), ("set", settings)):
        out = tmp_path / name
        assert main([path, "--out", str(out), "--size=84", "--budget=288", "--workers=0", "--overlay", "--signals", *more]) == 0
        with np.load(out / "v.npz") as found:
            selected.append((found["selected_flat"].tolist(), found["frame_index"].tolist(), str(found["source"])))
    assert selected[0] != selected[1]
    assert len(selected[1][0]) == 288


def test_a_file_cut_short_is_kept_and_marked_if_asked_for(tmp_path, write_video):
    whole = write_video("w.mp4", moving_texture(70, 96), container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-2000])
    common = [str(cut), "--size=56", "--budget=0.125", "--workers=0", "--out"]
    with pytest.raises(BadClip, match="none of the 1 input files"):
        main([*common, str(tmp_path / "strict")])
    assert main([*common, str(tmp_path / "kept"), "--set", "video.truncated=keep"]) == 0
    with np.load(tmp_path / "kept" / "cut.npz") as found:
        assert "70 frames announced" in str(found["cut"])
        assert found["frame_index"][-1] == found["n_decoded"] - 1 < 69
