"""Files as cameras, recorders and editors write them: the frames, and the times, are those that were put in."""

import enum
import logging
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import av
import av.sidedata.sidedata
import numpy as np
import pytest
from PIL import Image

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.video.decode import read_video
from ove.video.geometry import Orientation, orientation_of
from ove.video.packets import without_padding
from ove.video.span import VideoSpan
from ove.video.times import decoded_after

SMALL = VideoConfig(n_frames=64, size_px=28)
LEVELS = 4
"""Gray levels between the pictures of two frames, more than an encoder takes away."""


def numbered(n_frames: int) -> np.ndarray:
    """Pictures whose two halves tell their number: gray levels of n mod 50 and of n div 50."""
    number = np.arange(n_frames)
    pictures = np.empty((n_frames, 64, 64, 3), np.uint8)
    pictures[:, :, :32] = (20 + LEVELS * (number % 50))[:, None, None, None]
    pictures[:, :, 32:] = (20 + LEVELS * (number // 50))[:, None, None, None]
    return pictures


def numbers_in(frames: np.ndarray) -> list[int]:
    """The numbers that pictures tell."""
    low, high = (np.rint((frames[:, :, side].mean(axis=(1, 2, 3)) - 20) / LEVELS) for side in (slice(0, 12), slice(16, 28)))
    return (low + 50 * high).astype(int).tolist()


def write_numbered(path: Path, n_frames: int, codec: str = "libx264", rate: int = 25, **options: str) -> Path:
    """A file of numbered pictures, 1 / 25 s apart, in a time base of 1 / rate."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.options = {"crf": "10", **options} if codec == "libx264" else options
        for number, picture in enumerate(numbered(n_frames)):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts, frame.time_base = number * rate // 25, Fraction(1, rate)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def test_an_avi_with_empty_chunks_is_whole(tmp_path: Path) -> None:
    """Every second chunk is empty: its header counts 60 frames, of which 30 are pictures."""
    path = write_numbered(tmp_path / "empty.avi", 30, rate=50, bf="0")
    with av.open(str(path)) as container:
        assert container.streams.video[0].frames in (59, 60)
    clip, _ = read_video(path, SMALL)
    assert clip.n_decoded == 30 and set(numbers_in(clip.frames)) == set(range(30))
    np.testing.assert_allclose(clip.pts_s, clip.frame_index / 25, atol=1e-9)


@pytest.mark.parametrize("share", [0.8, 0.9, 0.99])
def test_an_avi_that_ends_early_is_refused(tmp_path: Path, share: float) -> None:
    path = write_numbered(tmp_path / "cut.avi", 30, rate=50, bf="0")
    data = path.read_bytes()
    path.write_bytes(data[: int(share * len(data))])
    with pytest.raises(BadClip, match="ends early"):
        read_video(path, SMALL)


@pytest.mark.parametrize("codec", ["libx264", "mpeg4"])
@pytest.mark.parametrize("start_s, end_s", [(0.0, 1.0), (2.0, 4.0), (4.4, 5.2), (5.0, 6.0)])
def test_frames_of_an_avi_with_b_frames_have_their_own_times(tmp_path: Path, codec: str, start_s: float, end_s: float) -> None:
    options = {"bf": "2", "g": "30"} | (
        {"x264-params": "b-adapt=0:open-gop=1:keyint=30"} if codec == "libx264" else {"b": "20000000", "qmax": "2"}
    )
    path = write_numbered(tmp_path / "b.avi", 150, codec, **options)
    with av.open(str(path)) as container, av.open(str(write_numbered(tmp_path / "b.mp4", 9))) as other:
        assert (decoded_after(container.streams.video[0]), decoded_after(other.streams.video[0])) == (16, 0)
    clip, _ = read_video(path, SMALL)
    assert clip.n_decoded == 150 and numbers_in(clip.frames) == clip.frame_index.tolist()
    np.testing.assert_allclose(clip.pts_s, clip.frame_index / 25, atol=1e-9)
    clip, _ = read_video(path, SMALL, VideoSpan(start_s, end_s))
    assert sorted(set(numbers_in(clip.frames))) == list(range(round(start_s * 25), round(end_s * 25)))


@pytest.mark.parametrize("sampling", ["energy", "uniform"])
def test_an_avi_gives_what_the_same_stream_gives_in_an_mp4(tmp_path: Path, sampling: str) -> None:
    path, avi = (write_numbered(tmp_path / f"b.{suffix}", 150, bf="3", preset="veryslow") for suffix in ("mp4", "avi"))
    config = VideoConfig(n_frames=16, size_px=28, sampling=sampling)
    (expected, signals), (found, of_avi) = read_video(path, config), read_video(avi, config)
    np.testing.assert_array_equal(found.frame_index, expected.frame_index)
    np.testing.assert_array_equal(found.frames, expected.frames)
    np.testing.assert_array_equal(of_avi.residual, signals.residual)
    np.testing.assert_allclose(found.pts_s, expected.pts_s, atol=1e-9)


@pytest.mark.parametrize("start_s, end_s", [(7.48, 9.52), (2.0, 4.0), (0.0, 1.0)])
def test_a_span_of_a_stream_with_intra_refresh_has_its_first_frames(tmp_path: Path, start_s: float, end_s: float) -> None:
    path = write_numbered(tmp_path / "refresh.mp4", 300, **{"x264-params": "intra-refresh=1:keyint=60"})
    clip, _ = read_video(path, SMALL, VideoSpan(start_s, end_s))
    assert sorted(set(numbers_in(clip.frames))) == list(range(round(start_s * 25), round(end_s * 25)))


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
def test_the_stream_that_players_show_is_read(tmp_path: Path, caplog: pytest.LogCaptureFixture, suffix: str) -> None:
    """A track of thumbnails comes first, the video is the default."""
    path = tmp_path / f"two.{suffix}"
    with av.open(str(path), "w") as container:
        thumbnails, video = container.add_stream("mjpeg", rate=1), container.add_stream("libx264", rate=25)
        thumbnails.pix_fmt, video.pix_fmt = "yuvj420p", "yuv420p"
        thumbnails.width = thumbnails.height = 32
        video.width = video.height = 64
        thumbnails.disposition, video.disposition = av.stream.Disposition(0), av.stream.Disposition.default
        for number, picture in enumerate(numbered(50)):
            if number % 25 == 0:
                container.mux(thumbnails.encode(av.VideoFrame.from_ndarray(picture[:32, :32], format="rgb24")))
            container.mux(video.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        for stream in (thumbnails, video):
            container.mux(stream.encode(None))
    with caplog.at_level(logging.INFO, "ove"):
        clip, signals = read_video(path, SMALL)
    assert (clip.codec, clip.n_decoded, signals.residual.shape[1:]) == ("h264", 50, (64, 64))
    assert "of 2 video streams number 1 is read" in caplog.text


def padded(packet: bytes, size: int) -> bytes:
    """A temporal unit of AV1 with a padding unit behind it: header, size in LEB128, zeros, trailing bit."""
    return packet + bytes([15 << 3 | 2, size & 127 | 128, size >> 7]) + bytes(size - 1) + b"\x80"


def test_padding_of_av1_is_no_damage(tmp_path: Path) -> None:
    """As encoders of constant bit rate write it; zeros elsewhere are damage still."""

    def write(name: str, change: Callable[[bytes], bytes]) -> Path:
        with av.open(str(tmp_path / name), "w", format="ivf") as container:
            stream = container.add_stream("libsvtav1", rate=25)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            stream.options = {"preset": "12"}
            for frame in [*(av.VideoFrame.from_ndarray(picture, format="rgb24") for picture in numbered(10)), None]:
                for packet in stream.encode(frame):
                    changed = av.Packet(change(bytes(packet)))
                    changed.stream, changed.pts, changed.dts = stream, packet.pts, packet.dts
                    changed.time_base, changed.is_keyframe = packet.time_base, packet.is_keyframe
                    container.mux(changed)
        return tmp_path / name

    plain = read_video(write("plain.ivf", lambda packet: packet), SMALL)[0]
    clip = read_video(write("padded.ivf", lambda packet: padded(packet, 200)), SMALL)[0]
    assert clip.n_decoded == plain.n_decoded == 10
    np.testing.assert_array_equal(clip.frames, plain.frames)
    with pytest.raises(BadClip, match="overwritten with zeros"):
        read_video(write("wiped.ivf", lambda packet: packet[:-3] + bytes(200)), SMALL)
    with av.open(str(tmp_path / "padded.ivf")) as container, av.open(str(tmp_path / "plain.ivf")) as other:
        packets = [[bytes(packet) for packet in each.demux(video=0) if packet.size] for each in (container, other)]
        assert [without_padding(container.streams.video[0], packet) for packet in packets[0]] == packets[1]


@pytest.mark.parametrize("brand", [b"avif", b"heic", b"mif1"])
def test_photos_in_the_container_of_mp4_are_no_videos(tmp_path: Path, brand: bytes) -> None:
    path = tmp_path / "photo.mp4"
    Image.fromarray(numbered(9)[8]).save(path, "AVIF")
    data = path.read_bytes()
    assert data[4:12] == b"ftypavif"
    path.write_bytes(data[:8] + brand + data[12:])
    with pytest.raises(BadClip, match=r"is a still image \(HEIC or AVIF\), not a video"):
        read_video(path, SMALL)


class _Unnamed(enum.Enum):
    """PyAV's table of side data without the kinds that a file has."""

    OTHER = -1


def test_unknown_side_data_does_not_make_a_turned_video_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of spatial videos FFmpeg passes on side data for which PyAV has no name; the turn is known without it."""
    path = write_numbered(tmp_path / "turned.mp4", 8)
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40  # the matrix of the track header, version 0
    for turn, matrix in {0: (1, 0, 0, 1), 90: (0, 1, -1, 0), 180: (-1, 0, 0, -1), 270: (0, -1, 1, 0)}.items():
        a, b, c, d = (value << 16 for value in matrix)
        fixed = np.array([a, b, 0, c, d, 0, 0, 0, 1 << 30], ">i4").tobytes()
        path.write_bytes(data[:at] + fixed + data[at + 36 :])
        with av.open(str(path)) as container:
            frame = next(container.decode(video=0))
        with monkeypatch.context() as context:
            context.setattr(av.sidedata.sidedata, "Type", _Unnamed)
            found = orientation_of(frame)
        assert found == orientation_of(frame) == Orientation(-turn // 90 % 4), turn
