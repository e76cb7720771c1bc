"""Measures the cost of codec signals on top of decoding: one core, 64 sampled frames, whole files at native size.

python bench/video.py [FILE…] [--rounds 7] [--quick]; without files those of ../shared/videos. Four ways take turns, and
medians are compared: decoding the whole file and nothing else; that and the sampled frames as RGB in the clip's size, which
every model needs; frames, signals, saliency and selection from the bitstream; the same with the sampled frames encoded anew
(transcode). Prints a table for each file with the steps; the last line is one JSON object. --quick: two rounds.
"""

import argparse
import functools
import importlib
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import av
import cv2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ove.config import VideoConfig  # noqa: E402
from ove.video.clip_builder import ClipBuilder  # noqa: E402
from ove.video.decode import read_video  # noqa: E402
from ove.video.demux import DecodedFrame  # noqa: E402
from ove.video.saliency import saliency  # noqa: E402
from ove.video.select import choose_patches  # noqa: E402

_BUDGET = 2048
_LIMIT_SHARE, _LIMIT_TRANSCODE_MS = 0.5, 150.0
"""Targets: on top of decoded frames, at most this share of plain decoding; transcoding, at most so many ms."""
_STEPS = (  # (module, what is called there, name of the step); time within an inner step counts for that one only
    ("ove.video.decode", "survey", "survey: packets counted by demuxing"),
    ("ove.video.decode", "decoded_frames", "decode with vectors exported"),
    ("ove.video.clip_builder", "ClipBuilder._picture", "RGB and resize"),
    ("ove.video.signals", "dense_field", "vectors to a dense field"),
    ("ove.video.signals", "gradient", "gradient of intra blocks"),
    ("ove.video.signals", "gradient_into", "gradient of intra blocks"),
    ("ove.video.bitstream.h264", "GrayH264.luma", "gray residual: decoding alone"),
    ("ove.video.signals", "SignalStack.add", "vectors fetched, residual stored"),
    ("ove.video.transcode", "transcode", "transcode: encoding"),
    ("ove.video.clip_builder", "transcoded_signals", "transcode: decoding"),
    ("ove.video.saliency", "remove_camera", "camera fit"),
    ("ove.video.saliency", "_motion_scales", "percentiles"),
    ("ove.video.saliency", "_scale", "percentiles"),
    ("ove.video.saliency", "patch_means", "patch means"),
    ("__main__", "saliency", "fusion and the rest of saliency"),
    ("__main__", "choose_patches", "selection"),
    ("__main__", "read_video", "all the rest"),
)


