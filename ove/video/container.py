"""Opens a video file: accepted containers, codecs and sizes, within a time limit; anything else is refused by name."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import av
from av.container import InputContainer
from av.stream import Disposition
from av.video.stream import VideoStream

from ove.config import limits
from ove.errors import BadClip
from ove.files import kind_of_text
from ove.paths import check_input
from ove.video.photo import is_photo

# fmt: off
CONTAINERS = frozenset([
    "mov", "mp4", "matroska", "webm", "avi", "mpegts", "mpeg", "flv", "asf", "ogg", "mxf", "nut", "ivf", "h264", "hevc",
    "m4v", "mpegvideo", "dv", "rm", "vc1", "obu", "vvc",
])
"""Accepted demuxers. FFmpeg guesses: it opens a text file as a terminal recording of 25 frames a second."""
CODECS = frozenset([
    "h264", "hevc", "vvc", "av1", "vp8", "vp9", "mpeg1video", "mpeg2video", "mpeg4", "msmpeg4v2", "msmpeg4v3", "h263",
    "flv1", "wmv1", "wmv2", "wmv3", "vc1", "theora", "mjpeg", "prores", "dnxhd", "ffv1", "huffyuv", "ffvhuff",
    "utvideo", "rawvideo", "dvvideo", "svq3", "snow", "rv30", "rv40", "cinepak",
])
# fmt: on
_TOLD_APART = frozenset(
    ["png_pipe", "jpeg_pipe", "webp_pipe", "bmp_pipe", "gif", "apng", "image2", "tty", "wav", "mp3", "flac", "aac"]
)
"""Demuxers that may open a file only to name its kind. No others may: playlists, for example, open further files."""


class Deadline:
    """The processor time of this thread, and the moment, after which work on a file stops.

    Processor time, so that the same files are set aside on a busy machine as on an idle one; the moment, after
    `LimitsConfig.stall_factor` times the limit, is for files whose bytes do not come. Checked between packets, the moment also
    by FFmpeg itself whenever it reads. Where one call of FFmpeg never returns, only ending the process helps: the commands read
    files in processes that are ended in time (`ove.workers`).
    """

    def __init__(self, path: Path, limit_s: float) -> None:
        self._path, self._limit_s, self._wall_s = path, limit_s, limit_s * limits().stall_factor
        self._end_of_work, self._end = time.thread_time() + limit_s, time.monotonic() + self._wall_s

    def left_s(self) -> float:
        """Returns the seconds left by the clock, 0 or more."""
        return max(0.0, self._end - time.monotonic())

    def check(self, n_decoded: int) -> None:
        """Raises BadClip once the time limit is over."""
        if time.thread_time() > self._end_of_work:
            raise BadClip(
                f"{self._path}: not decoded within {self._limit_s:g} s of processor time ({n_decoded} frames were); "
                "raise video.time_limit_s or cut the video into pieces."
            )
        if time.monotonic() > self._end:
            raise BadClip(
                f"{self._path}: stalls: not read within {self._wall_s:g} s, with little processor time ({n_decoded} frames "
                "were); copy it to a faster disk, or raise video.time_limit_s."
            )


@contextmanager
def opened_video(path: Path, deadline: Deadline) -> Iterator[tuple[InputContainer, VideoStream]]:
    """Opens a container and the video stream that players would show, if both are accepted."""
    _check_file(path)
    left_s = deadline.left_s()
    kinds = {"protocol_whitelist": "file", "format_whitelist": ",".join(sorted(CONTAINERS | _TOLD_APART))}
    try:
        container = av.open(str(path.absolute()), container_options=kinds, timeout=(left_s, left_s))
    except (av.FFmpegError, OSError, ValueError) as error:
        deadline.check(0)
        reason = getattr(error, "strerror", None) or str(error)
        raise BadClip(
            f"{path}: not a video, or cut off within its header (FFmpeg: {reason}); get a whole copy, or give MP4, MKV, WebM, "
            "AVI, MPEG or similar."
        ) from error
    with container:
        yield container, _video_stream(path, container)


def _check_file(path: Path) -> None:
    """Raises BadClip unless the path is a file that could be a video."""
    check_input(path, "a video")
    try:
        with path.open("rb") as file:
            if told := kind_of_text(file.read(16)):
                raise BadClip(f"{path}: {told}.")
    except OSError as error:
        raise BadClip(f"{path}: cannot be read ({error.strerror}); check its permissions.") from error


def video_streams(container: InputContainer) -> list[VideoStream]:
    """Returns the video streams that are no cover art."""
    return [video for video in container.streams.video if not video.disposition & Disposition.attached_pic]


def _video_stream(path: Path, container: InputContainer) -> VideoStream:
    names = container.format.name.split(",")
    if names[0].endswith("_pipe") or names[0] in ("image2", "gif", "apng"):
        raise BadClip(f"{path}: is a still image or animation ({names[0].removesuffix('_pipe')}), not a video; leave it out.")
    if CONTAINERS.isdisjoint(names) and container.streams.video:
        raise BadClip(f"{path}: not a video (FFmpeg takes it for '{names[0]}'); give MP4, MKV, WebM, AVI, MPEG or similar.")
    videos = video_streams(container)
    if "mov" in names and is_photo(path) and all(video.frames <= 1 for video in videos):
        raise BadClip(f"{path}: is a still image (HEIC or AVIF), not a video; leave it out.")
    if not videos:
        others = ", ".join(sorted({s.type for s in container.streams})) or "nothing"
        raise BadClip(f"{path}: has no video stream (it holds {others}); leave it out.")
    best = container.streams.best("video")
    stream = next((video for video in videos if best is not None and video.index == best.index), videos[0])
    name = stream.codec.canonical_name if stream.codec_context is not None else "of an unknown kind"
    if name not in CODECS:
        raise BadClip(f"{path}: its video codec is {name}, which is not accepted; convert it to H.264.")
    if excess := limits().excess("max_frame_pixels", stream.width * stream.height, "pixels"):
        raise BadClip(f"{path}: its picture of {stream.width}×{stream.height} has {excess}; scale it down or raise the limit.")
    return stream
