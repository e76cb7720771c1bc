"""Reads thousands of damaged video files: each must give a sound clip or be refused by name, without crash or hang.

python bench/mutations.py [--files 2000] [--seed 0] [--keep] [--quick] [--workers 2] [--save DIR]; prints a table of outcomes
by kind of damage; the last line is one JSON object. Exit code 1 if any file crashed, hung, raised another error than
BadClip, was refused without its name, or gave a clip that is not sound. --quick is 60 files.
"""

import argparse
import collections
import functools
import json
import sys
import tempfile
import time
from contextlib import closing
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ove.config import SelectionConfig, VideoConfig  # noqa: E402
from ove.errors import BadClip  # noqa: E402
from ove.video.decode import read_video  # noqa: E402
from ove.video.saliency import saliency  # noqa: E402
from ove.video.select import select  # noqa: E402
from ove.workers import Died, outcomes  # noqa: E402

_CONFIG = {"n_frames": 16, "size_px": 56, "selection": SelectionConfig(gop_frames=8), "time_limit_s": 10.0}
_BUDGET = 64
_HANGS_S = 30.0
"""A worker that is busy with one file for longer than this is ended, and the file counts as a hang."""
_VIDEOS = (
    ("h264.mp4", "libx264", "yuv420p", {"movflags": "faststart"}),
    ("h264_index_last.mp4", "libx264", "yuv420p", {}),
    ("h264_fragments.mp4", "libx264", "yuv420p", {"movflags": "frag_keyframe+empty_moov"}),
    ("h264.mkv", "libx264", "yuv420p", {}),
    ("h264.ts", "libx264", "yuv420p", {}),
    ("h264.mov", "libx264", "yuv422p", {}),
    ("h264.flv", "libx264", "yuv420p", {}),
    ("raw.h264", "libx264", "yuv420p", {}),
    ("hevc.mp4", "libx265", "yuv420p", {}),
    ("mpeg4.avi", "mpeg4", "yuv420p", {}),
    ("mpeg2.mpg", "mpeg2video", "yuv420p", {}),
    ("mpeg1.mpg", "mpeg1video", "yuv420p", {}),
    ("vp8.webm", "libvpx", "yuv420p", {}),
    ("vp9.webm", "libvpx-vp9", "yuv420p", {}),
    ("mjpeg.avi", "mjpeg", "yuvj420p", {}),
    ("ffv1.mkv", "ffv1", "yuv420p", {}),
)
_REASONS = (  # the words by which a sentence is recognised, in this order
    "no such file", "is empty", "is not a regular file", "not a video", "is a still image", "no video stream", "video codec is",
    "no whole frame", "truncated or damaged", "changes from", "marked as corrupt", "damaged",
    "not decoded within", "larger than",
)  # fmt: skip
_FAULTS = ("crash", "hang", "wrong error", "no name", "not sound")


