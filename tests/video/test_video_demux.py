"""What FFmpeg passes over in silence, and how time limits hold."""

import itertools
from types import SimpleNamespace

import av
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import moving_texture

from ove.config import SelectionConfig, ShardsConfig, VideoConfig
from ove.errors import BadClip
from ove.shards.make import RecordMaker
from ove.shards.schema import pack, unpack
from ove.sources.folders import InputFile
from ove.video.bitstream.gray import gradient, gradient_into
from ove.video.container import Deadline
from ove.video.decode import read_video
from ove.video.demux import Damaged, decoded_frames

SMALL = VideoConfig(n_frames=16, size_px=56, selection=SelectionConfig(gop_frames=8))
KEEP = VideoConfig(n_frames=16, size_px=56, selection=SelectionConfig(gop_frames=8), truncated="keep")


def wiped(path, number):
    """Overwrites the data of packet `number` of a file, behind its first bytes, with zeros."""
    with av.open(str(path)) as container:
        packet = bytes([p for p in container.demux(video=0) if p.size][number])
    data = path.read_bytes()
    at = data.index(packet)
    path.write_bytes(data[: at + 8] + bytes(len(packet) - 8) + data[at + len(packet) :])


def test_a_packet_of_zeros_is_damage_though_the_decoder_shows_a_picture(write_video):
    path = write_video("v.webm", moving_texture(30, 96), codec="libvpx")
    assert read_video(path, SMALL)[0].n_decoded == 30
    wiped(path, 20)
    with pytest.raises(BadClip, match=r"v\.webm: damaged: 20 frames decode, the next is overwritten with zeros"):
        read_video(path, SMALL)
    clip, _ = read_video(path, KEEP)
    assert clip.n_decoded == 20
    assert clip.cut.startswith("damaged: 20 frames decode")
    assert (clip.frames.reshape(16, -1).std(axis=1) > 1).all()


def test_damage_tells_where(write_video):
    path = write_video("v.mp4", moving_texture(30, 96), codec="mpeg4")
    wiped(path, 12)
    with pytest.raises(Damaged) as caught:
        read_video(path, SMALL)
    assert caught.value.position is not None
    assert 0 <= caught.value.position <= 13


def test_a_record_says_that_only_the_first_frames_were_kept(tmp_path, write_video):
    whole = write_video("w.mp4", moving_texture(40, 96), container_options={"movflags": "faststart"})
    cut = tmp_path / "cut.mp4"
    cut.write_bytes(whole.read_bytes()[:-800])
    make_record = RecordMaker("video", KEEP, ShardsConfig(), tmp_path)
    records = [unpack(pack(make_record(InputFile(path, path.name, None)))) for path in (whole, cut)]
    assert records[0].cut == ""
    assert "40 frames announced" in records[1].cut


def test_the_limit_reaches_ffmpeg(write_video, monkeypatch):
    opened = []
    original = av.open

    def noted(*arguments, **options):
        opened.append(options["timeout"])
        return original(*arguments, **options)

    path = write_video("v.mp4", moving_texture(4, 64))
    monkeypatch.setattr(av, "open", noted)
    read_video(path, VideoConfig(n_frames=4, size_px=56, time_limit_s=7.0))
    assert len(opened) == 2
    assert all(60 < limit <= 70 for pair in opened for limit in pair)  # by the clock, ten times the processor time


def test_time_runs_out(tmp_path, monkeypatch):
    now_s, worked_s = [5.0], [3.0]
    clocks = SimpleNamespace(monotonic=lambda: now_s[0], thread_time=lambda: worked_s[0])
    monkeypatch.setattr("ove.video.container.time", clocks)
    deadline = Deadline(tmp_path / "slow.mp4", 0.02)
    assert 0 < deadline.left_s() <= 0.201
    now_s[0] += 0.19  # on a busy machine
    deadline.check(3)
    now_s[0] += 0.02
    assert deadline.left_s() == 0
    with pytest.raises(BadClip, match=r"slow\.mp4: stalls: not read within 0\.2 s, with little processor time \(3 frames"):
        deadline.check(3)
    worked_s[0] += 0.03
    with pytest.raises(BadClip, match=r"slow\.mp4: not decoded within 0\.02 s of processor time \(3 frames were\)"):
        deadline.check(3)


def test_the_time_limit_tells_how_many_frames_were_decoded(write_video, monkeypatch):
    path = write_video("v.mp4", moving_texture(20, 64), codec="mpeg4", bf="0")
    clocks = SimpleNamespace(monotonic=lambda: 0.0, thread_time=itertools.count().__next__)  # a second between two looks
    monkeypatch.setattr("ove.video.container.time", clocks)
    n_decoded = 0
    with pytest.raises(BadClip) as caught:
        for _ in decoded_frames(path, Deadline(path, 8.5), keep_packets=False):
            n_decoded += 1
    assert n_decoded in (8, 9) and f"processor time ({n_decoded} frames were)" in str(caught.value)


@settings(deadline=None, max_examples=40)
@given(st.integers(2, 5), st.integers(2, 5), st.floats(0, 1), st.booleans(), st.integers(0, 2**32 - 1))
def test_the_gradient_of_some_cells_is_that_of_the_picture(rows, columns, share, cropped, seed):
    rng = np.random.default_rng(seed)
    height, width = (8 * n - 2 * cropped for n in (rows, columns))
    frame = av.VideoFrame.from_ndarray(rng.integers(0, 256, (height * 3 // 2, width), dtype=np.uint8), format="yuv420p")
    where = rng.random((rows, columns)) < share
    out = np.full((height, width), -5, np.int16)
    gradient_into(out, frame, where, (0, 0))
    pixels = where.repeat(8, axis=0).repeat(8, axis=1)[:height, :width]
    np.testing.assert_array_equal(out, np.where(pixels, gradient(frame), -5))
