"""Small videos and ways to make records of them; a module of its own, for the worker processes must be able to import it."""

import os
import signal
import time
from fractions import Fraction
from pathlib import Path

import av
import numpy as np

from ove.errors import BadClip
from ove.shards.schema import VideoRecord, encode_frames
from ove.sources.folders import InputFile

SIZE_PX, PATCH_PX, T = 28, 14, 8


def write_video(path: Path, seed: int, n_frames: int = 12, size_px: int = 64, codec: str = "libx264") -> None:
    """A video of blocks of colour that drift."""
    rng = np.random.default_rng(seed)
    picture = np.kron(rng.integers(0, 256, (8, 8, 3), dtype=np.uint8), np.ones((size_px // 8, size_px // 8, 1), np.uint8))
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=Fraction(25))
        stream.width = stream.height = size_px
        stream.pix_fmt = "yuv420p"
        for index in range(n_frames):
            frame = av.VideoFrame.from_ndarray(np.roll(picture, 2 * index, axis=1), "rgb24")
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def record_of(frames: np.ndarray, key: str, label: str | None) -> VideoRecord:
    """A whole record around some frames."""
    saliency = np.random.default_rng(len(key)).random((len(frames), SIZE_PX // PATCH_PX, SIZE_PX // PATCH_PX))
    return VideoRecord(
        key=key,
        frames=encode_frames(frames, 90),
        size_px=SIZE_PX,
        patch_px=PATCH_PX,
        frame_index=np.arange(len(frames), dtype=np.int32),
        pts_s=np.arange(len(frames)) / 25,
        is_i_frame=np.arange(len(frames)) % 4 == 0,
        saliency=saliency.astype(np.float16),
        source="bitstream",
        codec="h264",
        n_decoded=len(frames),
        fps=25.0,
        label=label,
    )


def make_record(video: InputFile) -> VideoRecord:
    """Decodes the first T frames; a name tells if something is to go wrong."""
    if "crash" in video.path.name:
        os.kill(os.getpid(), signal.SIGSEGV)
    if "strange" in video.path.name:
        raise ZeroDivisionError("one by nothing")
    try:
        with av.open(str(video.path)) as container:
            frames = [f.to_ndarray(format="rgb24", width=SIZE_PX, height=SIZE_PX) for f in container.decode(video=0)]
    except av.FFmpegError as error:
        raise BadClip(f"{video.path}: not a video ({error}).") from error
    return record_of(np.stack(frames[:T]), video.key, video.label)


def make_record_slowly(video: InputFile) -> VideoRecord:
    """The same records, 0.2 s apart."""
    time.sleep(0.2)
    return make_record(video)
