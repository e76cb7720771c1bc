"""Files of every kind: frames and records of good ones, the reason of each bad one."""

import os
import re
from pathlib import Path

import av
import cv2
import numpy as np
import pytest
from video_files import P_ONLY, moving_texture

from ove.config import SelectionConfig, VideoConfig
from ove.errors import BadClip
from ove.video.decode import read_video
from ove.video.ends import missing_part
from ove.video.saliency import saliency
from ove.video.select import select

SMALL = VideoConfig(n_frames=16, size_px=56, selection=SelectionConfig(gop_frames=8))


def test_frames_are_those_of_the_file_in_display_order(write_video):
    frames = moving_texture(40, 128)
    path = write_video("v.mp4", frames, preset="medium", crf="10")
    clip, signals = read_video(path, SMALL)
    assert (clip.source, clip.codec, clip.n_decoded, clip.fps) == ("bitstream", "h264", 40, 25.0)
    np.testing.assert_array_equal(clip.frame_index, np.linspace(0, 39, 16).astype(int))
    np.testing.assert_allclose(clip.pts_s, clip.frame_index / 25, atol=1e-6)
    np.testing.assert_array_equal(np.flatnonzero(clip.is_i_frame), [0, 8])
    small = np.stack([cv2.resize(frame, (56, 56), interpolation=cv2.INTER_AREA) for frame in frames[clip.frame_index]])
    assert np.abs(clip.frames.astype(int) - small).mean() < 2
    assert signals.residual.shape == (16, 128, 128)
    assert signals.motion.shape == (16, 16, 16, 2)


@pytest.mark.parametrize("suffix", ["mkv", "avi", "ts", "mov", "h264"])
def test_containers_agree(write_video, suffix):
    frames = moving_texture(24, 96)
    # AVI keeps no order of display, so its muxer takes no B-frames. A fixed QP makes the streams the same.
    params = f"{P_ONLY}:qp=22" if suffix == "avi" else "bframes=2:b-adapt=0:qp=22"
    one, expected = read_video(write_video("v.mp4", frames, x264_params=params), SMALL)
    other, signals = read_video(write_video(f"v.{suffix}", frames, x264_params=params), SMALL)
    assert other.source == "bitstream"
    assert other.n_decoded == 24
    np.testing.assert_array_equal(other.frames, one.frames)
    np.testing.assert_array_equal(signals.residual, expected.residual)
    np.testing.assert_array_equal(signals.motion, expected.motion)
    if suffix not in ("avi", "h264"):
        np.testing.assert_allclose(np.diff(other.pts_s), np.diff(one.pts_s), atol=2e-3)


def test_short_video_repeats_frames(write_video):
    for codec in ("libx264", "mpeg4"):
        clip, signals = read_video(write_video(f"{codec}.mp4", moving_texture(5, 64), codec=codec), SMALL)
        assert clip.n_decoded == 5
        assert sorted(set(clip.frame_index.tolist())) == [0, 1, 2, 3, 4]
        assert len(clip.frames) == len(clip.pts_s) == len(signals.order) == 16
        assert len(signals.residual) == 5
        np.testing.assert_array_equal(signals.of_frames(np.arange(16)), clip.frame_index)


@pytest.mark.parametrize(
    ("codec", "name", "suffix"),
    [("flv", "flv1", "flv"), ("libvpx-vp9", "vp9", "webm"), ("mjpeg", "mjpeg", "avi"), ("libvpx", "vp8", "webm")],
)
def test_other_codecs_are_transcoded(write_video, codec, name, suffix):
    pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
    path = write_video(f"v.{suffix}", moving_texture(30, 96), codec=codec, pix_fmt=pix_fmt)
    clip, signals = read_video(path, SMALL)
    assert (clip.source, clip.codec, clip.n_decoded) == ("transcode", name, 30)
    assert signals.residual.shape == (16, 56, 56)
    assert not signals.has_vector[[0, 8]].any()
    assert signals.has_vector[1:8].mean() > 0.5
    pan = np.median(signals.motion[signals.has_vector], axis=0)
    assert -3 < pan[0] < -0.2  # about two frames of half a pixel, at a bit over half the size


