"""Measures how often each sampling of 64 frames sees an event shorter than the distance between two of them.

python bench/sampling.py [--videos 24] [--seed 1] [--quick]; the last line is one JSON object. Videos of 640 to 1,280 frames in
which, once, for 3 to 8 frames, the largest of three drifting discs jumps, another appears, or its texture changes; under a
still or a panning camera. Each is encoded twice with x264: `plain` (P-frames, one reference) and `default` (B-frames,
several references, weights). `frame`: a sampled frame lies within the event. `patches`: of the patches that the event's
object covers, at least half are selected (12.5 % of all), in a sampled frame within the event or, for `accumulate`, in the one
that stands for the interval. `by_chance`: what `frame` would be on average over all times of the event, for frames sampled
uniformly. --quick: 2 videos, to see that it works.
"""

import argparse
import json
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

from ove.config import VideoConfig
from ove.video.decode import read_video
from ove.video.saliency import saliency
from ove.video.sampling import sample_indices
from ove.video.select import choose_patches

SIDE_PX, GRID = 224, 16
BUDGET = 0.125
MARGIN = 40
"""Frames at both ends of a video in which no event begins or ends."""
SAMPLINGS = ("uniform", "consecutive", "energy", "pool")
SCOPES = ("frame", "clip")
EVENTS = ("jump", "appear", "retexture")
CAMERAS = ("still", "panning")
ENCODINGS = {
    "plain": {"preset": "superfast", "crf": "21", "x264-params": "bframes=0:ref=1:weightp=0:scenecut=0:keyint=250"},
    "default": {"preset": "veryfast", "crf": "21"},
}
_RADII_PX = (18, 18, 34)


@dataclass(frozen=True)
class Truth:
    """The event in a video."""

    event: str
    camera: str
    n_frames: int
    span: tuple[int, int]
    """First frame of the event and the first one after it."""
    covered: np.ndarray
    """Patches that the event's object covers by at least half, of each frame of the event: bool (frames, 16, 16)."""


