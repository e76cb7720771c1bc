"""`ove extract VIDEO… --out DIR`: codec signals, saliency and selected patches of videos."""

import argparse
import contextlib
import sys
from collections.abc import Sequence
from functools import partial
from pathlib import Path
from typing import get_args, get_type_hints

import cv2
import numpy as np

from ove.config import VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import BadClip, ConfigError
from ove.files import on_screen, only_writer, printable, write_bytes, write_json_lines
from ove.paths import harmless, output_folder
from ove.records import Saliency
from ove.sources.folders import InputFile, found_in_folder
from ove.sources.quarantine import QUARANTINE, BadFile, write_quarantine
from ove.tokens import mosaics
from ove.tokens.extracts import (
    LIST,
    Extract,
    check_free,
    merged,
    plan_extracts,
    read_list,
    remove_unfinished,
    write_list,
    write_npz,
)
from ove.video.decode import read_scored, read_video
from ove.video.saliency import saliency
from ove.video.select import budget_of, choose_patches, i_frame_flags
from ove.view.animation import write_animation
from ove.view.overlay import overlay
from ove.workers import Died, outcomes

from .cli.command import command_parser, run_command
from .cli.numbers import number, number_of, share_or_count
from .cli.settings import add_settings_help, read_sections, word_list

_EXPORTS = ("npz", "mosaics")
_PICTURES = ("sheet", "video")
_HINTS = get_type_hints(VideoConfig)
_Task = tuple[InputFile, Extract]
_Made = tuple[str, dict[str, object] | None]
"""What was written for a file, in words; its entry of a training list if mosaics were."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Extracts all videos; returns 0 if at least one could be used."""
    options = _options(list(sys.argv[1:] if arguments is None else arguments))
    config, tokens = _checked(options)
    files = _inputs(options.videos)
    if not files:
        raise BadClip("no input files; name videos or folders that hold some.")
    options.out = output_folder(options.out, "--out", [path for path in options.videos if path.is_dir()])
    with only_writer(options.out / LIST):
        return _write(files, options, config, tokens)


def _write(files: list[InputFile], options: argparse.Namespace, config: VideoConfig, tokens: int) -> int:
    """Writes the extracts, their list and the quarantine; returns 0 if there is one."""
    earlier = read_list(options.out)
    plan = plan_extracts(files, earlier, _endings(options))
    check_free(options.out, plan, earlier, files, options.replace)
    remove_unfinished(options.out, plan)
    write_list(options.out, merged(earlier, plan))
    bad: dict[int, BadFile] = {}
    entries: dict[int, dict[str, object]] = {}
    try:
        _extract_all(list(zip(files, plan, strict=True)), options, config, tokens, bad, entries)
    except OSError:  # a full disk: what was found out about the files is kept, if there is room for it
        with contextlib.suppress(OSError):
            write_quarantine(options.out / QUARANTINE, [bad[index] for index in sorted(bad)])
        raise
    write_list(options.out, merged(earlier, plan, failed=list(bad)))
    write_quarantine(options.out / QUARANTINE, [bad[index] for index in sorted(bad)])
    if "mosaics" in options.export:
        write_json_lines(options.out / "mosaics.jsonl", [entries[index] for index in sorted(entries)])
    print(
        f"{len(files) - len(bad)} of {len(files)} videos extracted to {options.out}; {len(bad)} set aside in quarantine.jsonl."
    )
    if len(bad) == len(files):
        raise BadClip(f"none of the {len(files)} input files is a usable video; {options.out}/quarantine.jsonl says why.")
    return 0


def _extract_all(
    tasks: list[_Task],
    options: argparse.Namespace,
    config: VideoConfig,
    tokens: int,
    bad: dict[int, BadFile],
    entries: dict[int, dict[str, object]],
) -> None:
    """Extracts all files; fills `bad` and the `entries` of a training list, by index, and says what was made."""
    workers, limit_s = min(options.workers, len(tasks)), config.work_limit_s
    with contextlib.closing(outcomes(partial(_extract, options, config, tokens), tasks, workers, limit_s)) as results:
        for number, (index, result) in enumerate(results, start=1):
            path = printable(str(tasks[index][0].path))
            if isinstance(result, Died):
                result = BadFile(path, f"{path}: {result}; leave it out, or convert it to H.264 again.")
            if isinstance(result, BadFile):
                bad[index] = result
                print(f"[{number}/{len(tasks)}] set aside  {result.reason}", flush=True)
                continue
            words, entry = result
            print(f"[{number}/{len(tasks)}] extracted  {words}", flush=True)
            if entry is not None:
                entries[index] = entry


