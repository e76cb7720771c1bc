"""The pictures of the documentation, from a video that is drawn (`ove.view.street`).

python bench/pictures.py [--out docs/images] [--quick]; writes overlay.jpg (the sheet of `ove extract --overlay`) and
presets.jpg; the last line is one JSON object. --quick: without --out into a temporary folder, to see that it works.
"""

import argparse
import json
import sys
import tempfile
from pathlib import Path

import cv2

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from presets import RULES, draw, selected  # noqa: E402

from ove.toy import write_mp4  # noqa: E402
from ove.video.decode import read_video  # noqa: E402
from ove.video.saliency import saliency  # noqa: E402
from ove.view.overlay import overlay  # noqa: E402
from ove.view.street import street  # noqa: E402

_BUDGET = 2048


def main() -> None:
    """Draws the video, selects from it, writes the pictures."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, help="docs/images, with --quick a temporary folder")
    parser.add_argument("--quick", action="store_true")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        out = options.out or (Path(folder) if options.quick else ROOT / "docs" / "images")
        out.mkdir(parents=True, exist_ok=True)
        path = Path(folder) / "street.mp4"
        write_mp4(street(), path)
        config, _ = RULES["paper"]
        clip, signals = read_video(path, config)
        _, selections = selected(path, _BUDGET)
        sheet = overlay(clip, signals, saliency(signals, config), selections["paper"], config, path.name)
        cv2.imwrite(str(out / "overlay.jpg"), cv2.cvtColor(sheet, cv2.COLOR_RGB2BGR), [cv2.IMWRITE_JPEG_QUALITY, 85])
        draw(out / "presets.jpg", clip, selections, f"What is kept of {path.name}")
        sizes = {name: (out / name).stat().st_size for name in ("overlay.jpg", "presets.jpg")}
    print(json.dumps({"bench": "pictures", "quick": options.quick, "bytes": sizes}))


if __name__ == "__main__":
    main()
