"""Runs all steps on a CPU, each as a command that one could type: videos → signals → shards → labels → training → probe.

ove quickstart [VIDEO_DIR] [--out DIR]; without VIDEO_DIR on toy videos. Ends with the probe's table, and
leaves overlay.png, report.md and report.json in the output folder. Started again, it goes on where it stopped.
"""

import json
import os
import shlex
import shutil
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from ove.errors import ConfigError, OveError
from ove.paths import check_names, holds_keys, output_folder
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile, files_in_folder

from .cli import settings as cli_settings
from .cli.command import command_parser, run_command
from .cli.numbers import number

_ROOT = Path(__file__).resolve().parents[1]
SIZE_PX = 84
"""6×6 patches a frame: a seventh of the work of 224 px."""
CLIP_SCALE = ("--set", "video.percentile_scope=clip")
"""Scales signals over the clip, so that a quiet frame counts less than one with an event."""
TOY = {"train": 640, "probe": 160, "val": 256}
"""Few labels, 20 a class: with many, untrained features suffice on toy videos."""
TOY_SMOKE = {"train": 32, "probe": 16, "val": 16}
_FILES = ("report.md", "report.json", "overlay.png", "probe.json", "train.txt", "val.txt")
_FOLDERS = ("videos", "shards", "extract", "train")
MAX_VIDEOS = 1024
"""Most of the user's videos, to stay within ten minutes."""
CENTERS, LABELS = 64, 3
VAL_EVERY = 4
"""Every fourth video of a class is for validation."""
_MALLOC = {"MALLOC_ARENA_MAX": "1", "MALLOC_MMAP_THRESHOLD_": "8000000000", "MALLOC_TRIM_THRESHOLD_": "16000000000"}
"""glibc keeps freed memory instead of returning it and faulting it in again: about 13 % of a training step on a CPU."""


@dataclass
class Commands:
    """Runs commands and keeps their times."""

    seconds: dict[str, float] = field(default_factory=dict)

    def run(self, module: str, *arguments: object, name: str = "") -> None:
        """Runs `python -m launch.MODULE ARGUMENTS`, its output on the screen; OveError if it fails."""
        name = name or module
        words = ["-m", f"{__package__}.{module}", *map(str, arguments)]
        print(f"\n[{name}] python {shlex.join(words)}", flush=True)
        before = time.perf_counter()
        done = subprocess.run([sys.executable, *words], env=os.environ | _MALLOC, check=False)
        self.seconds[name] = round(time.perf_counter() - before, 1)
        if done.returncode:
            raise OveError(f"the step {name} ended with exit code {done.returncode}; its message stands above.")


def main(argv: Sequence[str] | None = None) -> None:
    """Parses the arguments and runs the commands."""
    parser = command_parser("quickstart", __doc__)
    parser.add_argument("videos", nargs="?", type=Path, metavar="VIDEO_DIR", help="a folder of videos; subfolders give labels")
    parser.add_argument(
        "--out", type=Path, default=Path("runs", "quickstart"), help="folder for all that is made (default: runs/quickstart)"
    )
    parser.add_argument("--smoke", action="store_true", help="a run of about a minute, to see that everything works")
    parser.add_argument("--seed", type=number(0), default=0, help="of toy videos, training and probe (default: 0)")
    arguments = parser.parse_args(argv)
    out = output_folder(arguments.out, "--out", [arguments.videos] if arguments.videos else []).resolve()
    check_names(out, (*_FILES, *_FOLDERS), "--out", ours=holds_keys(out / "inputs.json", "videos", "seed", "smoke"))
    out.mkdir(parents=True, exist_ok=True)
    videos = str(arguments.videos.resolve()) if arguments.videos else "toy"
    _claim(out, {"videos": videos, "seed": arguments.seed, "smoke": arguments.smoke})
    commands = Commands()
    if arguments.videos:
        splits = _own_videos(arguments.videos, out)
    else:
        splits = _toy_videos(commands, out, arguments.smoke, arguments.seed)
    for split, source in splits.items():
        words = ("--videos", source, "--out", out / "shards" / split, "--size", SIZE_PX, *CLIP_SCALE)
        commands.run("shards", *words, name=f"shards_{split}")
    _picture(commands, out, splits["train"])
    _pretrain(commands, out, arguments.smoke, arguments.seed)
    scores = _probe(commands, out, splits, arguments.smoke, arguments.seed) if "val" in splits else None
    _report(out, commands, scores)


def _toy_videos(commands: Commands, out: Path, smoke: bool, seed: int) -> dict[str, Path]:
    """Writes folders of toy videos for pretraining, for training the probe and for scoring it."""
    counts = TOY_SMOKE if smoke else TOY
    numbers = [word for split, n in counts.items() for word in (f"--{split}", n)]
    commands.run("toy", "--out", out / "videos", *numbers, "--seed", seed)
    return {split: out / "videos" / split for split in counts}


