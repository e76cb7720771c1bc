"""HEVC: residual from the bitstream, checked by a second route, beside vectors from a transcode."""

from functools import partial

import numpy as np
import pytest
from second_route import share_of_hevc, shifted_candidates, unmoved_candidates
from video_files import faded, grainy, moving_texture

from ove.config import VideoConfig
from ove.errors import BadClip
from ove.records import CodecSignals
from ove.video.bitstream import codecs
from ove.video.bitstream import hevc as hevc_residual
from ove.video.bitstream import hevc_syntax as hevc
from ove.video.bitstream.coded import NoVectors
from ove.video.bitstream.gray import NoBitstreamSignals
from ove.video.bitstream.hevc import GrayHevc
from ove.video.bitstream.nal import BitReader, BitWriter, annex_b, packet_nals
from ove.video.container import Deadline
from ove.video.decode import read_video
from ove.video.demux import survey
from ove.video.signals import with_residual_of

PLAIN = grainy(moving_texture(16, 112, 80))
COLOURS = np.array([1, 0.7, 0.4]) * np.linspace([1, 0.6, 1], [0.6, 1, 0.8], 16)[:, None, None]
STILL = grainy(faded(np.repeat(moving_texture(1, 112, 80), 16, axis=0)) * COLOURS, 2)
"""A picture that does not move, whose brightness and colour change: weights for luma and chroma."""
OPEN = "log-level=none:no-deblock=1:sao=0:rect=0:amp=0:"


@pytest.mark.parametrize(
    ("frames", "pix_fmt", "params", "candidates"),
    [
        (PLAIN, "yuv420p", "bframes=0:ref=1:weightp=0:keyint=60", partial(shifted_candidates, down=1, across=4)),
        (STILL, "yuv420p", "bframes=2:b-adapt=0:ref=1:b-pyramid=0:weightp=1:weightb=1", partial(unmoved_candidates, reach=3)),
        (STILL, "yuv420p10le", "bframes=2:b-adapt=0:ref=2", partial(unmoved_candidates, reach=6)),
        (STILL, "yuv444p", "bframes=2:b-adapt=0:open-gop=1:keyint=6:min-keyint=6", partial(unmoved_candidates, reach=6)),
    ],
)
def test_a_second_route_gives_the_same_residual(write_video, frames, pix_fmt, params, candidates):
    path = write_video("v.mp4", frames, codec="libx265", pix_fmt=pix_fmt, crf="12", x265_params=OPEN + params)
    for share in share_of_hevc(path, candidates).values():
        assert share.cells > 200
        # What is intra-coded or moved otherwise is not explained; nothing tells which cells these are.
        assert share.explained >= 0.9 * share.cells
        assert share.control < 0.05 * share.cells


def test_weights_left_in_the_stream_would_show(write_video, monkeypatch):
    path = write_video("v.mp4", STILL, codec="libx265", crf="12", x265_params=f"{OPEN}bframes=0:ref=1:weightp=1")
    monkeypatch.setattr(hevc_residual, "clear_bits", lambda nal, start, count: nal)
    monkeypatch.setattr(hevc_residual, "slice_without_weights", lambda nal, sps, pps: nal)
    (share,) = share_of_hevc(path, partial(unmoved_candidates, reach=2)).values()
    assert share.explained < 0.7 * share.cells


@pytest.mark.parametrize(
    "params", ["", "wpp=1:slices=2:ctu=16", "repeat-headers=1:tskip=1", "scaling-list=default:ref=5:bframes=6"]
)
def test_vectors_and_residual_are_the_streams(write_video, params):
    frames = np.repeat(moving_texture(1, 112, 96), 16, axis=0)
    frames[9:, 32:64, 48:80] += 24  # a square lights up and stays
    path = write_video("v.mkv", frames, codec="libx265", crf="10", x265_params=f"log-level=none:{params}")
    for source in ("auto", "bitstream"):
        clip, signals = read_video(path, VideoConfig(n_frames=16, size_px=56, source=source))
        found = clip.source, clip.codec, signals.residual_source, signals.residual_exact
        assert found == ("bitstream", "hevc", "bitstream", True)
        assert signals.residual.shape == (16, 96, 112)
        assert signals.motion.shape == (16, 12, 14, 2)
        energy = np.abs(signals.residual[1:]).mean((1, 2))
        assert energy.argmax() + 1 >= 9
    forced, of_transcode = read_video(path, VideoConfig(n_frames=16, size_px=56, source="transcode"))
    assert (forced.source, of_transcode.residual_source, of_transcode.residual.shape) == (
        "transcode",
        "transcode",
        (16, 56, 56),
    )


