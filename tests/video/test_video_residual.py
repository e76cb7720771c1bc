"""Gray-reference decoding against an own prediction, and the headers that it is built from."""

import dataclasses

import av
import numpy as np
import pytest
from av.video.frame import PictureType
from interpolation import displaced, padded, quarter_samples
from video_files import P_ONLY, moving_texture

from ove.config import VideoConfig
from ove.video.bitstream import h264_syntax as h264
from ove.video.bitstream.gray import NoBitstreamSignals, decode_one, luma_of, open_decoder
from ove.video.bitstream.gray_nal import ParameterSets
from ove.video.bitstream.h264 import GrayH264, gray_access_unit
from ove.video.bitstream.nal import BitReader, BitWriter, annex_b, unescaped
from ove.video.decode import read_video

PRESETS = ("ultrafast", "superfast", "veryfast", "faster", "fast", "medium", "slow")


def predicted(reference, motion_px):
    """Luma predicted from a reference picture by a field of displacements on 8×8 cells, in steps of a quarter pixel."""
    return displaced(np.array(quarter_samples(padded(reference))), np.rint(-4 * motion_px).astype(int), reference.shape)


def lumas(path):
    with av.open(str(path)) as container:
        return [luma_of(frame)[0].copy() for frame in container.decode(video=0)]


@pytest.mark.parametrize(
    ("preset", "entropy"),
    [(preset, "cabac=1") for preset in PRESETS] + [(preset, "cabac=0:8x8dct=0") for preset in ("ultrafast", "medium")],
)
def test_prediction_plus_residual_is_the_decoded_luma(write_video, preset, entropy):
    frames = moving_texture(24, 144, 112)
    path = write_video("p.mp4", frames, preset=preset, crf="20", x264_params=f"{P_ONLY}:{entropy}:keyint=12:min-keyint=12")
    clip, signals = read_video(path, VideoConfig(n_frames=24))
    assert (clip.source, clip.codec, clip.n_decoded) == ("bitstream", "h264", 24)
    assert signals.residual_exact
    decoded = lumas(path)
    equal = covered = 0
    for t in range(1, 24):
        rebuilt = np.clip(predicted(decoded[t - 1], signals.motion[t]) + signals.residual[t], 0, 255)
        inter = signals.has_vector[t].repeat(8, 0).repeat(8, 1)
        equal, covered = equal + int((rebuilt == decoded[t])[inter].sum()), covered + int(inter.sum())
    assert covered > 0.7 * 22 * 144 * 112
    assert equal >= 0.999 * covered
    # Frames 0 and 12 are intra: no vectors, and the gradient stands in for the residual.
    assert not signals.has_vector[[0, 12]].any()
    right = np.abs(decoded[12][:, 2:].astype(int) - decoded[12][:, :-2]) / 2
    down = np.abs(decoded[12][2:].astype(int) - decoded[12][:-2]) / 2
    np.testing.assert_array_equal(signals.residual[12][1:-1, 1:-1], np.rint(np.hypot(right[1:-1], down[:, 1:-1])))


def test_residual_of_b_frames_belongs_to_the_frame_shown(write_video):
    frames = np.repeat(moving_texture(1, 128), 40, axis=0)
    frames[23, 32:64, 64:96] += 24  # a square lights up in one frame only
    path = write_video("b.mp4", frames, preset="medium", crf="12")
    with av.open(str(path)) as container:
        kinds = [PictureType(frame.pict_type).name for frame in container.decode(video=0)]
    assert "B" in kinds
    _, signals = read_video(path, VideoConfig(n_frames=40))
    assert signals.residual_exact
    energy = np.abs(signals.residual[:, 32:64, 64:96]).mean((1, 2))
    elsewhere = np.abs(signals.residual[:, :, :48]).mean((1, 2))
    inter = [t for t in range(40) if kinds[t] != "I"]
    assert max(inter, key=lambda t: energy[t]) == 23
    assert energy[23] > 5 * np.median(energy[inter]) + 1
    assert elsewhere[inter].max() < 1


def test_the_filter_between_blocks_is_no_part_of_the_residual(write_video):
    frames = np.repeat(moving_texture(1, 128), 8, axis=0)
    frames[5, 32:64, 64:96] += 12
    path = write_video("d.mp4", frames, x264_params="qp=30:bframes=0:ref=1:weightp=0:scenecut=0")
    _, signals = read_video(path, VideoConfig(n_frames=8))
    decoded = lumas(path)
    around = np.zeros((128, 128), bool)
    around[29:67, 61:99] = True
    around[32:64, 64:96] = False
    assert (decoded[5] != decoded[4])[around].any()  # the filter reaches over the square's edge
    assert np.abs(signals.residual[5, 32:64, 64:96]).mean() > 4
    assert (signals.residual[5][around] == 0).all()


