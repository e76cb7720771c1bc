"""Prints the share of exact residuals for each kind of stream: the table of docs/codec.md.

python bench/exactness.py [PART-OF-A-NAME…] [--quick]. Encodes 24 synthetic frames of 160×112 with noise in each way, without
loop filter, and rebuilds each 8×8 cell from decoded pictures with the prediction of tests/video/interpolation.py. A cell
counts if something was added to it and one prediction + residual is right on all its 64 pixels. `control`: the same with the
residual of 16 pixels beside, which shows what chance explains. --quick: one stream of H.264, one of MPEG-2, one of HEVC. The
last line is one JSON object.
"""

import argparse
import json
import sys
import tempfile
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from av import logging as av_logging

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "tests" / "video"))

from second_route import share_of_h264, share_of_hevc, share_of_mpeg, shifted_candidates, unmoved_candidates
from video_files import faded, grainy, moving_texture, write_file

_PLAIN, _FADED = grainy(moving_texture(24, 160, 112)), grainy(faded(moving_texture(24, 160, 112)))
_STILL = grainy(faded(np.repeat(moving_texture(1, 160, 112), 24, axis=0)), 2)
_X264 = "no-deblock=1:partitions=p8x8,b8x8,i8x8,i4x4:"
_X265 = "log-level=error:no-deblock=1:sao=0:rect=0:amp=0:"
_QUICK = ["H.264 baseline", "MPEG-2, B", "HEVC, P"]
_B = "bframes=3:b-adapt=0:ref=3:"
_HEVC_B = "bframes=2:b-adapt=0:ref=1:b-pyramid=0:weightp=1:"


