"""Small video files written with PyAV: a textured background under a slow pan, with a textured square that moves over it."""

from collections.abc import Callable
from fractions import Fraction
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest

P_ONLY = "bframes=0:ref=1:weightp=0:no-deblock=1:scenecut=0:partitions=p8x8,i8x8,i4x4"
"""Every frame predicted from the one before it, in blocks no finer than 8×8, no filter after the residual is added."""


def moving_texture(n_frames: int, side: int, height: int | None = None, pan: float = 0.5) -> np.ndarray:
    """RGB frames (T, H, W, 3): a smooth random texture that goes `pan` pixels a frame to the left, a square that crosses it."""
    height = height or side
    rng = np.random.default_rng(7)
    tall, wide = height + 2 * n_frames + 16, side + 2 * n_frames + 16
    texture = [_smooth(rng.integers(40, 216, (tall, wide)).astype(np.float64)) for _ in range(2)]
    frames = np.empty((n_frames, height, side, 3), np.uint8)
    for t in range(n_frames):
        left = t * pan
        whole, part = int(left), left - int(left)
        background = (
            texture[0][:height, whole : whole + side] * (1 - part) + texture[0][:height, whole + 1 : whole + 1 + side] * part
        )
        size, x, y = side // 4, (3 * t) % (side * 3 // 4), height // 3
        background[y : y + size, x : x + size] = texture[1][:size, :size]
        frames[t] = background.astype(np.uint8)[..., None]
    return frames


def grainy(frames: np.ndarray, strength: float = 4.0) -> np.ndarray:
    """The frames under noise that is new in each of them, so that hardly any block is without residual."""
    noise = np.random.default_rng(1).normal(0, strength, frames.shape[:3])[..., None]
    return np.clip(frames + noise, 0, 255).astype(np.uint8)


def faded(frames: np.ndarray) -> np.ndarray:
    """The frames darker and brighter by turns, so that encoders use weighted prediction."""
    gain = 0.4 + 0.6 * np.abs(np.cos(np.arange(len(frames)) / 8))[:, None, None, None]
    return np.clip(frames * gain + 10, 0, 255).astype(np.uint8)


def woven(frames: np.ndarray) -> np.ndarray:
    """Half as many frames, each with the even lines of one and the odd lines of the next: interlaced."""
    pairs = frames[0::2].copy()
    pairs[:, 1::2] = frames[1::2][:, 1::2]
    return pairs


def _smooth(image: np.ndarray) -> np.ndarray:
    for axis in (0, 1):
        for _ in range(2):
            image = (np.roll(image, 1, axis) + 2 * image + np.roll(image, -1, axis)) / 4
    low, high = image.min(), image.max()
    return 40 + 170 * (image - low) / (high - low)


WriteVideo = Callable[..., Path]


def write_file(
    path: Path,
    frames: np.ndarray,
    codec: str = "libx264",
    pix_fmt: str = "yuv420p",
    container_options: dict[str, str] | None = None,
    **options: str,
) -> Path:
    """Writes frames to a file, its suffix choosing the container."""
    with av.open(str(path), "w", options=container_options or {}) as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.height, stream.width, stream.pix_fmt = frames.shape[1], frames.shape[2], pix_fmt
        stream.options = {key.replace("_", "-"): value for key, value in options.items()}
        stream.codec_context.thread_count = 1
        for picture in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.fixture
def write_video(tmp_path: Path) -> WriteVideo:
    """Writes frames to a file of a name in the test's folder, its suffix choosing the container."""

    def write(name: str, *arguments: Any, **options: Any) -> Path:
        return write_file(tmp_path / name, *arguments, **options)

    return write
