"""Examples in the docstrings and on the pages of the front door, run as they stand in a folder with a few small files."""

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import cv2
import numpy as np
import pytest
from hub_server import HubServer, serving
from small_clips import SIZE_PX

import ove
from ove.config import VideoConfig
from ove.tokens.preprocessing import OF_PUBLISHED, save_preprocessing
from ove.tokens.read import InputConfig

ROOT = Path(ove.__file__).parents[1]
RELEASED = "lmms-lab-encoder/onevision-encoder-large"
DOCSTRINGS = ("read", "load", "write_shards", "batches", "split", "probe")


@pytest.fixture
def folder(videos: list[Path], weights: Path, tmp_path: Path) -> Path:
    """What the examples speak of; the weights say that they were trained on small clips: those of 2,048 patches take long."""
    for path, names in zip(videos, (("video.mp4", "a.mp4"), ("other.mp4", "b.mp4")), strict=False):
        for name in names:
            shutil.copy(path, tmp_path / name)
    for number in range(8):
        place = tmp_path / "videos" / f"class_{number % 2}"
        place.mkdir(parents=True, exist_ok=True)
        shutil.copy(videos[number // 2], place / f"clip_{number}.mp4")
    cv2.imwrite(str(tmp_path / "photo.jpg"), np.full((56, 84, 3), 90, np.uint8))
    shutil.copytree(weights, tmp_path / "runs" / "mine")
    save_preprocessing(tmp_path / "runs" / "mine" / OF_PUBLISHED, InputConfig("codec", VideoConfig(size_px=SIZE_PX), 64))
    return tmp_path


@pytest.fixture
def hub(folder: Path) -> Iterator[HubServer]:
    """Has the same weights under the name of the released ones."""
    files = {path.name: path.read_bytes() for path in (folder / "runs" / "mine").iterdir()}
    with serving(HubServer(files, RELEASED)) as running:
        yield running


@pytest.mark.parametrize("names", [DOCSTRINGS, ("README.md",), ("docs/python.md",)], ids=["docstrings", "README", "python.md"])
def test_the_examples_say_what_happens(names: tuple[str, ...], folder: Path, hub: HubServer) -> None:
    places = {"PYTHONPATH": str(ROOT), "HF_ENDPOINT": hub.url, "HF_HOME": str(folder / "hub"), "XLA_FLAGS": ""}
    given = [str(ROOT / name) if name.endswith(".md") else name for name in names]
    script = str(Path(__file__).with_name("run_examples.py"))
    made = subprocess.run(
        [sys.executable, script, *given], cwd=folder, env=os.environ | places, capture_output=True, text=True, timeout=500
    )
    assert made.returncode == 0 and ", 0 failures" in made.stdout, made.stdout + made.stderr
    assert names == DOCSTRINGS or "model.safetensors" in hub.asked()