@pytest.mark.parametrize(
    ("pix_fmt", "options", "gray"),
    [
        ("yuv420p", {}, 128),
        ("yuv420p", {"profile": "baseline"}, 128),
        ("yuv422p", {}, 128),
        ("yuv444p", {}, 128),
        ("gray", {}, 128),
        ("yuv420p10le", {}, 512),
        ("yuv420p", {"x264_params": "interlaced=1"}, 128),
        ("yuv444p", {"x264_params": "interlaced=1"}, 128),
    ],
)
def test_gray_picture_is_uniform(write_video, pix_fmt, options, gray):
    path = write_video("g.mp4", moving_texture(3, 80, 48), pix_fmt=pix_fmt, preset="medium", **options)
    with av.open(str(path)) as container:
        extradata = container.streams.video[0].codec_context.extradata
    length_bytes, sets = h264.split_avcc(extradata)
    sps = h264.read_sps(next(nal for nal in sets if nal[0] & 31 == h264.NAL_SPS))
    assert (sps.width_mbs, sps.height_mbs, sps.frame_mbs_only) == (
        5,
        4 if options.get("x264_params") else 3,
        "x264_params" not in options,
    )
    # A decoder that gives up at the first error: those that conceal put gray where they have nothing.
    context = open_decoder("h264", extradata, err_detect="explode")
    unit = b"".join(len(nal).to_bytes(length_bytes, "big") + nal for nal in gray_access_unit(sps, 200))
    luma, bits = luma_of(decode_one(context, [unit]))
    assert bits == (10 if gray == 512 else 8)
    assert luma.shape == (48, 80)
    assert (luma == gray).all()
    # It holds as many macroblocks as the picture, which a decoder that gets more does not say, nor one that conceals the lack:
    # mb_type has 5 bits, mb_qp_delta and each coeff_token 1, as intra_chroma_pred_mode and mb_field_decoding_flag of a pair.
    bits = {"gray": 7, "yuv444p": 9}.get(pix_fmt, 8) + (0 if sps.frame_mbs_only else 0.5)
    wider = gray_access_unit(dataclasses.replace(sps, width_mbs=sps.width_mbs + 8), 200)
    assert len(wider[1]) - len(gray_access_unit(sps, 200)[1]) == sps.height_mbs * bits


@pytest.mark.parametrize(
    ("pix_fmt", "suffix"), [("yuv422p", "mkv"), ("yuv444p", "mp4"), ("yuv420p10le", "mp4"), ("yuv420p", "ts")]
)
def test_residual_of_other_formats_is_small_where_nothing_is_new(write_video, pix_fmt, suffix):
    frames = moving_texture(16, 128)
    path = write_video(f"f.{suffix}", frames, pix_fmt=pix_fmt, crf="16", x264_params=P_ONLY)
    clip, signals = read_video(path, VideoConfig(n_frames=16))
    assert clip.source == "bitstream"
    decoded = lumas(path)
    shift = 2 if "10" in pix_fmt else 0
    for t in range(1, 16):
        inter = signals.has_vector[t].repeat(8, 0).repeat(8, 1)
        change = np.abs((decoded[t] >> shift).astype(int) - (decoded[t - 1] >> shift))
        assert np.abs(signals.residual[t])[inter].mean() < 0.5 * change.mean()


def test_headers_survive_zeros_and_refuse_to_end_early():
    writer = BitWriter(0x68)
    payload = bytes([0, 0, 0, 0, 0, 1, 0, 0, 2, 0, 0, 3, 0, 0, 4])
    writer.raw(*(f"{byte:08b}" for byte in payload))
    numbers = (0, 1, 2, 7, 254, 65535)
    for value in numbers:
        writer.unsigned(value)
    nal = writer.nal()
    assert not any(bytes([0, 0, byte]) in nal for byte in range(3))
    reader = BitReader(unescaped(nal))
    assert reader.bits(8 * (1 + len(payload))) == int.from_bytes(b"\x68" + payload, "big")
    assert tuple(reader.unsigned() for _ in numbers) == numbers
    with pytest.raises(ValueError, match="ends too early"):
        reader.bits(64)


def test_streams_that_cannot_be_taken_apart_say_so():
    with pytest.raises(NoBitstreamSignals, match="unknown parameter set"):
        GrayH264(b"").luma(b"\x00\x00\x01\x41\x9a\x00\x80")
    with pytest.raises(NoBitstreamSignals, match="cannot be read"):
        GrayH264(b"\x01\x64\x00\x16\xff\xe1\x00\x04\x67\x64\x00\x16")


def test_parameter_sets_are_redefined_if_one_of_them_is():
    sets = ParameterSets(lambda nal: nal[0], {7: (lambda nal: nal[1], "")}).updated([b"\x07\x00a", b"\x07\x01a", b"\x08\x00a"])
    assert set(sets.found) == {(7, 0), (7, 1)}
    assert sets.updated([b"\x07\x01a"]) is sets
    assert not sets.replaced_in(sets.updated([b"\x07\x02a"]))
    assert sets.replaced_in(sets.updated([b"\x07\x01b"]))


def test_a_stream_may_use_all_numbers_of_parameter_sets_but_one(write_video):
    path = write_video("v.mp4", moving_texture(2, 48))
    with av.open(str(path)) as container:
        _, sets = h264.split_avcc(container.streams.video[0].codec_context.extradata)
    nal = next(nal for nal in sets if nal[0] & 31 == h264.NAL_SPS)
    pps = [gray_access_unit(h264.read_sps(nal), number)[0] for number in range(256)]
    GrayH264(annex_b([nal, *pps[:254], pps[255]]))
    with pytest.raises(NoBitstreamSignals, match="leave no number"):
        GrayH264(annex_b([nal, *pps]))
