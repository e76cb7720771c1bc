"""Where `ove extract` writes: nothing of the user's is overwritten, and every file says of which video it is."""

import json
import os
import shutil
from pathlib import Path

import numpy as np
import pytest
from source_files import read_quarantine
from video_files import P_ONLY, moving_texture

from launch.extract import main
from ove.errors import BadClip, ConfigError

SMALL = ["--size", "56", "--budget", "0.125", "--workers", "0"]


@pytest.fixture
def video(tmp_path, write_video) -> Path:
    return Path(write_video("clip.mp4", moving_texture(12, 64), x264_params=P_ONLY))


def _run(*arguments: str | Path) -> int:
    return main([*map(str, arguments), *SMALL])


def _videos(out: Path) -> dict[str, str]:
    """Name of each .npz → its video, as the file itself says."""
    found = {}
    for path in sorted(out.rglob("*.npz")):
        with np.load(path) as held:
            found[path.relative_to(out).as_posix()] = str(held["video"])
    return found


def _listed(out: Path) -> dict[str, str]:
    entries = map(json.loads, (out / "extracts.jsonl").read_text().splitlines())
    return {file: entry["video"] for entry in entries for file in entry["files"]}


def test_the_video_itself_is_never_overwritten(video, tmp_path):
    before = video.read_bytes()
    for more in ([], ["--replace"]):
        with pytest.raises(ConfigError, match=r"clip\.mp4: is one of the videos, which are never written to"):
            _run(video, "--out", tmp_path, "--overlay=video", *more)
    (tmp_path / "other").mkdir()
    os.link(video, tmp_path / "other" / "clip.mp4")
    (tmp_path / "other" / "link.mp4").symlink_to(video)
    with pytest.raises(ConfigError, match=r"link\.mp4: is one of the videos"):
        _run(tmp_path / "other" / "link.mp4", "--out", tmp_path / "other", "--overlay=video")
    with pytest.raises(ConfigError, match=r"clip\.mp4: exists, and is not known to have been written by this command"):
        _run(video, "--out", tmp_path / "other", "--overlay=video")
    assert video.read_bytes() == before and sorted(p.name for p in tmp_path.iterdir()) == ["clip.mp4", "other"]


@pytest.mark.parametrize(
    ("options", "name"), [(["--overlay"], "clip.png"), ([], "clip.npz"), (["--overlay=video"], "clip.mp4")]
)
def test_a_file_of_the_user_is_overwritten_only_if_asked_for(video, tmp_path, options, name):
    out = tmp_path / "out"
    out.mkdir()
    (out / name).write_text("the user's")
    with pytest.raises(ConfigError, match=f"{name}: exists, and is not known to have been written by this command.*--replace"):
        _run(video, "--out", out, *options)
    assert [(path.name, path.read_text()) for path in out.iterdir()] == [(name, "the user's")]
    assert _run(video, "--out", out, *options, "--replace") == 0
    assert (out / name).stat().st_size > 1000
    assert _run(video, "--out", out, *options) == 0, "from then on it is the command's own"


def test_a_folder_of_mosaics_of_the_user_is_not_emptied(video, tmp_path):
    (tmp_path / "out" / "clip").mkdir(parents=True)
    (tmp_path / "out" / "clip" / "mosaic_007.jpg").write_text("the user's")
    with pytest.raises(ConfigError, match="out/clip: exists"):
        _run(video, "--out", tmp_path / "out", "--export=mosaics")
    assert (tmp_path / "out" / "clip" / "mosaic_007.jpg").read_text() == "the user's"


def test_equal_names_in_class_folders_stay_apart_and_keep_their_names(video, tmp_path):
    out = tmp_path / "out"
    for label in ("jump", "run"):
        (tmp_path / "v" / label).mkdir(parents=True)
        shutil.copy(video, tmp_path / "v" / label / "1.mp4")
    assert _run(tmp_path / "v", "--out", out, "--export=npz,mosaics") == 0
    expected = {f"{label}/1.npz": str(tmp_path / "v" / label / "1.mp4") for label in ("jump", "run")}
    assert _videos(out) == expected and expected.items() <= _listed(out).items()
    assert [json.loads(line)["id"] for line in (out / "mosaics.jsonl").read_text().splitlines()] == ["jump/1", "run/1"]
    shutil.rmtree(tmp_path / "v" / "jump")
    assert _run(tmp_path / "v", "--out", out) == 0
    assert _videos(out) == expected and expected.items() <= _listed(out).items()


