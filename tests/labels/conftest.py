"""A shard folder of clips that come in four kinds."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from ove.config import ShardsConfig
from ove.shards.schema import VideoRecord, encode_frames
from ove.shards.write import write_shards
from ove.sources.folders import InputFile

KINDS, T, SIZE_PX = 4, 8, 28


def _record(video: InputFile) -> VideoRecord:
    number = int(video.key)
    scene = np.random.default_rng(number % KINDS).integers(0, 256, (4, 4, 3), dtype=np.uint8)
    noise = np.random.default_rng(number).integers(-9, 10, (T, SIZE_PX, SIZE_PX, 3))
    frames = np.clip(np.kron(scene, np.ones((7, 7, 1), int)) + noise, 0, 255).astype(np.uint8)
    return VideoRecord(
        key=video.key,
        frames=encode_frames(frames, 95),
        size_px=SIZE_PX,
        patch_px=14,
        frame_index=np.arange(T, dtype=np.int32),
        pts_s=np.arange(T) / 25,
        is_i_frame=np.arange(T) == 0,
        saliency=np.zeros((T, 2, 2), np.float16),
        source="bitstream",
        codec="h264",
        n_decoded=T,
        fps=25.0,
        label=None,
    )


@pytest.fixture(scope="session")
def write_kinds() -> Callable[[Path, int], None]:
    """Writes a shard folder of n clips; clip i is of kind i % 4."""

    def write(out: Path, count: int) -> None:
        videos = [InputFile(out / str(n), f"{n:04d}", None) for n in range(count)]
        write_shards(videos, out, _record, ShardsConfig(records_per_shard=8, workers=0), {}, lambda progress: None)

    return write