def _own_videos(folder: Path, out: Path) -> dict[str, Path]:
    """Writes lists of videos for training and, with two or more classes of two or more videos, for scoring."""
    found = files_in_folder(folder.resolve()) if folder.is_dir() else []
    if not found:
        raise ConfigError(f"{folder}: holds no files, or is no folder; give a folder of videos.")
    if len(found) > MAX_VIDEOS:
        print(f"{folder}: {len(found)} files; the quickstart takes {MAX_VIDEOS}, evenly over all of them.")
        found = [found[i * len(found) // MAX_VIDEOS] for i in range(MAX_VIDEOS)]
    by_label: dict[str | None, list[InputFile]] = defaultdict(list)
    for video in found:
        by_label[video.label].append(video)
    labelled = None not in by_label and len(by_label) > 1 and min(map(len, by_label.values())) > 1
    val = [v for group in by_label.values() for v in group[1::VAL_EVERY]] if labelled else []
    keys = {v.key for v in val}
    splits = {"train": [v for v in found if v.key not in keys]} | ({"val": val} if val else {})
    return {split: _write_list(out / f"{split}.txt", videos) for split, videos in splits.items()}


def _picture(commands: Commands, out: Path, videos: Path) -> None:
    """Draws the selected patches of the first good video: overlay.png."""
    key = ShardSet.open(out / "shards" / "train").record(0).key
    video = videos / key if videos.is_dir() else key
    commands.run("extract", video, "--out", out / "extract", "--overlay", *CLIP_SCALE)
    shutil.copyfile(max((out / "extract").glob("*.png"), key=lambda path: path.stat().st_mtime), out / "overlay.png")


def _pretrain(commands: Commands, out: Path, smoke: bool, seed: int) -> None:
    """Clusters labels, then trains on them."""
    shards = out / "shards" / "train"
    n_centers = max(1, min(CENTERS, len(ShardSet.open(shards)) // 2))
    commands.run("labels", "--shards", shards, "--centers", n_centers, "--labels", min(LABELS, n_centers))
    config = f"{_ROOT}/configs/toy.py{':smoke' if smoke else ''}"
    heads = cli_settings.load_config(config)["batches"]["heads"]
    heads = [head | {"labels_per_step": min(head["labels_per_step"], n_centers)} for head in heads]
    settings = {"batches.shards": shards, "batches.heads": heads, "batches.seed": seed, "train.seed": seed}
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    commands.run("train", "--config", config, "--workdir", out / "train", *words)


def _probe(commands: Commands, out: Path, splits: Mapping[str, Path], smoke: bool, seed: int) -> dict:
    """Probes the encoder, training on the split `probe` if there is one, else on the pretraining videos."""
    shards = out / "shards"
    labelled = shards / ("probe" if "probe" in splits else "train")
    settings = {"weights": out / "train", "train_shards": labelled, "val_shards": shards / "val", "seeds": (seed,)}
    words = [f"--config.{key}={value}" for key, value in settings.items()]
    config = f"{_ROOT}/configs/probe_toy.py{':smoke' if smoke else ''}"
    commands.run("probe", "--config", config, "--out", out / "probe.json", *words)
    return json.loads((out / "probe.json").read_text())


def _write_list(path: Path, videos: Sequence[InputFile]) -> Path:
    path.write_text("".join(f"{v.path.resolve()}\t{v.label or ''}\n" for v in videos))
    return path


def _claim(out: Path, inputs: dict) -> None:
    """Reserves an output folder for one set of inputs, so that results of another are never reused."""
    note = out / "inputs.json"
    if note.exists() and json.loads(note.read_text()) != inputs:
        raise ConfigError(f"{out} holds a run on other inputs ({note.read_text().strip()}); give another --out or delete it.")
    note.write_text(json.dumps(inputs) + "\n")


def _report(out: Path, commands: Commands, scores: dict | None) -> None:
    report = {"probe": None, "budget_tokens": None, **(scores or {}), "seconds": commands.seconds}
    (out / "report.json").write_text(json.dumps(report, indent=2) + "\n")
    lines = ["# Quickstart", "", "What the codec selects in one of the videos (bright: the patches that the encoder sees):", ""]
    lines += ["![overlay](overlay.png)", ""]
    table = scores["table"] if scores else ""
    if scores:
        lines += ["Top-1 of an attentive probe on the frozen encoder:", "", table]
    else:
        lines += ["No probe: it needs labels, at least two subfolders (classes) of two videos each.", ""]
    lines += ["| step | seconds |", "|---|---|", *(f"| {name} | {s} |" for name, s in commands.seconds.items())]
    (out / "report.md").write_text("\n".join(lines) + "\n")
    print(f"\n{table}\n{sum(commands.seconds.values()):.0f} s in all; see {out / 'report.md'} and {out / 'overlay.png'}")


if __name__ == "__main__":
    run_command(main)
