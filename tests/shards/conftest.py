"""A folder of small videos."""

from pathlib import Path

import pytest
from shards_material import write_video


@pytest.fixture(scope="session")
def video_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Seven good videos in two classes."""
    folder = tmp_path_factory.mktemp("videos")
    for n in range(7):
        write_video(folder / ("left" if n % 2 else "right") / f"{n}.mp4", seed=n)
    return folder
