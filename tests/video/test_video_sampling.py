"""Which frames are sampled, and what is gathered of those in between."""

import itertools
from fractions import Fraction

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from hypothesis import given
from hypothesis import strategies as st
from video_files import moving_texture

from ove.config import VideoConfig
from ove.errors import BadClip, ConfigError
from ove.records import CodecSignals
from ove.video.decode import read_video
from ove.video.motion import remove_camera
from ove.video.packets import PacketTable, news, picture_kind
from ove.video.pooling import SignalPool
from ove.video.sampling import sample_indices
from ove.video.transcode import transcoded_signals


@given(st.integers(1, 500), st.integers(1, 80), st.sampled_from(["uniform", "consecutive", "energy", "pool"]))
def test_samples_are_ascending_and_inside(n_decoded, n_frames, sampling):
    energies = np.random.default_rng(n_decoded).normal(size=n_decoded)
    indices = sample_indices(n_decoded, n_frames, sampling, energies)
    assert len(indices) == n_frames
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0
    assert indices[-1] <= n_decoded - 1
    if n_decoded >= n_frames:
        assert len(set(indices.tolist())) == n_frames


def test_sampling_formulas():
    for name in ("uniform", "pool"):
        np.testing.assert_array_equal(sample_indices(300, 64, name), [int(v) for v in np.linspace(0, 299, 64)])
    np.testing.assert_array_equal(sample_indices(5, 8, "consecutive"), [0, 0, 1, 1, 2, 2, 3, 4])
    np.testing.assert_array_equal(sample_indices(10, 4, "consecutive"), [3, 4, 5, 6])
    with pytest.raises(BadClip, match="0 frames"):
        sample_indices(0, 64, "uniform")
    with pytest.raises(ConfigError, match="'unifrom' is none of 'uniform', 'consecutive', 'energy', 'pool', nor of the form"):
        sample_indices(10, 4, "unifrom")
    for energies in (None, np.zeros(9)):
        with pytest.raises(ConfigError, match=r"video\.sampling = 'energy' needs an energy of each frame"):
            sample_indices(10, 4, "energy", energies)


