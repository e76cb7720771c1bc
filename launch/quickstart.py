"""The whole way on a CPU, each step the command that one would type: videos → signals → shards → labels → training → probe.

python -m launch.quickstart [VIDEO_DIR] [--out DIR]; without VIDEO_DIR on toy videos. Ends with the probe's table, and
leaves overlay.png, report.md and report.json in the output folder. Started again, it goes on where it stopped.
"""

import argparse
import json
import shlex
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from launch import command
from ove.errors import ConfigError, OveError
from ove.shards.read import ShardSet
from ove.shards.sources import VideoFile, find_videos

ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = 112
"""Frames of 8×8 patches: a quarter of the work of the default 224 px."""
TOY_TRAIN, TOY_VAL = 512, 256
MAX_VIDEOS = 512
"""Of the user's own videos; more would not fit into the ten minutes."""
CENTERS = 64
VAL_EVERY = 4
"""Every fourth video of a class is kept for validation."""


@dataclass
class Steps:
    """Runs commands one after the other and keeps their times."""

    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, name: str, module: str, *arguments: object) -> None:
        """`python -m launch.MODULE ARGUMENTS`, its output on the screen; stops everything if it fails."""
        words = ["-m", f"launch.{module}", *map(str, arguments)]
        print(f"\n[{name}] python {shlex.join(words)}", flush=True)
        before = time.perf_counter()
        done = subprocess.run([sys.executable, *words], cwd=ROOT, check=False)
        self.seconds[name] = round(time.perf_counter() - before, 1)
        if done.returncode:
            raise OveError(f"the step {name} ended with exit code {done.returncode}; its message stands above.")


def main() -> None:
    """Parses the arguments and runs the steps."""
    parser = argparse.ArgumentParser(prog="bash launch/quickstart.sh", description=__doc__)
    parser.add_argument("videos", nargs="?", type=Path, metavar="VIDEO_DIR", help="a folder of videos; subfolders give labels")
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "quickstart")
    parser.add_argument("--smoke", action="store_true", help="a run of about a minute, to see that everything works")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    out: Path = arguments.out.resolve()
    out.mkdir(parents=True, exist_ok=True)
    _claim(
        out,
        {
            "videos": str(arguments.videos.resolve()) if arguments.videos else "toy",
            "seed": arguments.seed,
            "smoke": arguments.smoke,
        },
    )
    steps = Steps()
    if arguments.videos:
        train_list, val_list, example = _own_videos(arguments.videos, out)
    else:
        train_list, val_list, example = _toy_videos(steps, out, arguments.smoke, arguments.seed)
    result = _from_videos_to_scores(steps, out, train_list, val_list, example, arguments.smoke, arguments.seed)
    _report(out, steps, result)


def _from_videos_to_scores(
    steps: Steps, out: Path, train_list: Path, val_list: Path | None, example: Path, smoke: bool, seed: int
) -> dict | None:
    """Runs all steps after the videos; the probe's scores, or None where there are no labels to probe with."""
    arg = ":smoke" if smoke else ""
    steps.run("extract", "extract", example, "--out", out / "extract", "--overlay")
    splits = {"train": train_list} | ({"val": val_list} if val_list else {})
    for split, videos in splits.items():
        steps.run(f"shards_{split}", "shards", "--videos", videos, "--out", out / "shards" / split, "--size", SIZE_PX)
    n_videos = len(ShardSet.open(out / "shards" / "train"))
    n_centers = max(1, min(CENTERS, n_videos // 2))
    steps.run("labels", "labels", "--shards", out / "shards" / "train", "--centers", n_centers, "--labels", min(10, n_centers))
    train = [
        "--config",
        f"{ROOT}/configs/toy.py{arg}",
        "--workdir",
        out / "train",
        f"--config.batches.shards={out}/shards/train",
    ]
    steps.run("train", "train", *train, f"--config.train.seed={seed}", f"--config.batches.seed={seed}")
    if not val_list:
        return None
    scores = out / "probe.json"
    probe = [
        f"--config.workdir={out}/train",
        f"--config.train_shards={out}/shards/train",
        f"--config.val_shards={out}/shards/val",
    ]
    steps.run(
        "probe", "probe", "--config", f"{ROOT}/configs/probe_toy.py{arg}", "--out", scores, f"--config.seed={seed}", *probe
    )
    return json.loads(scores.read_text())


def _toy_videos(steps: Steps, out: Path, smoke: bool, seed: int) -> tuple[Path, Path, Path]:
    n_train, n_val = (32, 16) if smoke else (TOY_TRAIN, TOY_VAL)
    steps.run("toy", "toy", "--out", out / "videos", "--train", n_train, "--val", n_val, "--seed", seed)
    return out / "videos" / "train", out / "videos" / "val", min((out / "videos" / "train").rglob("*.mp4"))


def _own_videos(folder: Path, out: Path) -> tuple[Path, Path | None, Path]:
    """Lists of the videos to train on and to score on (None unless there are two classes of two videos), and an example."""
    found = find_videos(folder)
    if len(found) > MAX_VIDEOS:
        print(f"{folder}: {len(found)} files; the quickstart takes {MAX_VIDEOS}, evenly over all of them.")
        found = [found[i * len(found) // MAX_VIDEOS] for i in range(MAX_VIDEOS)]
    by_label: dict[str | None, list[VideoFile]] = defaultdict(list)
    for video in found:
        by_label[video.label].append(video)
    labelled = None not in by_label and len(by_label) > 1 and min(map(len, by_label.values())) > 1
    val = [v for group in by_label.values() for v in group[1::VAL_EVERY]] if labelled else []
    chosen = {v.key for v in val}
    train = [v for v in found if v.key not in chosen]
    return _write_list(out / "train.txt", train), _write_list(out / "val.txt", val) if val else None, folder


def _write_list(path: Path, videos: Sequence[VideoFile]) -> Path:
    path.write_text("".join(f"{v.path.resolve()}\t{v.label or ''}\n" for v in videos))
    return path


def _claim(out: Path, inputs: dict) -> None:
    """One output folder belongs to one set of inputs, so that what an earlier run left is never mistaken for this one's."""
    note = out / "inputs.json"
    if note.exists() and json.loads(note.read_text()) != inputs:
        raise ConfigError(f"{out} holds a run on other inputs ({note.read_text().strip()}); give another --out or delete it.")
    note.write_text(json.dumps(inputs) + "\n")


def _report(out: Path, steps: Steps, scores: dict | None) -> None:
    report = {"probe": None, "budget_tokens": None, **(scores or {}), "seconds": steps.seconds}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = [
        "# Quickstart",
        "",
        "What the codec says is new in one of the videos (bright: the patches that the encoder sees):",
        "",
    ]
    lines += ["![overlay](overlay.png)", ""]
    if scores:
        table = scores["table"]
        lines += ["Top-1 of an attentive probe on the frozen encoder:", "", table]
    else:
        table = ""
        lines += ["No probe: it needs labels, at least two subfolders (classes) of two videos each.", ""]
    lines += ["| step | seconds |", "|---|---|", *(f"| {name} | {s} |" for name, s in steps.seconds.items())]
    (out / "report.md").write_text("\n".join(lines) + "\n")
    print(f"\n{table}\n{sum(steps.seconds.values()):.0f} s in all; see {out / 'report.md'} and {out / 'overlay.png'}")


if __name__ == "__main__":
    command.run(main)
