"""Does reading many files in one process leak memory or file descriptors?

python bench/leaks.py [--reads 1000] [--quick]: reads small good and broken files in turn, and tells resident memory and open
file descriptors after a tenth of the reads and at the end; the last line is one JSON object. Exit code 1 if descriptors were
left open or memory grew by more than 30 MiB in between. Linux only: the figures come from /proc.
"""

import argparse
import gc
import json
import os
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path

from mutations import _CONFIG, write_mutations  # also puts the checkout on the path

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.video.bitstream.hevc_slices.load import open_pictures
from ove.video.decode import read_video
from ove.video.saliency import saliency

_MOST_GROWTH_MIB = 30
_FILES = 100
"""Damaged ones, in all the ways of mutations.py; between them the sound ones take turns."""


def main() -> int:
    """Reads, measures, prints; 1 if something leaks."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--reads", type=int, default=1000)
    parser.add_argument("--quick", action="store_true", help="200 reads")
    options = parser.parse_args()
    reads = 200 if options.quick else options.reads
    config, started = VideoConfig(**_CONFIG), time.monotonic()
    open_pictures(b"")  # what is loaded once is no leak
    with tempfile.TemporaryDirectory() as folder:
        counts = {"read": 0, "refused": 0}
        paths = _in_turn(Path(folder))
        measured = []
        for part in (reads // 10, reads - reads // 10):
            for _ in range(part):
                counts[_read(next(paths), config)] += 1
            gc.collect()
            measured.append((_resident_mib(), len(os.listdir("/proc/self/fd"))))
    (before_mib, before_open), (after_mib, after_open) = measured
    print(f"after {reads // 10} reads: {before_mib:.1f} MiB, {before_open} descriptors open")
    print(f"after {reads} reads: {after_mib:.1f} MiB, {after_open} descriptors open")
    summary = {
        "bench": "leaks",
        "reads": reads,
        **counts,
        "resident_mib": [round(before_mib, 1), round(after_mib, 1)],
        "descriptors": [before_open, after_open],
        "seconds": round(time.monotonic() - started, 1),
    }
    print(json.dumps(summary))
    return int(after_open > before_open or after_mib - before_mib > _MOST_GROWTH_MIB)


def _in_turn(folder: Path) -> Iterator[Path]:
    damaged = [path for path, _ in write_mutations(folder, _FILES, seed=1)]
    sound = sorted((folder / "originals").iterdir())
    while True:
        for number, path in enumerate(damaged):
            yield path
            if number % 3 < 2:
                yield sound[number % len(sound)]


def _read(path: Path, config: VideoConfig) -> str:
    try:
        _, signals = read_video(path, config)
        saliency(signals, config)
    except BadClip:
        return "refused"
    return "read"


def _resident_mib() -> float:
    pages = int(Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE") / 2**20


if __name__ == "__main__":
    sys.exit(main())