def main() -> int:
    """Writes the files, reads each in a worker process, prints the table; returns 1 after any other outcome."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--files", type=int, default=2000)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--keep", action="store_true", help="video.truncated = keep")
    parser.add_argument("--quick", action="store_true", help="60 files")
    parser.add_argument("--save", type=Path, help="keep copies of the files at fault there")
    options = parser.parse_args()
    n_files = 60 if options.quick else options.files
    config = VideoConfig(**_CONFIG, truncated="keep" if options.keep else "refuse")
    started = time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        files = write_mutations(Path(folder), n_files, options.seed)
        counts: dict[str, collections.Counter] = collections.defaultdict(collections.Counter)
        faults = []
        with closing(
            outcomes(functools.partial(_outcome, config), [f for f, _ in files], options.workers, _HANGS_S)
        ) as results:
            for index, result in results:
                path, kind = files[index]
                if isinstance(result, Died):
                    result = ("hang" if result.timed_out else "crash", f"{path}: {result}")
                counts[result[0]][kind] += 1
                if result[0].startswith(_FAULTS):
                    faults.append(result[1])
                    print(f"{kind}: {result[0]}: {result[1]}", file=sys.stderr, flush=True)
                    if options.save:
                        options.save.mkdir(parents=True, exist_ok=True)
                        (options.save / path.name).write_bytes(path.read_bytes())
    _print_table(counts, sorted({kind for _, kind in files}))
    summary = {
        "bench": "mutations",
        "files": n_files,
        "seed": options.seed,
        "truncated": config.truncated,
        "outcomes": {name: sum(row.values()) for name, row in counts.items()},
        "faults": len(faults),
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary))
    return 1 if faults else 0


def _outcome(config: VideoConfig, path: Path) -> tuple[str, str]:
    """(kind of outcome, what was said) of reading one file."""
    try:
        clip, signals = read_video(path, config)
        scores = saliency(signals, config).scores
        chosen = select(scores, clip.is_i_frame, _BUDGET, config.selection.iframe_policy).flat
    except BadClip as error:
        if path.name not in str(error):
            return "no name", f"{path}: {error}"
        reason = next((words for words in _REASONS if words in str(error)), None)
        return (f"refused: {reason}" if reason else "refused: other", str(error))
    except Exception as error:  # this is what is being looked for: counted, told, and the exit code is 1
        return "wrong error", f"{path}: {type(error).__name__}: {error}"
    sound = {
        "shapes": clip.frames.shape == (16, 56, 56, 3) and scores.shape == (16, 4, 4) and chosen.shape == (_BUDGET,),
        "numbers": bool(np.isfinite(scores).all() and np.isfinite(signals.motion).all() and np.isfinite(clip.pts_s).all()),
        # All originals are textured and move: a blank picture or signals of nothing but zeros have been made up.
        "pictures": bool((clip.frames.reshape(16, -1).std(axis=1) > 1).all()),
        "signals": bool(signals.residual.any() and scores.any()),
    }
    if not all(sound.values()):
        return "not sound", f"{path}: {', '.join(name for name, fine in sound.items() if not fine)}"
    return ("first part kept" if clip.cut else f"read ({clip.source})"), ""


def write_mutations(folder: Path, n_files: int, seed: int) -> list[tuple[Path, str]]:
    """Writes `n_files` damaged files made from a set of sound ones; (path, kind of damage) each, a function of the seed."""
    originals = [path.read_bytes() for path in _write_originals(folder / "originals")]
    names = [path.name for path in sorted((folder / "originals").iterdir())]
    files = []
    for number in range(n_files):
        rng = np.random.default_rng((seed, number))
        which, other = (int(i) for i in rng.integers(len(originals), size=2))
        kind = list(_DAMAGE)[number % len(_DAMAGE)]
        data, suffix = _DAMAGE[kind](rng, originals[which], originals[other]), Path(names[which]).suffix
        if kind == "other extension":
            suffix = Path(names[other]).suffix
        path = folder / f"{number:05d}_{Path(names[which]).stem}{suffix}"
        path.write_bytes(data)
        files.append((path, kind))
    return files


def _truncate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data[: int(rng.integers(len(data)))]


def _flip_header(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return _flip(rng, data, 0, min(1024, len(data)))


def _flip_body(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return _flip(rng, data, min(1024, len(data) // 2), len(data))


def _flip(rng: np.random.Generator, data: bytes, start: int, end: int) -> bytes:
    changed = bytearray(data)
    for at in rng.integers(start, end, int(rng.integers(1, 40))):
        changed[at] ^= 1 << int(rng.integers(8))
    return bytes(changed)


def _delete(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    start, end = sorted(int(at) for at in rng.integers(len(data), size=2))
    return data[:start] + data[min(end, start + int(rng.integers(1, 4000))) :]


def _insert(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    at = int(rng.integers(len(data)))
    return data[:at] + rng.bytes(int(rng.integers(1, 2000))) + data[at:]


def _zero(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    at, length = int(rng.integers(len(data))), int(rng.integers(1, 4000))
    return data[:at] + bytes(min(length, len(data) - at)) + data[at + length :]


def _swap_header(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    length = int(rng.integers(4, 2048))
    return other[:length] + data[length:]


def _concatenate(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data + other


def _reorder(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    a, b, c = sorted(int(at) for at in rng.integers(len(data), size=3))
    return data[:a] + data[b:c] + data[a:b] + data[c:]


def _leave(rng: np.random.Generator, data: bytes, other: bytes) -> bytes:
    return data


_DAMAGE = {
    "cut off": _truncate,
    "bits in header": _flip_header,
    "bits in body": _flip_body,
    "deleted": _delete,
    "inserted": _insert,
    "zeroed": _zero,
    "other header": _swap_header,
    "two in one": _concatenate,
    "reordered": _reorder,
    "other extension": _leave,
}


def _write_originals(folder: Path) -> list[Path]:
    """Sound files of many kinds, videos of 24 frames and some that are no videos; their paths, sorted."""
    folder.mkdir()
    frames = _frames(24, 96)
    for name, codec, pix_fmt, container_options in _VIDEOS:
        with av.open(str(folder / name), "w", options=container_options) as container:
            stream = container.add_stream(codec, rate=Fraction(25))
            stream.width, stream.height, stream.pix_fmt = 96, 96, pix_fmt
            stream.codec_context.thread_count = 1
            stream.options = {"x265-params": "log-level=none:pools=1"} if codec == "libx265" else {"g": "12"}
            for frame in frames:
                container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
            container.mux(stream.encode(None))
    for suffix in ("png", "jpg"):
        cv2.imwrite(str(folder / f"still.{suffix}"), frames[0])
    (folder / "words.txt").write_text("A text file that says nothing about anything.\n" * 200)
    with av.open(str(folder / "sound.m4a"), "w") as container:
        stream = container.add_stream("aac", rate=8000, layout="mono")
        for _ in range(8):
            sound = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.float32), format="fltp", layout="mono")
            sound.sample_rate = 8000
            container.mux(stream.encode(sound))
        container.mux(stream.encode(None))
    return sorted(folder.iterdir())


def _frames(n_frames: int, side: int) -> np.ndarray:
    """A smooth texture that drifts, and a square that crosses it."""
    rng = np.random.default_rng(11)
    texture = cv2.GaussianBlur(rng.integers(0, 256, (2 * side, 2 * side, 3)).astype(np.uint8), (0, 0), 2)
    texture = cv2.normalize(texture, None, 20, 235, cv2.NORM_MINMAX)
    frames = np.stack([texture[t : t + side, 2 * t : 2 * t + side] for t in range(n_frames)])
    for t, frame in enumerate(frames):
        frame[30:60, 3 * t : 3 * t + 24] = 255 - frame[30:60, 3 * t : 3 * t + 24]
    return frames


def _print_table(counts: dict[str, collections.Counter], kinds: list[str]) -> None:
    print(f"| outcome | {' | '.join(kinds)} | all |\n|---|{'---|' * (len(kinds) + 1)}")
    for name, row in sorted(counts.items(), key=lambda item: -sum(item[1].values())):
        print(f"| {name} | {' | '.join(str(row[kind]) for kind in kinds)} | {sum(row.values())} |")


if __name__ == "__main__":
    sys.exit(main())