def test_h264_of_interlaced_frames_is_read_from_the_bitstream(write_video):
    path = write_video("i.mp4", moving_texture(20, 96), x264_params="interlaced=1")
    assert read_video(path, SMALL)[0].source == "bitstream"


def test_real_videos(real_videos):
    for path in real_videos:
        clip, signals = read_video(path, VideoConfig())
        assert clip.frames.shape == (64, 224, 224, 3)
        assert clip.source == "bitstream"
        assert (np.diff(clip.pts_s) > 0).all()
        scores = saliency(signals, VideoConfig()).scores
        assert 0 <= scores.min() < scores.max() <= 1
        assert len(select(scores, clip.is_i_frame, 2048, "keep").flat) == 2048


def _write_audio(path, suffix_codec):
    with av.open(str(path), "w") as container:
        stream = container.add_stream(suffix_codec, rate=8000, layout="mono")
        frame = av.AudioFrame.from_ndarray(np.zeros((1, 1024), np.int16), format="s16", layout="mono")
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_every_bad_file_has_its_own_reason(tmp_path, write_video):
    def reason(path):
        with pytest.raises(BadClip) as caught:
            read_video(path, SMALL)
        assert str(path) in str(caught.value)
        return str(caught.value)

    assert "no such file" in reason(tmp_path / "missing.mp4")
    assert "is a folder" in reason(tmp_path)
    for name, content, expected in (
        ("empty.mp4", b"", "is empty"),
        ("notes.txt", b"A text file.\n" * 400, "not a video"),
        ("text.mp4", b"A text file.\n" * 400, "not a video"),
        ("noise.mp4", np.random.default_rng(0).bytes(20000), "(FFmpeg: Invalid data found when processing input);"),
    ):
        (tmp_path / name).write_bytes(content)
        assert expected in reason(tmp_path / name)
    for name in ("still.png", "still.jpg"):
        cv2.imwrite(str(tmp_path / name), np.zeros((32, 32, 3), np.uint8))
        assert "still image" in reason(tmp_path / name)
    for name, codec in (("sound.wav", "pcm_s16le"), ("sound.m4a", "aac")):
        _write_audio(tmp_path / name, codec)
        assert "has no video stream (it holds audio)" in reason(tmp_path / name)
    assert "still image" in reason(write_video("anim.gif", moving_texture(3, 32), codec="gif", pix_fmt="rgb8"))


