"""The examples of the front door's docstrings, run as they stand."""

import dataclasses
import doctest
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_clips import SIZE_PX

import ove
from ove.config import VideoConfig
from ove.features.from_files import Weights
from ove.tokens.read import InputConfig


@pytest.fixture(scope="module")
def folder(videos: list[Path], weights: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the examples speak of: video.mp4, other.mp4, photo.jpg, videos/CLASS/, runs/mine."""
    folder = tmp_path_factory.mktemp("examples")
    for path, name in zip(videos, ("video.mp4", "other.mp4"), strict=False):
        shutil.copy(path, folder / name)
    for number, path in enumerate(videos):
        (folder / "videos" / f"class_{number % 2}").mkdir(parents=True, exist_ok=True)
        shutil.copy(path, folder / "videos" / f"class_{number % 2}")
    cv2.imwrite(str(folder / "photo.jpg"), np.full((56, 84, 3), 90, np.uint8))
    shutil.copytree(weights, folder / "runs" / "mine")
    return folder


@pytest.mark.parametrize("function", [ove.read, ove.load, ove.write_shards, ove.batches, ove.split, ove.probe])
def test_the_examples_say_what_happens(function: Callable, folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(folder)
    names: dict[str, Any] = {"ove": ove}
    if function is ove.batches:
        ove.write_shards("shards", [("video.mp4", "run"), ("other.mp4", "jump")], size=84, workers=0)
    if function is ove.probe:
        names["model"] = ove.load("runs/mine")
        names["model"].weights = _small(names["model"].weights)
    (test,) = doctest.DocTestFinder(recurse=False).find(function, function.__name__, globs=names)
    assert test.examples
    said: list[str] = []
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS)
    runner.run(test, out=said.append)
    assert runner.failures == 0, "".join(said)


def _small(weights: Weights) -> Weights:
    """The same weights, said to have been trained on small clips: four clips of 2,048 patches would take long."""
    return dataclasses.replace(weights, inputs=InputConfig("codec", VideoConfig(size_px=SIZE_PX), 64))
