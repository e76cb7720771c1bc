"""Three short videos and an encoder."""

from pathlib import Path

import published_files
import pytest

from ove.toy import write_video


@pytest.fixture(scope="session")
def videos(tmp_path_factory: pytest.TempPathFactory) -> list[Path]:
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder, 0, index) for index in range(4)]


@pytest.fixture(scope="session")
def tensors() -> published_files.Tensors:
    return published_files.random_tensors(published_files.CONFIG)


@pytest.fixture(scope="session")
def weights(tmp_path_factory: pytest.TempPathFactory, tensors: published_files.Tensors) -> Path:
    return published_files.write_folder(tmp_path_factory.mktemp("weights"), tensors)