def test_a_name_that_is_another_videos_gets_a_digest_whatever_the_order_of_calls(video, tmp_path):
    for label in ("jump", "run"):
        (tmp_path / label).mkdir()
        shutil.copy(video, tmp_path / label / "1.mp4")
    shutil.copy(video, tmp_path / "run" / "1.mov")
    out, first, second = tmp_path / "out", tmp_path / "jump" / "1.mp4", tmp_path / "run" / "1.mp4"
    assert _run(first, second, tmp_path / "run" / "1.mov", "--out", out) == 0
    before = _videos(out)
    assert before["1.npz"] == str(first) and len(before) == 3 and _listed(out) == before
    assert _run(second, "--out", out) == 0 and _run(second, first, "--out", out) == 0
    assert _videos(out) == before == _listed(out)


def test_long_and_strange_names_are_shortened_and_cleaned(video, tmp_path):
    folder, out = tmp_path / "v", tmp_path / "out"
    folder.mkdir()
    names = [
        "動画" * 41 + ".mp4",
        "é" * 124 + ".mp4",
        "a\nb.mp4",
        "back\\slash.mp4",
        "tab\t🎬 'quoted'.mp4",
        "～.mp4",
        "x.tar.mp4",
    ]
    for name in names:
        shutil.copy(video, folder / name)
    with open(os.fsencode(folder) + b"/caf\xe9.mp4", "wb") as file:
        file.write(video.read_bytes())
    assert _run(folder, "--out", out) == 0
    made = _videos(out)
    assert sorted(map(os.fsencode, made.values())) == sorted(
        os.fsencode(str(folder / name)) for name in (*names, "caf\\udce9.mp4")
    )
    assert {"～.npz", "x.tar.npz"} <= set(made) and all(len(name.encode()) <= 210 for name in made)
    assert len([name for name in made if name.startswith(("a_b-", "back_slash-", "tab_🎬", "caf_udce9-"))]) == 4
    assert _run(folder, "--out", out) == 0, "the list is read again"
    assert _videos(out) == made
    for kind in ("--overlay=sheet", "--overlay=video"):
        latin1 = Path(os.fsdecode(os.fsencode(folder) + b"/caf\xe9.mp4"))
        assert _run(latin1, "--out", tmp_path / kind, kind) == 0
    with open(os.fsencode(folder) + b"/bad\xe9.mp4", "wb") as file:
        file.write(b"<html>")
    assert _run(folder, "--out", out) == 0
    (bad,) = read_quarantine(out / "quarantine.jsonl")
    assert bad.file == f"{folder}/bad\\udce9.mp4" and bad.file in bad.reason


def test_the_list_of_extracts_leads_nowhere_else(video, tmp_path):
    out = tmp_path / "out"
    out.mkdir()
    entry = {"video": str(video), "name": "../stolen", "files": ["../stolen.npz"]}
    (out / "extracts.jsonl").write_text(json.dumps(entry) + "\n")
    with pytest.raises(ConfigError, match=r"extracts\.jsonl: names the file '\.\./stolen'"):
        _run(video, "--out", out)
    assert not (tmp_path / "stolen.npz").exists()


def test_what_is_set_aside_is_not_listed(video, tmp_path):
    (tmp_path / "bad.mp4").write_text("no video")
    assert _run(video, tmp_path / "bad.mp4", "--out", tmp_path / "out") == 0
    assert _listed(tmp_path / "out") == {"clip.npz": str(video)}
    with pytest.raises(BadClip):
        _run(tmp_path / "bad.mp4", "--out", tmp_path / "out")
    assert _listed(tmp_path / "out") == {"clip.npz": str(video)}


def test_an_interrupted_call_can_be_repeated(video, tmp_path, monkeypatch):
    import launch.extract as command

    def interrupted(*arguments):
        raise KeyboardInterrupt

    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(command, "write_animation", interrupted)
        _run(video, "--out", tmp_path / "out", "--overlay=video")
    assert (tmp_path / "out" / "clip.npz").exists()
    assert _run(video, "--out", tmp_path / "out", "--overlay=video") == 0


def test_extracts_are_not_written_among_the_videos_that_are_read(video, tmp_path):
    (tmp_path / "v").mkdir()
    shutil.copy(video, tmp_path / "v")
    for out in (tmp_path / "v", tmp_path / "v" / "out"):
        with pytest.raises(ConfigError, match=r"lies within the source|is the source itself"):
            _run(tmp_path / "v", "--out", out)
    assert [path.name for path in (tmp_path / "v").iterdir()] == ["clip.mp4"]