@pytest.mark.parametrize("bframes", [0, 3])
def test_the_field_is_the_pan_of_the_picture(write_video, bframes):
    wide = np.concatenate([moving_texture(1, 160, 96)[0], moving_texture(2, 160, 96)[1]], axis=1)
    frames = np.stack([wide[:, 4 * t : 4 * t + 128] for t in range(12)])  # the content moves to the left
    path = write_video("v.mp4", frames, codec="libx265", crf="12", x265_params=f"log-level=none:bframes={bframes}:ref=1")
    _, signals = read_video(path, VideoConfig(n_frames=12, size_px=56))
    inner = signals.motion[1:, 2:-2, 4:-4][signals.has_vector[1:, 2:-2, 4:-4]]
    assert (inner[:, 0] % 4 == 0).mean() > 0.9 and (np.abs(inner[:, 1]) < 0.3).mean() > 0.95
    if bframes == 0:  # from the frame before: by 4 pixels to the left
        assert (inner[:, 0] == -4).mean() > 0.9
    else:
        assert (inner[:, 0] < 0).mean() > 0.3


def test_slice_data_that_are_not_read_leave_the_residual(write_video, monkeypatch, caplog):
    path = write_video("v.mp4", moving_texture(8, 96, 64), codec="libx265", x265_params="log-level=none")

    def refuse(extradata):
        raise NoVectors("it is of another kind")

    monkeypatch.setitem(codecs.SLICE_READERS, "hevc", refuse)
    clip, signals = read_video(path, VideoConfig(n_frames=8, size_px=56))
    assert (clip.source, signals.residual_source, signals.residual.shape) == ("transcode", "bitstream", (8, 64, 96))
    assert "it is of another kind; its vectors are those of a transcode" in caplog.text
    with pytest.raises(BadClip, match=r"it is of another kind; set video.source to auto or transcode"):
        read_video(path, VideoConfig(n_frames=8, size_px=56, source="bitstream"))


def test_vectors_are_spread_over_the_larger_picture():
    motion = np.arange(2 * 7 * 7 * 2, dtype=np.float32).reshape(2, 7, 7, 2)
    has_vector = motion[..., 0] % 3 > 0
    small = CodecSignals(motion, has_vector, np.zeros((2, 56, 56), np.int16), residual_source="transcode")
    pixels = np.arange(2 * 112 * 224).reshape(2, 112, 224).astype(np.int16)
    empty = CodecSignals(np.zeros((2, 14, 28, 2), np.float32), np.zeros((2, 14, 28), bool), pixels)
    both = with_residual_of(small, empty)
    np.testing.assert_array_equal(both.motion, motion.repeat(2, 1).repeat(4, 2) * np.array([4, 2]))
    np.testing.assert_array_equal(both.has_vector, has_vector.repeat(2, 1).repeat(4, 2))
    np.testing.assert_array_equal(both.residual, pixels)
    assert both.residual_source == "bitstream"


def test_reference_sets_are_read_as_they_are_meant():
    """One in full: 1 and 3 before, 2 after. Two derived from it, one later and one earlier; 1 − 1 is the picture itself."""
    w = BitWriter()
    for value in (2, 1):
        w.unsigned(value)
    for distance, used in ((1, 1), (2, 0), (2, 1)):
        w.unsigned(distance - 1)
        w.raw(str(used))
    for sign, flags in (("0", ("1", "00", "1", "01")), ("1", ("01", "1", "1", "1"))):
        w.raw("1", sign)
        w.unsigned(0)
        w.raw(*flags)  # used; not used and left out (00) or kept (01): of −1, −3, 2 and the set itself
    r = BitReader(w.aligned())
    first = hevc.read_st_ref_pic_set(r, [], 3)
    assert list(first) == [(-1, True), (-3, False), (2, True)]
    assert list(hevc.read_st_ref_pic_set(r, [first], 3)) == [(1, False), (3, True)]
    assert list(hevc.read_st_ref_pic_set(r, [first], 3)) == [(-1, True), (-2, False), (-4, True), (1, True)]


def test_streams_that_cannot_be_taken_apart_say_so(write_video):
    with pytest.raises(NoBitstreamSignals, match="unknown parameter set"):
        GrayHevc(b"").luma(b"\x00\x00\x01\x02\x01\xd0\x00\x80")
    path = write_video("v.hevc", PLAIN[:6], codec="libx265", x265_params="log-level=none:bframes=0")
    gray = GrayHevc(survey(path, Deadline(path, 60.0)).extradata)
    nals = list(packet_nals(path.read_bytes(), 0))
    piece = next(nal for nal in nals if hevc.nal_unit_type(nal) == 1)
    pps = next(nal for nal in nals if hevc.nal_unit_type(nal) == hevc.NAL_PPS)
    gray.observe(annex_b([pps, piece]))
    flipped = bytearray(pps)
    flipped[-1] ^= 0b1000
    with pytest.raises(NoBitstreamSignals, match=r"change between two pictures|extensions|cannot be read"):
        gray.observe(annex_b([bytes(flipped), piece]))
    with pytest.raises(NoBitstreamSignals):
        gray.luma(annex_b([piece[:4]]))
