"""`ove.read`: any kind of source, the same patches; pixels and positions compared with the frames themselves."""

import http.server
import io
import threading
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from small_clips import BUDGET, SIZE_PX

import ove
from ove.config import VideoConfig
from ove.errors import BadClip, BadInput, ConfigError, Unavailable
from ove.sources.images import read_image
from ove.tokens.read import InputConfig, read_tokens
from ove.video.decode import read_video

read = partial(ove.read, size=SIZE_PX, budget=BUDGET)
SIDE = SIZE_PX // 14


@pytest.fixture(scope="module")
def clip(videos: list[Path]) -> ove.EncoderInput:
    return read(videos[0])


@pytest.fixture
def address(videos: list[Path]) -> Iterator[str]:
    """Of a server that has the videos."""
    handler = partial(http.server.SimpleHTTPRequestHandler, directory=str(videos[0].parents[1]))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def test_patches_are_the_pixels_at_their_positions(clip: ove.EncoderInput) -> None:
    assert clip.patches.shape == (BUDGET, 588) and clip.frames.shape == (64, SIZE_PX, SIZE_PX, 3)
    for patch, (t, y, x) in zip(clip.patches, clip.positions, strict=True):
        pixels = clip.frames[t, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14]
        np.testing.assert_array_equal(patch, pixels.ravel())


def test_two_frames_are_whole_and_the_rest_are_the_most_surprising_patches(clip: ove.EncoderInput) -> None:
    assert clip.saliency is not None and clip.saliency.shape == (64, SIDE, SIDE)
    kept = np.zeros(clip.saliency.shape, bool)
    kept[tuple(clip.positions.T)] = True
    assert kept[0].all() and kept[32].all()
    others = np.delete(np.arange(64), [0, 32])
    lowest_kept, highest_left = clip.saliency[others][kept[others]].min(), clip.saliency[others][~kept[others]].max()
    assert kept.sum() == BUDGET and lowest_kept >= highest_left


@pytest.mark.parametrize(
    "source",
    [str, Path.read_bytes, lambda path: io.BytesIO(path.read_bytes()), lambda path: memoryview(path.read_bytes()), Path.open],
    ids=["str", "bytes", "file object", "memoryview", "text file"],
)
def test_all_sources_of_a_video_give_the_same(
    videos: list[Path], clip: ove.EncoderInput, source: Callable[[Path], Any]
) -> None:
    given = source(videos[0])
    if isinstance(given, io.TextIOBase):
        with given, pytest.raises(BadInput, match="opened as text; open it with mode 'rb'"):
            read(given)
        return
    same = read(given)
    np.testing.assert_array_equal(same.patches, clip.patches)
    np.testing.assert_array_equal(same.positions, clip.positions)


def test_a_video_is_read_from_a_url(videos: list[Path], clip: ove.EncoderInput, address: str) -> None:
    url = f"{address}/{videos[0].parent.name}/{videos[0].name}"
    same = read(url)
    np.testing.assert_array_equal(same.patches, clip.patches)
    assert same.name == url
    with pytest.raises(Unavailable, match="is not there; check the address"):
        read(f"{address}/other.mp4")


def test_pictures_are_recognised_by_their_contents(tmp_path: Path) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (28, 42, 3), np.uint8)
    path = tmp_path / "picture.mp4"
    path.write_bytes(cv2.imencode(".png", picture[:, :, ::-1])[1].tobytes())
    seen = ove.read(path)
    assert seen.mode == "image" and seen.saliency is None
    np.testing.assert_array_equal(seen.frames, picture[None])
    assert seen.positions.tolist() == [[0, y, x] for y in range(2) for x in range(3)]
    np.testing.assert_array_equal(ove.read(picture).patches, seen.patches)
    assert len(ove.read(path, size=28)) == 4


def test_frames_of_an_array_stand_where_their_times_are() -> None:
    frames = np.random.default_rng(0).integers(0, 256, (9, 28, 28, 3), np.uint8)
    seen = ove.read(frames, size=28, frames=3)
    np.testing.assert_array_equal(seen.frames, frames[[0, 4, 8]])
    assert seen.mode == "frames" and seen.positions[::4, 0].tolist() == [0, 32, 63]


@pytest.mark.parametrize(
    ("source", "options", "error", "said"),
    [
        (np.zeros((4, 4, 3), np.float32), {}, BadInput, r"pixels are of type float32; give uint8, 0 to 255 \(floats of 0 to 1"),
        (np.zeros((3, 28, 28), np.uint8), {}, BadInput, r"shape \(3, 28, 28\) are no RGB picture .* channels last"),
        (np.zeros((28, 28, 3), np.uint8), {"mode": "codec"}, ConfigError, "read in mode image; codec needs a video file"),
        (7, {}, BadInput, "an object of type int cannot be read as a file; give a path"),
        (b"no video", {}, BadClip, "^<bytes>: not a video"),
        ("missing.mp4", {}, BadClip, "missing.mp4: no such file"),
        ("x.mp4", {"mode": "best"}, ConfigError, "mode = 'best' is none of auto, codec, frames, image"),
    ],
)
def test_what_cannot_be_read_is_named(source: Any, options: dict[str, Any], error: type[Exception], said: str) -> None:
    with pytest.raises(error, match=said):
        ove.read(source, **options)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"fusion": "best"}, "^fusion = 'best' is none of"),
        ({"size": 85}, "85 is not a multiple of"),
        ({"colour": 1}, "colour"),
    ],
)
def test_settings_that_do_not_exist_are_refused(videos: list[Path], options: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError, match=said):
        ove.read(videos[0], **options)


def test_home_is_expanded(videos: list[Path], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(videos[0].parent))
    assert len(read(f"~/{videos[0].name}")) == BUDGET


def test_what_is_seen_is_drawn(clip: ove.EncoderInput, tmp_path: Path) -> None:
    picture = clip.show(tmp_path / "seen.png")
    written = cv2.imread(str(tmp_path / "seen.png"))
    assert written is not None and written.shape[1::-1] == picture.size
    frames = ove.read(clip.frames[:3], size=SIZE_PX).show()
    assert frames.size == (3 * SIZE_PX, SIZE_PX)


def test_the_rooms_take_strings_too(videos: list[Path], tmp_path: Path) -> None:
    clip, _ = read_video(str(videos[0]), VideoConfig(size_px=SIZE_PX))
    np.testing.assert_array_equal(clip.frames, read(videos[0]).frames)
    picture = np.full((14, 14, 3), 7, np.uint8)
    cv2.imwrite(str(tmp_path / "a.png"), picture)
    np.testing.assert_array_equal(read_image(str(tmp_path / "a.png")), picture)
    assert len(read_tokens(str(tmp_path / "a.png"), InputConfig("image")).patches) == 1


def test_a_kind_of_picture_that_cannot_be_written_is_refused(clip: ove.EncoderInput, tmp_path: Path) -> None:
    clip.show(tmp_path / "new" / "seen.png")
    with pytest.raises(ConfigError, match=r"seen\.xyz: is of no kind of picture"):
        clip.show(tmp_path / "seen.xyz")
    with pytest.raises(ConfigError, match=r"s3://bucket/seen\.png: results are written on this machine only"):
        clip.show("s3://bucket/seen.png")