def main() -> None:
    """Measures file by file and prints tables and the summary."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--quick", action="store_true", help="two rounds")
    options = parser.parse_args()
    files = options.files or sorted((ROOT.parent / "shared" / "videos").glob("*.mp4"))
    if not files:
        parser.error("no files: name some videos (../shared/videos is not there)")
    cv2.setNumThreads(1)
    results = [_measured(path, 2 if options.quick else options.rounds) for path in files]
    ours = [r for r in results if r["share"] is not None]
    summary = {
        "bench": "video",
        "quick": options.quick,
        "worst_share": max((r["share"] for r in ours), default=None),
        "limit_share": _LIMIT_SHARE,
        "worst_transcode_ms": max(r["transcode_ms"] for r in results),
        "limit_transcode_ms": _LIMIT_TRANSCODE_MS,
        "files": results,
    }
    print(json.dumps(summary))


def _measured(path: Path, rounds: int) -> dict[str, Any]:
    """The figures of one file; prints its table."""
    configs = {source: VideoConfig(source=source) for source in ("auto", "transcode")}
    clip, _ = read_video(path, configs["auto"])
    wanted = set(clip.frame_index.tolist())
    ways: dict[str, Callable[[], None]] = {
        "plain": functools.partial(_decode_only, path),
        "frames": functools.partial(_frames_only, path, wanted, configs["auto"]),
    }
    if clip.source == "bitstream":
        ways["bitstream"] = functools.partial(_ours, path, configs["auto"])
    ways["transcode"] = functools.partial(_ours, path, configs["transcode"])
    times: dict[str, list[float]] = {name: [] for name in ways}
    for _ in range(rounds):
        for name, run in ways.items():
            started = time.perf_counter()
            run()
            times[name].append(1e3 * (time.perf_counter() - started))
    ms = {name: statistics.median(values) for name, values in times.items()}
    steps = {name: _by_step(run, max(rounds // 2, 1)) for name, run in ways.items() if name in configs or name == "bitstream"}
    share = (ms["bitstream"] - ms["frames"]) / ms["plain"] if "bitstream" in ms else None
    print(f"\n{path.name}: {clip.codec}, {clip.n_decoded} frames; medians of {rounds} rounds, ms")
    for name, value in ms.items():
        print(f"  {name:10s} {value:8.1f}  (+{value - ms['plain']:.0f})")
    if share is not None:
        print(f"  signals, saliency and selection: {100 * share:.0f} % of plain decoding on top of frames")
    print(f"| step | {' | '.join(steps)} |\n|---|{'---|' * len(steps)}")
    for step in dict.fromkeys(name for _, _, name in _STEPS):
        if any(step in found for found in steps.values()):
            print(f"| {step} | {' | '.join(f'{found.get(step, 0):.1f}' for found in steps.values())} |", flush=True)
    return {
        "file": path.name,
        "codec": clip.codec,
        "frames": clip.n_decoded,
        "ms": {name: round(value, 1) for name, value in ms.items()},
        "share": None if share is None else round(share, 3),
        "transcode_ms": round(ms["transcode"] - ms["frames"], 1),
        "steps_ms": {name: {step: round(value, 2) for step, value in found.items()} for name, found in steps.items()},
    }


def _decode_only(path: Path) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        for _ in container.decode(stream):
            pass


def _frames_only(path: Path, wanted: set[int], config: VideoConfig) -> None:
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.codec_context.thread_count = 1
        builder = ClipBuilder(config, None, len(wanted))
        for number, frame in enumerate(container.decode(stream)):
            builder.add(DecodedFrame(frame, b"", None), number in wanted)


def _ours(path: Path, config: VideoConfig) -> None:
    clip, signals = read_video(path, config)
    choose_patches(saliency(signals, config), clip.is_i_frame, _BUDGET, config.selection)


class _Clock:
    """Time by step, each moment counted once: for the innermost step that is running."""

    def __init__(self) -> None:
        self.seconds: dict[str, float] = defaultdict(float)
        self._running: list[str] = []
        self._since = 0.0

    def _turn(self) -> None:
        now = time.perf_counter()
        if self._running:
            self.seconds[self._running[-1]] += now - self._since
        self._since = now

    def within(self, step: str, call: Callable[..., Any], *args: Any, **kwargs: Any) -> Any:
        """call(…), its time counted for `step`."""
        self._turn()
        self._running.append(step)
        try:
            return call(*args, **kwargs)
        finally:
            self._turn()
            self._running.pop()

    def watched(self, step: str, call: Callable[..., Any]) -> Callable[..., Any]:
        """`call` with its time counted; where it returns an iterator, that of each step of it."""

        def wrapper(*args: Any, **kwargs: Any) -> Any:
            result = self.within(step, call, *args, **kwargs)
            return self._each(step, result) if isinstance(result, Iterator) else result

        return wrapper

    def _each(self, step: str, items: Iterator[Any]) -> Iterator[Any]:
        nothing = object()
        while (item := self.within(step, next, items, nothing)) is not nothing:
            yield item


def _by_step(run: Callable[[], None], rounds: int) -> dict[str, float]:
    """Median milliseconds of each step over some rounds, run apart from the comparison, which is not slowed by clocks."""
    found: dict[str, list[float]] = defaultdict(list)
    for _ in range(rounds):
        clock, undo = _Clock(), []
        for module, dotted, step in _STEPS:
            *owners, name = dotted.split(".")
            owner = functools.reduce(getattr, owners, importlib.import_module(module))
            undo.append((owner, name, getattr(owner, name)))
            setattr(owner, name, clock.watched(step, getattr(owner, name)))
        try:
            run()
        finally:
            for owner, name, original in reversed(undo):
                setattr(owner, name, original)
        for step, seconds in clock.seconds.items():
            found[step].append(1e3 * seconds)
    return {step: statistics.median(values) for step, values in found.items()}


if __name__ == "__main__":
    main()
