"""The contact sheet: size, what is bright and what is dimmed."""

import numpy as np

from ove.records import Clip, Saliency, Selection
from ove.view.overlay import overlay


def a_clip(n_frames):
    rng = np.random.default_rng(0)
    return Clip(
        frames=np.broadcast_to(np.array([200, 40, 40], np.uint8), (n_frames, 56, 56, 3)).copy(),
        frame_index=np.arange(n_frames, dtype=np.int32) * 3,
        pts_s=np.arange(n_frames) * 0.12,
        is_i_frame=np.arange(n_frames) % 8 == 0,
        source="bitstream",
        codec="h264",
        n_decoded=3 * n_frames,
        fps=25.0,
    ), Saliency(rng.random((n_frames, 4, 4), np.float32))


def test_chosen_patches_are_bright_and_the_rest_is_gray():
    clip, scores = a_clip(16)
    nothing = Selection(np.arange(0, dtype=np.int32), (16, 4, 4))
    everything = Selection(np.arange(16 * 16, dtype=np.int32), (16, 4, 4))
    half = Selection(np.arange(16 * 8, dtype=np.int32), (16, 4, 4))
    red = [int((overlay(clip, scores, s) == [200, 40, 40]).all(-1).sum()) for s in (nothing, half, everything)]
    assert red == [0, 8 * 224 * 224, 16 * 224 * 224]


def test_outlines_stand_between_chosen_and_not_chosen():
    clip, scores = a_clip(1)
    picture = overlay(clip, scores, Selection(np.array([5], np.int32), (1, 4, 4)))
    assert (picture == [255, 214, 0]).all(-1).sum() == 4 * 56 - 4


def test_sheet_has_the_shape_asked_for():
    clip, scores = a_clip(16)
    selection = Selection(np.arange(64, dtype=np.int32), (16, 4, 4))
    wide, tall = overlay(clip, scores, selection), overlay(clip, scores, selection, columns=2, shown=4)
    assert wide.dtype == np.uint8
    assert wide.shape[1] > wide.shape[0]
    assert tall.shape[0] > tall.shape[1]
    assert (wide[:5] == 255).all()
    assert (wide[:, :5] == 255).all()
