"""A span of a video is what the same stretch of the whole video is, and only what it needs is decoded."""

from pathlib import Path

import numpy as np
import pytest
from video_files import WriteVideo, grainy, moving_texture, write_file

from ove.config import VideoConfig
from ove.errors import BadClip, ConfigError
from ove.video import demux
from ove.video.decode import read_video
from ove.video.span import VideoSpan

EVERY = VideoConfig(n_frames=50, size_px=56)
FRAMES = grainy(moving_texture(50, 96))
KINDS = [
    ("a.mp4", "libx264", {"x264_params": "keyint=12:bframes=2"}),
    ("a.mkv", "libx264", {"x264_params": "keyint=12:open-gop=1:bframes=2"}),
    ("a.avi", "libx264", {"x264_params": "keyint=12:open-gop=1:bframes=2"}),
    ("b.avi", "libx264", {"x264_params": "keyint=12:bframes=2"}),
    ("a.ts", "libx264", {"x264_params": "keyint=12"}),
    ("a.mp4", "libx265", {"x265_params": "keyint=12:log-level=none"}),
    ("a.mpg", "mpeg2video", {"g": "12"}),
    ("a.webm", "libvpx-vp9", {"g": "12", "deadline": "realtime"}),
]


@pytest.fixture(scope="module", params=KINDS, ids=lambda kind: f"{kind[1]}.{kind[0]}")
def path(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Path:
    name, codec, options = request.param
    return write_file(tmp_path_factory.mktemp("span") / name, FRAMES, codec, **options)


@pytest.mark.parametrize("seconds", [(0.0, 0.4), (0.71, 1.35), (1.0, 1.04), (1.5, 100.0)])
def test_span_is_that_stretch_of_the_whole(path: Path, seconds: tuple[float, float]) -> None:
    clip, signals = read_video(path, EVERY)
    assert clip.n_decoded == 50
    times = clip.pts_s - clip.pts_s[0]
    inside = np.flatnonzero((times >= seconds[0] - 1e-6) & (times < seconds[1] - 1e-6))
    config = VideoConfig(n_frames=len(inside), size_px=56)
    part, found = read_video(path, config, VideoSpan(*seconds))
    assert part.n_decoded == len(inside)
    np.testing.assert_array_equal(part.frame_index, np.arange(len(inside)))
    np.testing.assert_array_equal(part.frames, clip.frames[inside])
    np.testing.assert_allclose(part.pts_s, clip.pts_s[inside])
    if clip.source == "bitstream":
        np.testing.assert_array_equal(found.motion, signals.motion[inside])
        np.testing.assert_array_equal(found.residual, signals.residual[inside])


def test_frames_far_from_the_span_are_not_decoded(write_video: WriteVideo, monkeypatch: pytest.MonkeyPatch) -> None:
    path = write_video("a.mp4", FRAMES, x264_params="keyint=10:bframes=0")
    passed = []
    decoded_frames = demux.decoded_frames

    def counted(*arguments, **options):
        for decoded in decoded_frames(*arguments, **options):
            passed.append(decoded.is_before)
            yield decoded

    monkeypatch.setattr("ove.video.decode.decoded_frames", counted)
    read_video(path, VideoConfig(n_frames=5, size_px=56), VideoSpan(1.0, 1.2))  # frames 25 … 29, the key frame before is 20
    assert passed == [True] * 5 + [False] * 5


@pytest.mark.parametrize("sampling", ["energy", "pool", "consecutive"])
def test_every_sampling_takes_a_span(write_video: WriteVideo, sampling: str) -> None:
    path = write_video("a.mp4", FRAMES, x264_params="keyint=10:bframes=0")
    clip, _ = read_video(path, VideoConfig(n_frames=4, size_px=56, sampling=sampling), VideoSpan(0.6, 1.6))
    times = clip.pts_s
    assert clip.n_decoded == 25 and (times >= 0.6 - 1e-6).all() and (times < 1.6).all()


def test_a_span_that_holds_nothing_is_refused(write_video: WriteVideo) -> None:
    path = write_video("a.mp4", FRAMES)
    with pytest.raises(BadClip, match=r"no frame from 2\.5 s to 3 s"):
        read_video(path, EVERY, VideoSpan(2.5, 3.0))
    for start, end in ((-1.0, 2.0), (2.0, 2.0), (3.0, 1.0), (float("nan"), 1.0), (0.0, float("inf"))):
        with pytest.raises(ConfigError, match="start < end"):
            VideoSpan(start, end)


def test_streams_without_timestamps_have_no_spans(write_video: WriteVideo) -> None:
    path = write_video("a.h264", FRAMES)
    with pytest.raises(BadClip, match="has no timestamps"):
        read_video(path, EVERY, VideoSpan(0.5, 1.0))


def test_a_file_cut_off_after_the_span_is_good_enough(write_video: WriteVideo) -> None:
    path = write_video("a.ts", FRAMES, x264_params="keyint=10:bframes=0")
    whole, _ = read_video(path, VideoConfig(n_frames=10, size_px=56), VideoSpan(0.0, 0.4))
    path.write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4 + 31])
    part, _ = read_video(path, VideoConfig(n_frames=10, size_px=56), VideoSpan(0.0, 0.4))
    np.testing.assert_array_equal(part.frames, whole.frames)
