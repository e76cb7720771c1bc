"""`python -m launch.shards --videos DIR|LIST --out DIR`: video files → a folder of shards."""

import argparse
import functools
import sys
import time
from pathlib import Path

import numpy as np

from launch.command import run
from launch.config_file import settings
from ove.config import ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.errors import BadShard, ConfigError
from ove.shards.schema import VideoRecord, encode_frames
from ove.shards.sources import InputFile, find_files
from ove.shards.verify import verify
from ove.shards.write import QUARANTINE, Progress, Summary, write_shards
from ove.video.decode import read_video
from ove.video.saliency import saliency

GRACE_S = 60.0
"""What a process may take for a video beyond the time limit of reading it, before it is ended."""
_SHOWN = 10
"""Bad files named on the screen; all of them are in the quarantine list."""


def make_record(video: InputFile, video_config: VideoConfig, shards_config: ShardsConfig) -> VideoRecord:
    """The record of one video file; one that cannot be used raises BadClip."""
    clip, signals = read_video(video.path, video_config)
    return VideoRecord(
        key=video.key,
        frames=encode_frames(clip.frames, shards_config.jpeg_quality),
        size_px=video_config.size_px,
        patch_px=video_config.patch_px,
        frame_index=clip.frame_index,
        pts_s=np.asarray(clip.pts_s, np.float64),
        is_i_frame=clip.is_i_frame,
        saliency=saliency(signals, video_config).scores.astype(np.float16),
        source=clip.source,
        codec=clip.codec,
        n_decoded=clip.n_decoded,
        fps=float(clip.fps),
        label=video.label,
        residual_exact=signals.residual_exact,
        cut=clip.cut,
    )


def main(arguments: list[str] | None = None) -> int:
    """Writes (or with --verify checks) a shard folder; 0 when it holds at least one record and no problem was found."""
    options = _parser().parse_args(arguments)
    if options.verify:
        return _verify(options.out)
    video_config, shards_config = _configs(options)
    made_with = {"video": to_mapping(video_config), "shards": to_mapping(shards_config)}
    made_with["shards"].pop("workers")  # changes nothing in the records
    summary = write_shards(
        find_files(options.videos),
        options.out,
        functools.partial(make_record, video_config=video_config, shards_config=shards_config),
        shards_config,
        made_with,
        _Line(),
        video_config.time_limit_s + GRACE_S,
    )
    _report(summary, options.out)
    return 0


class _Line:
    """Progress on one line of a terminal, or on a new line now and then where the output goes to a file."""

    def __init__(self) -> None:
        self._started = self._printed = time.monotonic()
        self._live = sys.stdout.isatty()

    def __call__(self, progress: Progress) -> None:
        now = time.monotonic()
        last = progress.done == progress.total
        if not last and now - self._printed < (0.1 if self._live else 10):
            return
        self._printed = now
        text = f"{progress.done}/{progress.total} files"
        if progress.bad:
            text += f", {progress.bad} set aside"
        fresh = progress.done - progress.earlier
        if fresh and not last:
            left_s = (now - self._started) / fresh * (progress.total - progress.done)
            text += f", {fresh / (now - self._started):.1f}/s, {_duration(left_s)} left"
        print(f"\r\x1b[K{text}" if self._live else text, end="\n" if last or not self._live else "", flush=True)


def _duration(seconds: float) -> str:
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min" if whole < 6000 else f"{whole / 3600:.1f} h"


def _report(summary: Summary, out: Path) -> None:
    print(f"{summary.n_good} good, {len(summary.bad)} bad; {summary.n_shards} shards in {out}", end="")
    print(f" ({summary.n_earlier} files were done already)" if summary.n_earlier else "")
    for entry in summary.bad[:_SHOWN]:
        print(f"  set aside: {entry.reason}")
    if len(summary.bad) > _SHOWN:
        print(f"  … and {len(summary.bad) - _SHOWN} more")
    if summary.bad:
        print(f"  reasons of all: {out / QUARANTINE}")


def _verify(out: Path) -> int:
    problems = verify(out)
    for problem in problems:
        print(f"{problem.file}: {problem.reason}")
    if problems:
        raise BadShard(f"{out}: {len(problems)} problems; delete the files named above and write the shards again.")
    print(f"{out}: every checksum agrees and every record can be read.")
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m launch.shards", description=__doc__)
    parser.add_argument("--videos", type=Path, help="folder (its subfolders are class names) or list of paths (path<TAB>label)")
    parser.add_argument("--out", type=Path, required=True, help="folder for shards, manifest.json and quarantine.jsonl")
    parser.add_argument("--verify", action="store_true", help="read the shards in --out and compare them with their checksums")
    parser.add_argument("--size", type=int, metavar="PX", help="side of the square frames (default: 224)")
    parser.add_argument("--frames", type=int, metavar="N", help="frames sampled from a video (default: 64)")
    parser.add_argument("--gop", type=int, metavar="N", help="one I-frame every N sampled frames (default: 32)")
    parser.add_argument("--records-per-shard", type=int, metavar="N", help="videos a shard (default: 64)")
    parser.add_argument("--workers", type=int, metavar="N", help="processes (default: 2)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.sampling=consecutive")
    return parser


def _configs(options: argparse.Namespace) -> tuple[VideoConfig, ShardsConfig]:
    if options.videos is None:
        raise ConfigError("--videos is missing: give a folder of videos or a list of paths (or --verify).")
    sections = settings(options.set, ("video", "shards"))
    named = {
        ("video", "size_px"): options.size,
        ("video", "n_frames"): options.frames,
        ("video", "gop_frames"): options.gop,
        ("shards", "records_per_shard"): options.records_per_shard,
        ("shards", "workers"): options.workers,
    }
    for (section, key), value in named.items():
        if value is not None:
            sections[section][key] = value
    video_config = from_mapping(VideoConfig, sections["video"], "video.")
    return video_config, from_mapping(ShardsConfig, sections["shards"], "shards.")


if __name__ == "__main__":
    run(main)