@given(st.integers(1, 12), st.integers(0, 50), st.integers(0, 2**32 - 1))
def test_energy_takes_the_best_of_each_interval_and_the_first_of_equals(n_frames, more, seed):
    n_decoded = n_frames + more
    energies = np.random.default_rng(seed).integers(0, 4, n_decoded).astype(np.float64)
    indices = sample_indices(n_decoded, n_frames, "energy", energies)
    for i, index in enumerate(indices):
        interval = range(i * n_decoded // n_frames, (i + 1) * n_decoded // n_frames)
        best = max(energies[j] for j in interval)
        assert index == next(j for j in interval if energies[j] == best)


def table_of(path):
    table = PacketTable()
    with av.open(str(path)) as container:
        for packet in container.demux(video=0):
            if packet.size:
                table.add(packet)
    return table


def with_flash(n_frames, at, side=96):
    """A slow pan in which one frame shows something else in its middle."""
    frames = moving_texture(n_frames, side)
    patch = np.random.default_rng(1).integers(0, 256, (side // 8, side // 8, 3), dtype=np.uint8)
    frames[at, side // 4 : side // 2, side // 4 : side // 2] = patch.repeat(2, 0).repeat(2, 1)
    return frames


CODECS = {
    "no_b.mp4": ("libx264", {"x264_params": "bframes=0:scenecut=0"}),
    "b.mp4": ("libx264", {"x264_params": "bframes=3:b-adapt=0:scenecut=0"}),
    "b_short_gop.mkv": ("libx264", {"x264_params": "bframes=2:keyint=12:scenecut=0"}),
    "b.ts": ("libx264", {"x264_params": "bframes=3:b-adapt=0:scenecut=0"}),
    "part2.mp4": ("mpeg4", {"bf": "2", "g": "15"}),
    "two.mpg": ("mpeg2video", {"bf": "2", "g": "15"}),
    "nine.webm": ("libvpx-vp9", {}),
    "raw.h264": ("libx264", {"x264_params": "bframes=0:scenecut=0"}),
}


@pytest.mark.parametrize("name", CODECS)
def test_energy_finds_a_flash_between_uniform_samples(write_video, name):
    codec, options = CODECS[name]
    at = 31
    path = write_video(name, with_flash(60, at), codec=codec, **options)
    config = VideoConfig(n_frames=5, size_px=56, sampling="energy", source="transcode")
    assert at not in sample_indices(60, 5, "uniform")
    clip, _ = read_video(path, config)
    # A B-frame may show the flash, or the frame after it that has to undo it brings as much news.
    assert clip.frame_index[2] in ((at, at + 1) if name == "nine.webm" else (at,)), clip.frame_index
    assert clip.n_decoded == 60


@pytest.mark.parametrize("name", ["b.mp4", "b_short_gop.mkv", "part2.mp4", "two.mpg"])
def test_packets_are_put_in_display_order_and_told_apart_by_kind(write_video, name):
    codec, options = CODECS[name]
    table = table_of(write_video(name, moving_texture(40, 96), codec=codec, **options))
    kinds = np.array(table._kinds)
    with av.open(str(write_video(name, moving_texture(40, 96), codec=codec, **options))) as container:
        types = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    order = np.argsort(table._times_s)
    of_kind = {kind: {types[i] for i in np.flatnonzero(kinds[order] == kind)} for kind in set(kinds.tolist())}
    assert all(len(found) == 1 for found in of_kind.values()), of_kind
    assert {next(iter(found)) for found in of_kind.values()} == {"I", "P", "B"}


def test_kinds_of_mpeg4_are_its_coding_types():
    """vop_coding_type: two bits behind the start code (ISO/IEC 14496-2, 6.2.5), whatever bits follow."""
    for byte in range(256):
        packet = b"\x00\x00\x01\xb6" + bytes([byte, 0])
        assert picture_kind("mpeg4", b"", packet, False) == str(int(f"{byte:08b}"[:2], 2))


@pytest.mark.parametrize("length_bytes", [1, 2, 4])
def test_kinds_of_hevc_are_those_of_its_first_slice_whatever_the_length_of_prefixes(length_bytes):
    """Table 7-1: below 16, pictures of an even number are not referred to; hvcC, 8.3.3.1.2: the last two bits of byte 21."""
    extradata = bytes([1, *[0] * 20, 0b11111100 | length_bytes - 1, 0])
    delimiter = bytes([35 << 1, 1, 0x50])
    for number in (*range(10), *range(16, 22)):
        nals = (delimiter, bytes([number << 1, 1, 0xAF, 0x08]))
        packet = b"".join(len(nal).to_bytes(length_bytes, "big") + nal for nal in nals)
        kind = "I" if number >= 16 else "unused" if number in (0, 2, 4, 6, 8) else "referred"
        assert picture_kind("hevc", extradata, packet, True) == kind
    assert picture_kind("hevc", extradata, len(delimiter).to_bytes(length_bytes, "big") + delimiter, True) == "key"


def test_energies_follow_the_frames_that_were_decoded(write_video):
    table = table_of(write_video("b.mp4", with_flash(40, 20), x264_params="bframes=3:b-adapt=0:scenecut=0"))
    every = table.energies()
    times = sorted(table._times_s)
    np.testing.assert_array_equal(table.energies(times), every)
    np.testing.assert_array_equal(table.energies([*times[3:], 99.0]), [*every[3:], 0.0])
    np.testing.assert_array_equal(table.energies([None] * 42), [*every, 0.0, 0.0])
    assert len(table.energies([None] * 10)) == 10


@pytest.mark.parametrize("name", ["b.mp4", "no_b.mp4", "b_short_gop.mkv"])
def test_accumulated_signals_are_the_strongest_of_each_interval(write_video, name):
    codec, options = CODECS[name]
    path = write_video(name, with_flash(40, 17), codec=codec, **options)
    _, every = read_video(path, VideoConfig(n_frames=40, size_px=56))
    clip, found = read_video(path, VideoConfig(n_frames=6, size_px=56, sampling="pool"))
    np.testing.assert_array_equal(clip.frame_index, sample_indices(40, 6, "uniform"))
    assert found.camera_removed and clip.source == "bitstream"
    motion = remove_camera(every.motion, every.has_vector, "similarity")
    inter = every.has_vector.any((1, 2))
    start = 0
    for t, end in enumerate(clip.frame_index + 1):
        frames = np.arange(start, end)
        frames = frames[inter[frames]] if inter[frames].any() else frames
        np.testing.assert_array_equal(np.abs(found.residual[t]), np.abs(every.residual[frames]).max(0))
        speed = np.hypot(*np.moveaxis(motion[frames], -1, 0))
        np.testing.assert_allclose(np.hypot(*np.moveaxis(found.motion[t], -1, 0)), speed.max(0), atol=1e-5)
        np.testing.assert_array_equal(found.has_vector[t], every.has_vector[frames].any(0))
        start = end


@pytest.mark.parametrize(("name", "source"), [("nine.webm", "auto"), ("b.mp4", "transcode")])
def test_transcodes_accumulate_too(write_video, name, source):
    codec, options = CODECS[name]
    path = write_video(name, with_flash(40, 17), codec=codec, **options)
    config = {"n_frames": 6, "size_px": 56, "source": source}
    clip, plain = read_video(path, VideoConfig(**config))
    other, found = read_video(path, VideoConfig(**config, sampling="pool"))
    assert (clip.source, other.source) == ("transcode", "transcode")
    np.testing.assert_array_equal(clip.frame_index, other.frame_index)
    assert found.residual.shape == plain.residual.shape and found.has_vector[1:].mean() > 0.5
    # The flash of frame 17, between the samples 15 and 23, shows in the signals of the latter only if accumulated.
    flash = np.s_[3, 16:26, 16:26]
    assert np.abs(found.residual[flash]).mean() > 3 * np.abs(plain.residual[flash]).mean()
    # Each interval is encoded by itself, after the sampled picture before it.
    pictures = read_video(path, VideoConfig(n_frames=40, size_px=56, source=source))[0].frames
    for t, (begin, end) in enumerate(itertools.pairwise(clip.frame_index), start=1):
        length = int(end - begin) + 1
        residual = transcoded_signals(pictures[begin : end + 1], length).signals().residual
        np.testing.assert_array_equal(np.abs(found.residual[t]), np.abs(residual[1:]).max(0))


def test_short_videos_repeat_frames_under_every_sampling(write_video):
    path = write_video("short.mp4", moving_texture(5, 64))
    for sampling in ("uniform", "consecutive", "energy", "pool"):
        clip, signals = read_video(path, VideoConfig(n_frames=16, size_px=56, sampling=sampling))
        assert sorted(set(clip.frame_index.tolist())) == [0, 1, 2, 3, 4]
        assert len(clip.frames) == len(signals.order) == 16
        assert len(signals.motion) == len(signals.has_vector) == len(signals.residual) == 5
        np.testing.assert_array_equal(signals.order, clip.frame_index)


def test_a_variable_frame_rate_keeps_its_true_times(tmp_path):
    """Sampled by the index among the frames; times are those of the file, however unequal."""
    path, ticks = tmp_path / "vfr.mkv", np.cumsum([1 + 3 * (i % 4 == 0) for i in range(40)])
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=100)
        stream.width = stream.height = 64
        stream.pix_fmt = "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for tick, picture in zip(ticks, moving_texture(40, 64), strict=True):
            frame = av.VideoFrame.from_ndarray(picture, format="rgb24")
            frame.pts = int(tick)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    for sampling in ("uniform", "energy", "pool"):
        clip, _ = read_video(path, VideoConfig(n_frames=10, size_px=56, sampling=sampling))
        np.testing.assert_allclose(
            clip.pts_s - clip.pts_s[0], (ticks[clip.frame_index] - ticks[clip.frame_index[0]]) / 100, atol=2e-3
        )
    assert clip.n_decoded == 40


def test_news_is_relative_to_kind():
    sizes = np.array([9000.0, 1000, 200, 1000, 210, 9100, 1050, 600, 1000, 200])
    kinds = np.array(["I", "P", "B", "P", "B", "I", "P", "B", "P", "B"])
    assert news(sizes, kinds).argmax() == 7


def test_of_equally_strong_signals_the_first_is_kept():
    motion = np.array([[3, 4], [-4, 3], [4, -3]], np.float32).reshape(3, 1, 1, 2)
    residual = np.array([7, -7, 7], np.int16)[:, None, None] * np.ones((1, 8, 8), np.int16)
    pool = SignalPool("none")
    pool.add(CodecSignals(motion, np.ones((3, 1, 1), bool), residual))
    pool.close()
    found = pool.signals()
    np.testing.assert_array_equal(found.motion, motion[:1])
    np.testing.assert_array_equal(found.residual, residual[:1])