def test_truncated_files_tell_how_many_frames_decode(tmp_path, write_video):
    whole = write_video("w.mp4", moving_texture(60, 128), container_options={"movflags": "faststart"}, crf="10")
    data = whole.read_bytes()
    cut = tmp_path / "cut.mp4"
    with av.open(str(whole)) as container:
        boundary = container.streams.video[0].index_entries[30].pos
    for end, found in ((boundary, "the file ends early"), (boundary + 5, "a packet is cut short")):
        cut.write_bytes(data[:end])
        with pytest.raises(BadClip, match=rf"truncated or damaged: 30 frames decode \({found}; 60 frames announced\)"):
            read_video(cut, SMALL)
    moov_last = write_video("m.mp4", moving_texture(20, 64)).read_bytes()
    cut.write_bytes(moov_last[: len(moov_last) // 2])
    with pytest.raises(BadClip, match="not a video, or cut off within its header"):
        read_video(cut, SMALL)


@pytest.mark.parametrize(("suffix", "codec"), [("mkv", "libx264"), ("webm", "libvpx"), ("flv", "libx264"), ("avi", "mpeg4")])
def test_truncation_shows_in_other_containers(tmp_path, write_video, suffix, codec):
    data = write_video(f"w.{suffix}", moving_texture(60, 192), codec=codec, g="20").read_bytes()
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(data[: len(data) * 6 // 10])
    with pytest.raises(BadClip, match=r"damaged: \d+ frames decode"):
        read_video(cut, SMALL)


def test_damaged_bytes_are_refused_or_decoded_never_a_crash(tmp_path, write_video):
    data = bytearray(write_video("d.mp4", moving_texture(30, 96), crf="20").read_bytes())
    rng = np.random.default_rng(5)
    for number in range(12):
        copy = bytearray(data)
        for at in rng.integers(0, len(copy), 30):
            copy[at] ^= 1 << rng.integers(0, 8)
        path = tmp_path / f"{number}.mp4"
        path.write_bytes(copy)
        try:
            clip, _ = read_video(path, SMALL)
        except BadClip as error:
            assert path.name in str(error)
        else:
            assert len(clip.frames) == 16


def test_a_change_of_size_is_refused(tmp_path, write_video):
    parts = [write_video(f"{side}.h264", moving_texture(10, side)).read_bytes() for side in (96, 64)]
    (tmp_path / "both.h264").write_bytes(b"".join(parts))
    with pytest.raises(BadClip, match="changes from 96×96 to 64×64 pixels after 10 frames"):
        read_video(tmp_path / "both.h264", SMALL)


def test_the_time_limit_holds(write_video):
    path = write_video("v.mp4", moving_texture(30, 64))
    with pytest.raises(BadClip, match="not decoded within 0 s"):
        read_video(path, VideoConfig(time_limit_s=0.0))


def test_rotation_turns_pixels_and_vectors_alike(tmp_path, write_video):
    frames = moving_texture(16, 128, 96)
    plain = write_video("plain.mp4", frames, preset="medium", crf="14", x264_params=P_ONLY)
    # The matrix of the track header, [0 1 0; −1 0 0; …] in 16.16 fixed point, in place of the identity.
    data = plain.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    matrix = np.array([0, 65536, 0, -65536, 0, 0, 0, 0, 1 << 30], ">i4").tobytes()
    turned = tmp_path / "turned.mp4"
    turned.write_bytes(data[:at] + matrix + data[at + len(matrix) :])
    config = VideoConfig(n_frames=16, size_px=56)
    (clip, signals), (other, rotated) = read_video(plain, config), read_video(turned, config)
    assert signals.residual.shape == (16, 96, 128)
    assert rotated.residual.shape == (16, 128, 96)
    np.testing.assert_array_equal(other.frames, np.rot90(clip.frames, -1, axes=(1, 2)))  # a quarter clockwise
    np.testing.assert_array_equal(rotated.residual, np.rot90(signals.residual, -1, axes=(1, 2)))
    # What went left (the pan) goes up.
    pan, turned_pan = (np.median(s.motion[s.has_vector], axis=0) for s in (signals, rotated))
    np.testing.assert_allclose(turned_pan, [-pan[1], pan[0]])
    assert pan[0] < -0.2


@pytest.mark.parametrize(
    ("suffix", "codec"), [("mp4", "libx264"), ("mkv", "libx264"), ("avi", "mpeg4"), ("webm", "libvpx"), ("flv", "libx264")]
)
def test_what_decodes_of_a_truncated_file_is_kept_if_asked_for(tmp_path, write_video, suffix, codec):
    options = {"container_options": {"movflags": "faststart"}} if suffix == "mp4" else {}
    whole = write_video(f"whole.{suffix}", moving_texture(60, 128), codec=codec, **options)
    cut = tmp_path / f"cut.{suffix}"
    data = whole.read_bytes()
    cut.write_bytes(data[: len(data) * 5 // 6])
    keep = VideoConfig(n_frames=16, size_px=56, selection=SelectionConfig(gop_frames=8), truncated="keep")
    clip, signals = read_video(cut, keep)
    assert 8 < clip.n_decoded < 60
    assert "early" in clip.cut or "cut short" in clip.cut or "damaged" in clip.cut
    assert clip.frame_index[-1] == clip.n_decoded - 1
    assert clip.frames.shape == (16, 56, 56, 3)
    assert len(signals.residual) == 16
    # What was kept is what the whole file holds there.
    reference, _ = read_video(whole, VideoConfig(n_frames=60, size_px=56, selection=SelectionConfig(gop_frames=8)))
    np.testing.assert_array_equal(clip.frames[:-1], reference.frames[clip.frame_index[:-1]])
    assert read_video(whole, keep)[0].cut == ""
    with pytest.raises(BadClip, match=rf"cut.{suffix}: "):
        read_video(cut, SMALL)


def test_pipes_and_devices_are_refused_without_opening_them(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    for path in (tmp_path / "pipe.mp4", Path("/dev/zero")):
        with pytest.raises(BadClip, match="is not a regular file"):
            read_video(path, SMALL)


def test_a_playlist_opens_no_other_file(tmp_path, write_video):
    video = write_video("v.ts", moving_texture(10, 64))
    playlist = tmp_path / "list.m3u8"
    playlist.write_text(f"#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n{video}\n#EXT-X-ENDLIST\n")
    (tmp_path / "list.txt").write_text(f"ffconcat version 1.0\nfile {video.name}\n")
    for name in ("list.m3u8", "list.txt"):
        with pytest.raises(BadClip, match=r"FFmpeg: Invalid argument|is a playlist, which names other files"):
            read_video(tmp_path / name, SMALL)


def test_pictures_of_absurd_size_are_refused(tmp_path, write_video, monkeypatch):
    monkeypatch.setenv("OVE_MAX_FRAME_PIXELS", str(96 * 96 - 1))
    with pytest.raises(BadClip, match="96×96 has 9,216 pixels, more than OVE_MAX_FRAME_PIXELS = 9,215 allows"):
        read_video(write_video("large.mp4", moving_texture(4, 96)), SMALL)


@pytest.mark.parametrize("suffix", ["webm", "ogv"])
def test_holes_in_the_middle_show_in_webm_and_ogg(tmp_path, write_video, suffix):
    """FFmpeg goes on behind them without a word."""
    whole = write_video(f"w.{suffix}", moving_texture(60, 192), codec="libvpx", g="20")
    clip, _ = read_video(whole, SMALL)
    assert clip.n_decoded == 60
    data, cut = bytearray(whole.read_bytes()), tmp_path / f"cut.{suffix}"
    at = data.rindex(b"OggS", 0, len(data) // 2) if suffix == "ogv" else data.index(b"\xa3", len(data) // 2) + 1
    for hole, told in (
        (slice(at, at + 5000), "overwritten|damaged|ends early|missing"),
        (slice(len(data) * 95 // 100, None), "ends early"),
    ):
        broken = data.copy()
        broken[hole] = bytes(5000) if hole.stop else b""
        cut.write_bytes(broken)
        with pytest.raises(BadClip, match=rf"damaged: \d+ frames decode.*({told})"):
            read_video(cut, SMALL)


def test_every_page_of_an_ogg_file_counts(tmp_path, write_video):
    data = write_video("w.ogv", moving_texture(60, 192), codec="libvpx", g="20").read_bytes()
    starts = [found.start() for found in re.finditer(b"OggS", data)] + [len(data)]
    assert len(starts) > 6
    path = tmp_path / "cut.ogv"
    for number in range(len(starts) - 1):
        path.write_bytes(data[: starts[number]] + data[starts[number + 1] :])
        assert (missing_part(path) != "") == (number > 0), "nothing tells that the first page was there"
        flipped = bytearray(data)
        flipped[starts[number + 1] - 1] ^= 1
        path.write_bytes(flipped)
        assert missing_part(path) == "a page of it is damaged"
        if number:
            path.write_bytes(data[: starts[number]])
            assert missing_part(path) == "the file ends early"
    path.write_bytes(data + b"TAG" * 40)
    assert missing_part(path) == ""
    path.write_bytes(data + data)
    assert missing_part(path) == "", "joined files begin to count anew"
