"""`python -m launch.extract VIDEO… --out DIR`: codec signals, saliency and selected patches, one .npz a video."""

import argparse
import os
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import UInt8

from launch.command import run
from launch.config_file import settings
from ove.config import VideoConfig, from_mapping
from ove.errors import BadClip
from ove.records import Clip, CodecSignals, Saliency, Selection
from ove.shards.quarantine import BadFile, write_quarantine
from ove.shards.sources import VideoFile, videos_in_folder
from ove.video.decode import read_video
from ove.video.saliency import saliency
from ove.video.select import select
from ove.view.overlay import overlay


def main(arguments: list[str] | None = None) -> int:
    """Extracts every video it is given; 0 if at least one could be used."""
    options = _options(arguments)
    config = from_mapping(VideoConfig, {"size_px": options.size} | settings(options.set, ("video",))["video"], "video.")
    files = _inputs(options.videos)
    if not files:
        raise BadClip("no input files; name videos or folders that hold some.")
    names = _output_names([file.path for file in files])
    options.out.mkdir(parents=True, exist_ok=True)
    bad: list[BadFile] = []
    for file, name in zip(files, names, strict=True):
        try:
            clip, signals = read_video(file.path, config)
            scores = saliency(signals, config)
        except BadClip as error:  # the border where a bad file is set aside
            bad.append(BadFile(str(file.path), str(error)))
            print(f"set aside  {error}", flush=True)
            continue
        selection = select(scores.scores, clip.is_i_frame, options.budget, config.iframe_policy)
        _write(options.out / f"{name}.npz", clip, scores, selection, signals if options.signals else None)
        if options.overlay:
            _write_picture(options.out / f"{name}.png", overlay(clip, scores, selection))
        print(f"extracted  {file.path} → {name}.npz ({clip.codec}, {clip.source}, {clip.n_decoded} frames)", flush=True)
    write_quarantine(options.out / "quarantine.jsonl", bad)
    print(
        f"{len(files) - len(bad)} of {len(files)} videos extracted to {options.out}; {len(bad)} set aside in quarantine.jsonl."
    )
    if len(bad) == len(files):
        raise BadClip(f"none of the {len(files)} input files is a usable video; {options.out}/quarantine.jsonl says why.")
    return 0


def _options(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m launch.extract", description=__doc__)
    parser.add_argument("videos", nargs="+", type=Path, metavar="VIDEO", help="video files or folders of videos")
    parser.add_argument("--out", type=Path, required=True, help="folder for the .npz files and quarantine.jsonl")
    parser.add_argument("--signals", action="store_true", help="also store motion vectors (pixels) and residual")
    parser.add_argument("--overlay", action="store_true", help="also draw a picture of what is selected")
    parser.add_argument("--budget", type=int, default=2048, help="patches selected per clip (default 2048)")
    parser.add_argument("--size", type=int, default=VideoConfig.size_px, help="side of the frames in pixels (default 224)")
    parser.add_argument("--set", action="append", default=[], metavar="KEY=VALUE", help="e.g. video.percentile_scope=clip")
    return parser.parse_args(arguments)


def _inputs(paths: list[Path]) -> list[VideoFile]:
    """The files named, and those in the folders named; what does not exist is kept, to be set aside with its reason."""
    found: list[VideoFile] = []
    for path in paths:
        found += videos_in_folder(path) if path.is_dir() else [VideoFile(path, path.as_posix(), None)]
    return found


def _output_names(paths: list[Path]) -> list[str]:
    """A file name for each path, without suffix: its stem, or with a number where several have the same."""
    taken: set[str] = set()
    names = []
    for path in paths:
        name, number = path.stem, 1
        while name in taken:
            number += 1
            name = f"{path.stem}-{number}"
        taken.add(name)
        names.append(name)
    return names


def _write(path: Path, clip: Clip, scores: Saliency, selection: Selection, signals: CodecSignals | None) -> None:
    """Writes the .npz whole under a temporary name, then renames it."""
    arrays = {
        "frame_index": clip.frame_index,
        "pts_s": clip.pts_s,
        "is_i_frame": clip.is_i_frame,
        "saliency": scores.scores,
        "selected_flat": selection.flat,
        "source": np.array(clip.source),
        "codec": np.array(clip.codec),
    }
    if signals is not None:
        arrays |= {"motion": signals.motion, "residual": signals.residual}
        arrays["residual_exact"] = np.array(signals.residual_exact)
    temporary = path.with_name(f".{path.name}.{os.getpid()}.tmp")
    with temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
    os.replace(temporary, path)


def _write_picture(path: Path, picture: UInt8[np.ndarray, "H W 3"]) -> None:
    temporary = path.with_name(f".{os.getpid()}.{path.name}")
    if not cv2.imwrite(str(temporary), cv2.cvtColor(picture, cv2.COLOR_RGB2BGR)):
        raise OSError(f"{path}: the picture cannot be written.")
    os.replace(temporary, path)


if __name__ == "__main__":
    run(main)