def _extract(options: argparse.Namespace, config: VideoConfig, tokens: int, task: _Task) -> _Made | BadFile:
    """Writes the outputs of one file."""
    file, name = task[0], task[1].name
    try:
        signals = None
        if options.signals or options.overlay == "sheet":
            clip, signals = read_video(file.path, config)
            scores = saliency(signals, config)
        else:
            clip, scores = read_scored(file.path, config)
        fill = "mosaics" in options.export  # which are always full
        selection = choose_patches(scores, clip.is_i_frame, tokens, config.selection, fill)
    except BadClip as error:  # the border where a bad file is set aside
        reason = str(error)
        named = reason if reason.startswith(str(file.path)) else f"{file.path}: {reason}"
        return BadFile(str(file.path), named, error.position)
    except ConfigError:
        raise  # would be the same for every file
    except Exception as error:  # whatever a decoder raises
        return BadFile(str(file.path), f"{file.path}: unforeseen {type(error).__name__}: {error}")
    made = []
    entry = None
    if "npz" in options.export:
        write_npz(options.out / f"{name}.npz", task[1].video, clip, scores, selection, signals if options.signals else None)
        made.append(f"{name}.npz")
    if "mosaics" in options.export:
        entry = mosaics.write(options.out / name, name, clip, selection, config.patch_px, Path(task[1].video))
        made.append(f"{name}/")
    (options.out / name).parent.mkdir(parents=True, exist_ok=True)
    if options.overlay == "sheet":
        assert signals is not None
        picture = cv2.cvtColor(overlay(clip, signals, scores, selection, config, harmless(file.path.name)), cv2.COLOR_RGB2BGR)
        write_bytes(options.out / f"{name}.png", cv2.imencode(".png", picture)[1].tobytes())
        made.append(f"{name}.png")
    if options.overlay == "video":
        write_animation(options.out / f"{name}.mp4", clip, selection, harmless(file.path.name))
        made.append(f"{name}.mp4")
    told = f"{clip.codec}, {clip.source}, {clip.n_decoded} frames{', cut short' if clip.cut else ''}"
    return f"{on_screen(printable(str(file.path)))} → {', '.join(made)} ({told})", entry


def _endings(options: argparse.Namespace) -> list[str]:
    """Returns the endings of all that is written for a video."""
    pictures = {"sheet": ".png", "video": ".mp4"}
    made = [{"npz": ".npz", "mosaics": "/"}[export] for export in options.export]
    return made + ([pictures[options.overlay]] if options.overlay else [])


def _options(arguments: list[str]) -> argparse.Namespace:
    about = "Codec signals, saliency and selected patches of videos. What cannot be used is set aside with its reason."
    parser = command_parser("extract", about, epilog="docs/codec.md says what the files hold and what the settings mean.")
    add = parser.add_argument
    add("videos", nargs="+", type=Path, metavar="VIDEO", help="video files or folders of videos")
    add("--out", type=Path, required=True, help="folder for what is made, and for quarantine.jsonl")
    add("--replace", action="store_true", help="also overwrite files in it that this command has not written")
    add("--export", type=word_list, default=("npz",), metavar="KINDS", help="npz, mosaics, or both with a comma (default npz)")
    add("--signals", action="store_true", help="motion vectors (pixels) and residual go into the .npz, too")
    add("--overlay", choices=_PICTURES, help="draw what is selected: a sheet (also if nothing follows) or a video")
    add("--budget", type=share_or_count, default=2048, help="patches selected per clip, or a share like 0.125 (default 2048)")
    add(
        "--size",
        dest="video.size_px",
        type=number_of(VideoConfig, "size_px"),
        metavar="PX",
        help="side of frames (default 224)",
    )
    add("--preset", dest="video.preset", choices=[*VideoConfig.PRESETS], help="of the video settings (default paper)")
    add("--source", dest="video.source", choices=get_args(_HINTS["source"]), help="of signals (default auto: bitstream first)")
    add("--sampling", dest="video.sampling", metavar="NAME", help="of 64 frames: uniform (default), consecutive, energy, pool")
    add("--workers", type=number(0), default=2, help="processes (default 2); 0: none, and no guard against crashes")
    add("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.percentile_scope=clip")
    add_settings_help(parser, {"video": VideoConfig})
    # A bare --overlay is a sheet, and does not swallow the name of a video.
    for place, word in enumerate(arguments):
        if word == "--overlay" and arguments[place + 1 : place + 2] not in [[kind] for kind in _PICTURES]:
            arguments[place] = "--overlay=sheet"
    return parser.parse_args(arguments)


def _checked(options: argparse.Namespace) -> tuple[VideoConfig, int]:
    """Returns the settings and the budget in tokens; ConfigError, before a clip is decoded, for what no clip can meet."""
    config = from_mapping(VideoConfig, read_sections(options, "video")["video"], "video.")
    if unknown := [word for word in options.export if word not in _EXPORTS]:
        raise ConfigError(f"--export {','.join(options.export)}: {unknown[0]!r} is none of {', '.join(_EXPORTS)}.")
    grid = (config.n_frames, config.grid, config.grid)
    tokens = budget_of(options.budget, grid)
    flags = i_frame_flags(config.n_frames, config.selection.gop_frames)
    choose_patches(Saliency(np.zeros(grid, np.float32)), flags, tokens, config.selection)
    if "mosaics" in options.export:
        mosaics.check_budget(tokens, config.grid**2)
    return config, tokens


def _inputs(paths: list[Path]) -> list[InputFile]:
    """Returns the named files and those in named folders; missing ones are set aside later, with the reason."""
    found: list[InputFile] = []
    for path in paths:
        if not path.is_dir():
            found.append(InputFile(path, path.name, None))
            continue
        below = found_in_folder(path)
        found += below.files + [InputFile(Path(bad.file), Path(bad.file).name, None) for bad in below.bad]
    return found


if __name__ == "__main__":
    run_command(main)