def main() -> None:
    """Makes the videos, samples each in every way, and prints a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--videos", type=int, default=24)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    n_videos = 2 if options.quick else options.videos
    rows, by_chance = [], []
    with tempfile.TemporaryDirectory() as folder:
        for number in range(n_videos):
            paths, truth = write_video(Path(folder), options.seed, number)
            by_chance.append(met_by_chance(truth))
            for encoding, path in paths.items():
                rows += [row | {"encoding": encoding, "camera": truth.camera} for row in seen(path, truth)]
                path.unlink()
            print(f"{number + 1}/{n_videos} {truth.event}, {truth.camera}, {truth.n_frames} frames", flush=True)
    report(rows, float(np.mean(by_chance)), options.quick)


def met_by_chance(truth: Truth) -> float:
    """Share of the times at which the event might begin for which a uniformly sampled frame lies within it."""
    sampled = np.isin(np.arange(truth.n_frames), sample_indices(truth.n_frames, VideoConfig().n_frames, "uniform"))
    windows = np.lib.stride_tricks.sliding_window_view(sampled, truth.span[1] - truth.span[0])
    return float(windows[MARGIN:-MARGIN].any(axis=1).mean())


def report(rows: list[dict], by_chance: float, quick: bool) -> None:
    """Shares of the videos in which the event is seen, and seconds of processor time for reading, by sampling."""
    groups = {"all": lambda row: True}
    groups |= {f"{e} {c}": lambda row, e=e, c=c: (row["encoding"], row["camera"]) == (e, c) for e in ENCODINGS for c in CAMERAS}
    table: dict[str, dict] = {}
    for sampling in SAMPLINGS:
        of_sampling = [row for row in rows if row["sampling"] == sampling]
        table[sampling] = {"seconds": round(float(np.mean([row["seconds"] for row in of_sampling])), 3)}
        for name, belongs in groups.items():
            of_group = [row for row in of_sampling if belongs(row)]
            keys = ("frame", *(f"patches_{scope}" for scope in SCOPES))
            table[sampling][name] = {key: round(float(np.mean([row[key] for row in of_group])), 3) for key in keys if of_group}
        print(f"{sampling:12s} {table[sampling]}")
    files = len(rows) // len(SAMPLINGS)
    print(json.dumps({"bench": "sampling", "quick": quick, "files": files, "by_chance": round(by_chance, 3), "seen": table}))


def seen(path: Path, truth: Truth) -> Iterator[dict]:
    """For each sampling whether the event is seen in the file, and the seconds of processor time that reading took."""
    start, end = truth.span
    for sampling in SAMPLINGS:
        began = time.process_time()
        clip, signals = read_video(path, VideoConfig(sampling=sampling))
        row = {"sampling": sampling, "seconds": time.process_time() - began}
        row["frame"] = bool(((clip.frame_index >= start) & (clip.frame_index < end)).any())
        for scope in SCOPES:
            config = VideoConfig(sampling=sampling, percentile_scope=scope)
            selection = choose_patches(saliency(signals, config), clip.is_i_frame, BUDGET, config.selection)
            chosen = np.zeros(np.prod(selection.grid_tyx), bool)
            chosen[selection.flat] = True
            chosen = chosen.reshape(selection.grid_tyx)
            before = -1
            hit = False
            for t, index in enumerate(clip.frame_index):
                first = before + 1 if sampling == "pool" else index
                frames = [f - start for f in range(first, index + 1) if start <= f < end]
                if frames:
                    covered = truth.covered[frames].any(axis=0)
                    hit |= bool(chosen[t][covered].mean() >= 0.5)
                before = index
            row[f"patches_{scope}"] = hit
        yield row


def write_video(folder: Path, seed: int, number: int) -> tuple[dict[str, Path], Truth]:
    """Renders a video and encodes it in every way while it is rendered."""
    rng = np.random.default_rng((seed, number))
    n_frames, duration = int(rng.integers(640, 1281)), int(rng.integers(3, 9))
    start = int(rng.integers(MARGIN, n_frames - MARGIN - duration))
    event, camera = EVENTS[number % 3], CAMERAS[number // 3 % 2]
    paths = {name: folder / f"{number}_{name}.mp4" for name in ENCODINGS}
    files = {name: av.open(str(path), "w") for name, path in paths.items()}
    streams = {name: file.add_stream("libx264", rate=Fraction(30), options=ENCODINGS[name]) for name, file in files.items()}
    for stream in streams.values():
        stream.width = stream.height = SIDE_PX
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
    covered = []
    for picture, mask in _rendered(rng, n_frames, (start, start + duration), event, camera):
        if mask is not None:
            covered.append(cv2.resize(mask, (GRID, GRID), interpolation=cv2.INTER_AREA) >= 0.5)
        frame = av.VideoFrame.from_ndarray(picture, format="rgb24").reformat(format="yuv420p")
        for name, file in files.items():
            file.mux(streams[name].encode(frame))
    for name, file in files.items():
        file.mux(streams[name].encode(None))
        file.close()
    return paths, Truth(event, camera, n_frames, (start, start + duration), np.array(covered))


def _rendered(
    rng: np.random.Generator, n_frames: int, span: tuple[int, int], event: str, camera: str
) -> Iterator[tuple[np.ndarray, np.ndarray | None]]:
    """The frames one by one, and, during the event, the pixels that its object covers (float, 0 … 1)."""
    background = np.stack([60 + 120 * _noise(rng, 512, 32) + 40 * (_noise(rng, 512, 4) - 0.5) for _ in range(3)], -1)
    textures = [np.repeat(40 + 170 * _noise(rng, 96, 5), 3).reshape(96, 96, 3) for _ in range(4)]
    sensor = [rng.normal(0, 1, (SIDE_PX, SIDE_PX, 1)).astype(np.float32) for _ in range(7)]
    phase, speed = rng.uniform(0, 2 * np.pi, 8), rng.uniform(0.01, 0.04, 8)
    base = rng.uniform(60, SIDE_PX - 60, (3, 2))
    direction = rng.choice([-1, 1])
    for t in range(n_frames):
        happens = span[0] <= t < span[1]
        along = np.sin(np.pi * (t - span[0] + 1) / (span[1] - span[0] + 1)) if happens else 0.0
        pan = 40 * np.sin(speed[:2] * t / 3 + phase[:2]) if camera == "panning" else np.zeros(2)
        shift = np.array([[1, 0, -144 - pan[0]], [0, 1, -144 - pan[1]]])
        picture = cv2.warpAffine(background, shift, (SIDE_PX, SIDE_PX), flags=cv2.INTER_LINEAR)
        mask = None
        for i, radius in enumerate(_RADII_PX):
            centre = base[i] + 25 * np.array([np.sin(speed[2 + i] * t + phase[2 + i]), np.cos(speed[3 + i] * t + phase[3 + i])])
            acts = happens and i == 2
            if acts and event == "jump":
                centre[0] += 45 * along * direction
            mask = _draw(picture, textures[3 if acts and event == "retexture" else i], centre, radius)
        if happens and event == "appear":
            mask = _draw(picture, textures[3], SIDE_PX - centre, _RADII_PX[2] - 4)
        yield np.clip(picture + sensor[t % 7], 0, 255).astype(np.uint8), mask if happens else None


def _noise(rng: np.random.Generator, side: int, grain: int) -> np.ndarray:
    return cv2.resize(rng.random((side // grain, side // grain), np.float32), (side, side), interpolation=cv2.INTER_CUBIC)


def _draw(picture: np.ndarray, texture: np.ndarray, centre: np.ndarray, radius: float) -> np.ndarray:
    """Draws a disc into the picture in place; returns how far each pixel is covered."""
    y, x = np.ogrid[:SIDE_PX, :SIDE_PX]
    alpha = np.clip(radius - np.hypot(x - centre[0], y - centre[1]) + 0.5, 0, 1).astype(np.float32)
    place = np.array([[1, 0, centre[0] - 48], [0, 1, centre[1] - 48]])
    size = (SIDE_PX, SIDE_PX)
    drawn = cv2.warpAffine(texture.astype(np.float32), place, size, flags=cv2.INTER_LINEAR, borderMode=cv2.BORDER_REFLECT)
    picture += (drawn - picture) * alpha[..., None]
    return alpha


if __name__ == "__main__":
    main()
