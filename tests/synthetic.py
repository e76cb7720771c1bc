"""A small labelled shard folder, written through the shards API from made-up frames: no video, no teacher.

A module of its own, for several folders of tests use it.
"""

from collections.abc import Callable
from pathlib import Path

import numpy as np

from ove.config import ShardsConfig
from ove.records import BANKS
from ove.shards.labels import write_labels
from ove.shards.pictures import encode_jpeg
from ove.shards.schema import ImageRecord, VideoRecord, encode_frames
from ove.shards.write import write_shards
from ove.sources.folders import InputFile

T, SIZE_PX, PATCH_PX, GOP = 8, 28, 14, 4
GRID = (T, SIZE_PX // PATCH_PX, SIZE_PX // PATCH_PX)
BUDGET = 16
"""Half of the 32 patches: two I-frames of 4 and 8 patches of the others, or 4 whole frames."""
RECORDS, CENTERS, LABELS = 24, 8, 3
CLASSES = ("dark", "light")


def frames_of(number: int) -> np.ndarray:
    """Frames of noise around a level that tells the class of the record."""
    rng = np.random.default_rng(number)
    return rng.integers(0, 120, (T, SIZE_PX, SIZE_PX, 3), dtype=np.uint8) + np.uint8(130 * (number % 2))


def record_of(video: InputFile) -> VideoRecord:
    """The record whose number is the file's key."""
    number = int(video.key)
    return VideoRecord(
        key=video.key,
        frames=encode_frames(frames_of(number), 95),
        size_px=SIZE_PX,
        patch_px=PATCH_PX,
        frame_index=np.arange(T, dtype=np.int32),
        pts_s=np.arange(T) / 25,
        is_i_frame=np.arange(T) % GOP == 0,
        saliency=np.random.default_rng(number).random(GRID).astype(np.float16),
        source="bitstream",
        codec="h264",
        n_decoded=T,
        fps=25.0,
        label=video.label,
    )


def write_set(
    folder: Path, count: int = RECORDS, make: Callable[[InputFile], VideoRecord] = record_of, labelled: bool = True
) -> Path:
    """Writes `count` records in shards of 8, with class names if asked to, and labels of both banks; returns the folder."""
    names = [CLASSES[n % 2] if labelled else None for n in range(count)]
    videos = [InputFile(folder / str(n), f"{n:04d}", name) for n, name in enumerate(names)]
    write_shards(videos, folder, make, ShardsConfig(records_per_shard=8, workers=0), {}, lambda progress: None)
    for bank in BANKS:
        labels = (np.arange(count)[:, None] + np.arange(LABELS)) % CENTERS
        write_labels(folder, bank, labels.astype(np.int32), np.eye(CENTERS, dtype=np.float32), {})
    return folder


def image_record_of(file: InputFile) -> ImageRecord:
    """A picture of its own size around a level that tells its class, with labels of the bank obj."""
    number = int(file.key)
    rng = np.random.default_rng(number)
    height, width = (int(side) for side in rng.integers(30, 60, 2))
    picture = rng.integers(0, 120, (height, width, 3), dtype=np.uint8) + np.uint8(130 * (number % 2))
    labels = {"obj": ((number + np.arange(LABELS)) % CENTERS).astype(np.int32)}
    return ImageRecord(file.key, encode_jpeg(picture, 95), height, width, file.label, labels)


def write_image_set(folder: Path, count: int = RECORDS, make: Callable[[InputFile], ImageRecord] = image_record_of) -> Path:
    """Writes `count` pictures in shards of 8, with class names and labels in the records; returns the folder."""
    files = [InputFile(folder / str(n), f"{n:04d}", CLASSES[n % 2]) for n in range(count)]
    config = ShardsConfig(records_per_shard=8, workers=0, centers_obj=CENTERS)
    write_shards(files, folder, make, config, {}, lambda progress: None)
    return folder