def main() -> None:
    """Prints a line of the table for each case whose name holds one of the arguments; for all without any."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("parts", nargs="*", metavar="PART-OF-A-NAME")
    parser.add_argument("--quick", action="store_true", help="three streams")
    options = parser.parse_args()
    parts, streams = options.parts or (_QUICK if options.quick else [""]), {}
    av_logging.set_level(av_logging.PANIC)
    print("| stream | cells | explained: P | B | control | s |\n|---|---|---|---|---|---|")
    for name, (make, shares) in _cases().items():
        if not any(part in name for part in parts):
            continue
        start = time.monotonic()
        with tempfile.TemporaryDirectory() as folder:
            found = shares(make(Path(folder)))
        cells = sum(share.cells for share in found.values())
        filled = {kind: share for kind, share in found.items() if share.cells}
        explained = {kind: share.explained / share.cells for kind, share in filled.items()}
        by_kind = [f"{explained[kind]:.2%}" if kind in explained else "–" for kind in "PB"]
        chance = sum(share.control for share in found.values()) / cells
        print(f"| {name} | {cells} | {' | '.join(by_kind)} | {chance:.2%} | {time.monotonic() - start:.1f} |", flush=True)
        streams[name] = {"cells": cells, "explained": explained, "control": chance}
    print(json.dumps({"bench": "exactness", "quick": options.quick, "streams": streams}))


def _cases() -> dict[str, tuple[Callable[[Path], Path], Callable[[Path], dict[str, Any]]]]:
    x264 = {
        "H.264 baseline, CAVLC": (_PLAIN, "yuv420p", "cabac=0:8x8dct=0:bframes=0:weightp=0:ref=1"),
        "H.264 main, CABAC, P, 4 references": (_PLAIN, "yuv420p", "8x8dct=0:bframes=0:weightp=0:ref=4"),
        "H.264 high, CABAC, P, weights": (_FADED, "yuv420p", "bframes=0:ref=3:weightp=2"),
        "H.264 high, CAVLC, P, weights": (_FADED, "yuv420p", "bframes=0:ref=3:weightp=2:cabac=0"),
        "H.264 main, CABAC, B": (_PLAIN, "yuv420p", f"8x8dct=0:{_B}weightp=0:weightb=0"),
        "H.264 main, CAVLC, B": (_PLAIN, "yuv420p", f"8x8dct=0:{_B}weightp=0:weightb=0:cabac=0"),
        "H.264 high, CABAC, B, weights, implicit weights": (_FADED, "yuv420p", f"{_B}weightp=2:weightb=1"),
        "H.264 high, CAVLC, B, weights, temporal direct": (_FADED, "yuv420p", f"{_B}weightp=2:cabac=0:direct=temporal"),
        "H.264 high, CABAC, B, temporal direct": (_PLAIN, "yuv420p", f"{_B}direct=temporal"),
        "H.264 high, B, 4 slices, weights": (_FADED, "yuv420p", f"{_B}weightp=2:slices=4"),
        "H.264 high, B, open GOP": (_PLAIN, "yuv420p", f"{_B}open-gop=1:keyint=8:min-keyint=8"),
        "H.264 high, P, intra refresh": (_PLAIN, "yuv420p", "intra-refresh=1:keyint=12:bframes=0"),
        "H.264 high 10, B, weights": (_FADED, "yuv420p10le", f"{_B}weightp=2"),
        "H.264 4:2:2, B, weights": (_FADED, "yuv422p", f"{_B}weightp=2"),
        "H.264 4:2:2 10 bit, B, weights": (_FADED, "yuv422p10le", f"{_B}weightp=2"),
        "H.264 4:4:4, CABAC, B, weights": (_FADED, "yuv444p", f"{_B}weightp=2"),
        "H.264 4:4:4, CAVLC, B, weights": (_FADED, "yuv444p", f"{_B}weightp=2:cabac=0"),
        "H.264 monochrome, B, weights": (_FADED, "gray", f"{_B}weightp=2"),
        "H.264 MBAFF, progressive content, B": (_PLAIN, "yuv420p", f"{_B}interlaced=1"),
    }
    mpeg = {
        "MPEG-1, B": ("mpeg1video", "mkv", "2"),
        "MPEG-2, B": ("mpeg2video", "ts", "2"),
        "MPEG-2 4:2:2, B": ("mpeg2video", "mkv", "2"),
        "MPEG-4 part 2, P": ("mpeg4", "mp4", "0"),
    }
    moved, unmoved = partial(shifted_candidates, down=2, across=4), partial(unmoved_candidates, reach=3)
    x265 = {
        "HEVC, P, pan": (_PLAIN, "yuv420p", "bframes=0:ref=1:weightp=0:keyint=60", moved),
        "HEVC, B, weights, no motion": (_STILL, "yuv420p", f"{_HEVC_B}weightb=1", unmoved),
        "HEVC 10 bit, B, weights, no motion": (_STILL, "yuv420p10le", _HEVC_B, unmoved),
        "HEVC 4:4:4, B, open GOP, no motion": (_STILL, "yuv444p", f"{_HEVC_B}open-gop=1:keyint=8:min-keyint=8", unmoved),
    }
    cases: dict[str, tuple[Any, Any]] = {}
    for name, (frames, pix_fmt, params) in x264.items():
        options = {"pix_fmt": pix_fmt, "preset": "medium", "crf": "20", "x264_params": _X264 + params}
        cases[name] = (partial(_write, "v.mp4", frames, **options), share_of_h264)
    for name, (codec, suffix, b_frames) in mpeg.items():
        pix_fmt = "yuv422p" if "4:2:2" in name else "yuv420p"
        options = {"codec": codec, "pix_fmt": pix_fmt, "qmin": "3", "qmax": "6", "bf": b_frames}
        cases[name] = (partial(_write, f"v.{suffix}", _PLAIN, **options), share_of_mpeg)
    for name, (frames, pix_fmt, params, candidates) in x265.items():
        options = {"codec": "libx265", "pix_fmt": pix_fmt, "crf": "12", "x265_params": _X265 + params}
        cases[name] = (partial(_write, "v.mp4", frames, **options), partial(share_of_hevc, candidates=candidates))
    return cases


def _write(name: str, frames: np.ndarray, folder: Path, **options: str) -> Path:
    return write_file(folder / name, frames, **options)


if __name__ == "__main__":
    main()
