"""Sampled frames encoded anew: what their signals say, whatever their shape."""

import numpy as np
import pytest
from interpolation import displaced, padded, quarter_samples
from video_files import grainy, moving_texture

from ove.video.bitstream.gray import luma_of, open_decoder, packet_of
from ove.video.bitstream.h264 import GrayH264
from ove.video.transcode import transcode, transcoded_signals


@pytest.mark.parametrize(("width", "height"), [(112, 112), (112, 80), (57, 33), (34, 56)])
def test_vectors_and_residual_of_any_shape(width, height):
    frames = grainy(moving_texture(10, width, height, pan=1), 2)
    signals = transcoded_signals(frames, gop_frames=5).signals()
    assert signals.residual.shape == (10, height, width)
    assert signals.motion.shape == (10, -(-height // 8), -(-width // 8), 2)
    assert (signals.residual_source, signals.residual_exact, signals.cell_offset_px) == ("transcode", True, (0, 0))
    assert not signals.has_vector[[0, 5]].any()
    inter = [1, 2, 3, 4, 6, 7, 8, 9]
    assert signals.has_vector[inter].mean() > 0.5
    np.testing.assert_allclose(np.median(signals.motion[inter][signals.has_vector[inter]], axis=0), [-1, 0], atol=0.5)


def test_a_cut_brings_no_i_frame_of_its_own():
    """Where an encoder would begin anew: I-frames come every `gop_frames` frames and nowhere else."""
    frames = np.concatenate([grainy(moving_texture(7, 112, 80)), 255 - grainy(moving_texture(9, 112, 80, pan=2))[..., ::-1]])
    header, packets = transcode(frames, gop_frames=8)
    decoder = open_decoder("h264", header)
    shown = [frame for data in packets for frame in decoder.decode(packet_of(data))] + decoder.decode(None)
    assert [int(frame.pict_type) for frame in shown] == [1, *[2] * 7, 1, *[2] * 7]  # I and P


def test_prediction_plus_residual_is_the_new_encoding():
    frames = grainy(moving_texture(8, 112, 80), 2)
    header, packets = transcode(frames, gop_frames=8)
    gray, decoder = GrayH264(header), open_decoder("h264", header)
    shown = [frame for data in packets for frame in decoder.decode(packet_of(data))] + decoder.decode(None)
    lumas = [luma_of(frame)[0].astype(int) for frame in shown]  # without the loop filter: another chain of pictures
    signals = transcoded_signals(frames, gop_frames=8).signals()
    equal = total = 0
    for t in range(1, 8):
        planes = np.array(quarter_samples(padded(lumas[t - 1])))
        predicted = displaced(planes, np.rint(-4 * signals.motion[t]).astype(int), lumas[t].shape)
        inter = signals.has_vector[t].repeat(8, 0).repeat(8, 1)
        np.testing.assert_array_equal(gray.luma(packets[t])[0][inter].astype(int) - 128, signals.residual[t][inter])
        equal += int((np.clip(predicted + signals.residual[t], 0, 255) == lumas[t])[inter].sum())
        total += int(inter.sum())
    assert equal >= 0.999 * total > 0
