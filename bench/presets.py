"""Compares what the presets select of one video, in figures and in a picture.

python bench/presets.py [FILE…] [--picture OUT.jpg] [--budget 2048] [--quick]; without files, the last of ../shared/videos,
with --quick a video that is drawn (`ove.view.street`). For each pair of rules: how many patches they share outside of the
I-frames, of those of the rule that has fewer there; for each rule: how the patches spread over frames, time and the picture.
The last line is one JSON object.
"""

import argparse
import itertools
import json
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from ove.config import VideoConfig, video_preset  # noqa: E402
from ove.records import Clip, Selection  # noqa: E402
from ove.toy import write_mp4  # noqa: E402
from ove.video.decode import read_video  # noqa: E402
from ove.video.saliency import saliency  # noqa: E402
from ove.video.select import choose_patches  # noqa: E402
from ove.view.colours import masks  # noqa: E402
from ove.view.selections import compare_selections  # noqa: E402
from ove.view.street import street  # noqa: E402

RULES: dict[str, tuple[VideoConfig, str]] = {
    "paper": (video_preset("paper"), "I-frames whole, the rest\nby motion and residual,\neach frame on a scale\nof its own"),
    "paper, clip scale": (video_preset("paper", percentile_scope="clip"), "the same, all frames\non one scale"),
    "probe": (video_preset("probe"), "where motion varies and\nthe residual has edges,\nrather near the centre"),
    "transcode": (video_preset("paper", source="transcode"), "as paper, from encoding\nthe 64 frames anew"),
    "frames": (video_preset("frames"), "whole frames,\nevenly spaced"),
}
PICTURED = ("paper", "probe", "frames")


def main() -> None:
    """Selects, compares, prints and draws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="*", type=Path, metavar="FILE")
    parser.add_argument("--picture", type=Path, help="of the last file")
    parser.add_argument("--budget", type=int, default=2048)
    parser.add_argument("--quick", action="store_true", help="without files, of a drawn video")
    options = parser.parse_args()
    found = []
    with tempfile.TemporaryDirectory() as folder:
        drawn = Path(folder) / "street.mp4"
        if options.quick and not options.files:
            write_mp4(street(), drawn)
            options.files = [drawn]
        files = options.files or sorted((ROOT.parent / "shared" / "videos").glob("*.mp4"))[-1:]
        if not files:
            parser.error("no files: name a video (../shared/videos is not there)")
        for path in files:
            clip, selections = selected(path, options.budget)
            found.append(_figures(path, clip, selections))
            _print(found[-1])
    if options.picture:
        draw(options.picture, clip, selections, f"What is kept of {path.name}")
    print(json.dumps({"bench": "presets", "quick": options.quick, "budget_tokens": options.budget, "files": found}))


def selected(path: Path, budget: int) -> tuple[Clip, dict[str, Selection]]:
    """The clip, and what each rule selects of it."""
    selections = {}
    for name, (config, _) in RULES.items():
        clip, signals = read_video(path, config)
        selections[name] = choose_patches(saliency(signals, config), clip.is_i_frame, budget, config.selection)
    return clip, selections


def draw(path: Path, clip: Clip, selections: dict[str, Selection], title: str) -> None:
    """Writes the comparison of the pictured rules."""
    sheet = compare_selections(clip, {name: (selections[name], RULES[name][1]) for name in PICTURED}, title)
    if not cv2.imwrite(str(path), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 88]):
        raise OSError(f"{path}: the picture cannot be written.")


def _figures(path: Path, clip: Clip, selections: dict[str, Selection]) -> dict:
    whole = clip.is_i_frame
    spread = {}
    for name, selection in selections.items():
        mask = masks(selection.flat, selection.grid_tyx)
        number = mask.sum(axis=(1, 2))
        rows, columns = mask.shape[1:]
        centre = mask[:, rows // 4 : -(rows // 4), columns // 4 : -(columns // 4)]
        spread[name] = {
            "frames_touched": int((number > 0).sum()),
            "whole_frames": int((number == rows * columns).sum()),
            "per_other_frame": [int(q) for q in np.percentile(number[(number > 0) & (number < rows * columns)], (5, 50, 95))]
            if ((number > 0) & (number < rows * columns)).any()
            else None,
            "thirds_of_time": [round(float(part.sum() / mask.sum()), 3) for part in np.array_split(mask, 3)],
            "thirds_of_height": [round(float(part.sum() / mask.sum()), 3) for part in np.array_split(mask, 3, axis=1)],
            "central_quarter": round(float(centre.sum() / mask.sum()), 3),
        }
    shared = {}
    for one, other in itertools.combinations(selections, 2):
        a, b = (masks(selections[name].flat, selections[name].grid_tyx)[~whole] for name in (one, other))
        shared[f"{one} / {other}"] = round(float((a & b).sum() / max(min(a.sum(), b.sum()), 1)), 3)
    return {"file": path.name, "source": clip.source, "spread": spread, "shared_outside_i_frames": shared}


def _print(figures: dict) -> None:
    print(f"\n{figures['file']}")
    print("| rule | frames touched | whole | of another frame: 5, 50, 95 % | thirds of time | of height | central quarter |")
    print("|---|---|---|---|---|---|---|")
    for name, row in figures["spread"].items():
        others = "–" if row["per_other_frame"] is None else ", ".join(map(str, row["per_other_frame"]))
        thirds = " | ".join(
            ", ".join(f"{100 * share:.0f}" for share in row[axis]) + " %" for axis in ("thirds_of_time", "thirds_of_height")
        )
        counts = f"{row['frames_touched']} | {row['whole_frames']} | {others}"
        print(f"| {name} | {counts} | {thirds} | {100 * row['central_quarter']:.0f} % |")
    print("| shared by | of the patches outside of I-frames |\n|---|---|")
    for name, share in figures["shared_outside_i_frames"].items():
        print(f"| {name} | {100 * share:.0f} % |")


if __name__ == "__main__":
    main()
