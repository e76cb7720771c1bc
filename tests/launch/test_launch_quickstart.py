"""The quickstart as a user starts it, on toy videos and on folders of own ones (issue 2, item 11)."""

import json
import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import pytest

from ove.toy import write_video

ROOT = Path(__file__).resolve().parents[2]
SCORES = {"codec", "frames", "untrained_codec", "untrained_frames"}


@dataclass(frozen=True)
class Run:
    out: Path
    code: int
    stdout: str
    stderr: str

    @property
    def report(self) -> dict[str, Any]:
        return json.loads((self.out / "report.json").read_text())


def quickstart(out: Path, *arguments: object, cwd: Path = ROOT) -> Run:
    """Runs the command in a process of its own, on one device as users do; `out` may be relative to `cwd`."""
    words = [sys.executable, "-m", "launch.quickstart", "--out", out, *arguments]
    environment = {name: value for name, value in os.environ.items() if name != "XLA_FLAGS"} | {"PYTHONPATH": str(ROOT)}
    done = subprocess.run([str(word) for word in words], cwd=cwd, env=environment, capture_output=True, text=True, check=False)
    return Run(cwd / out, done.returncode, done.stdout, done.stderr)


def check_outputs(run: Run) -> None:
    """What every run that succeeds leaves."""
    assert run.code == 0, run.stdout[-2000:] + run.stderr[-2000:]
    picture = cv2.imread(str(run.out / "overlay.png"))
    assert picture is not None and min(picture.shape[:2]) >= 100, "overlay.png is no picture that a person can read"
    assert "overlay.png" in (run.out / "report.md").read_text()
    report = run.report
    assert report.keys() >= {"probe", "budget_tokens", "seconds"}
    assert len(report["seconds"]) >= 4 and all(s >= 0 for s in report["seconds"].values())


def check_scores(run: Run) -> None:
    """A table on the screen and in the report, and its numbers in report.json."""
    report = run.report
    assert report["probe"].keys() == SCORES
    assert all(0 <= top1 <= 1 for top1 in report["probe"].values())
    assert isinstance(report["budget_tokens"], int) and report["budget_tokens"] > 0
    written = (run.out / "report.md").read_text()
    for name in ("codec", "frames"):
        figures = [f"{report['probe'][which + name]:.1%}" for which in ("", "untrained_")]
        for figure in figures:
            assert figure in written and figure in run.stdout.rsplit("[probe]")[-1]


def labelled_folder(folder: Path, per_class: int, *labels: str) -> Path:
    """Toy videos under names of one's own, a subfolder a class."""
    for number, label in enumerate(labels):
        (folder / label).mkdir(parents=True)
        for i in range(per_class):
            write_video(folder.parent / "made", seed=1, index=8 * i + number).rename(folder / label / f"clip {i}.mp4")
    return folder


@pytest.mark.slow
def test_on_toy_videos(tmp_path: Path) -> None:
    run = quickstart(tmp_path / "out", "--smoke")
    check_outputs(run)
    check_scores(run)


@pytest.mark.slow
def test_on_own_videos_with_labels_from_another_folder(tmp_path: Path) -> None:
    labelled_folder(tmp_path / "my videos", 4, "jump", "fall")
    run = quickstart(Path("my runs"), "--smoke", "my videos", cwd=tmp_path)
    check_outputs(run)
    check_scores(run)


@pytest.mark.slow
def test_on_own_videos_without_labels_and_one_that_is_none(tmp_path: Path) -> None:
    videos = tmp_path / "videos"
    videos.mkdir()
    for i in range(4):
        write_video(tmp_path / "made", seed=2, index=i).rename(videos / f"{i}.mp4")
    (videos / "broken.mp4").write_text("not a video\n")
    run = quickstart(tmp_path / "out", "--smoke", videos)
    check_outputs(run)
    assert run.report["probe"] is None
    assert "label" in (run.out / "report.md").read_text()
    assert "broken.mp4" in run.stdout


@pytest.mark.parametrize("what", ["empty", "missing", "without a video"])
def test_a_folder_without_videos_is_refused_in_a_sentence(what: str, tmp_path: Path) -> None:
    folder = tmp_path / "videos"
    if what != "missing":
        folder.mkdir()
    if what == "without a video":
        (folder / "notes.txt").write_text("nothing to see\n")
        (folder / "broken.mp4").write_text("not a video\n")
    run = quickstart(tmp_path / "out", "--smoke", folder)
    assert run.code != 0
    assert "Traceback" not in run.stderr
    last = run.stderr.strip().splitlines()[-1]
    assert last.startswith("error: ")
    assert str(folder) in run.stderr + run.stdout
    assert not (run.out / "report.json").exists()
    if what != "without a video":
        assert len(run.stderr.strip().splitlines()) == 1 and str(folder) in last
