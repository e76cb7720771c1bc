"""Pictures: the sheet, its colours, and the video of what is kept."""

from dataclasses import replace

import av
import numpy as np
import pytest

from ove.config import VideoConfig
from ove.records import Clip, CodecSignals, Saliency, Selection
from ove.view import colours
from ove.view.animation import ANIMATION_FPS, write_animation
from ove.view.canvas import Canvas
from ove.view.overlay import overlay
from ove.view.selections import compare_selections

RED = [200, 40, 40]


def a_clip(n_frames):
    rng = np.random.default_rng(0)
    clip = Clip(
        frames=np.broadcast_to(np.array(RED, np.uint8), (n_frames, 56, 56, 3)).copy(),
        frame_index=np.arange(n_frames, dtype=np.int32) * 3,
        pts_s=np.arange(n_frames) * 0.12,
        is_i_frame=np.arange(n_frames) % 8 == 0,
        source="bitstream",
        codec="h264",
        n_decoded=3 * n_frames,
        fps=25.0,
    )
    signals = CodecSignals(
        motion=np.zeros((n_frames, 9, 12, 2), np.float32),
        has_vector=np.ones((n_frames, 9, 12), bool),
        residual=np.zeros((n_frames, 72, 96), np.int16),
    )
    return clip, signals, Saliency(rng.random((n_frames, 4, 4), np.float32))


def sheet_of(n_frames, flat, **options):
    selection = Selection(np.asarray(flat, np.int32), (n_frames, 4, 4))
    return overlay(*a_clip(n_frames), selection, VideoConfig(n_frames=n_frames, size_px=56), **options)


def test_chosen_patches_are_bright_and_the_rest_is_gray():
    # Three moments, each shown twice: as it is, and with what is kept.
    tile = 192 * 192
    red = [int((sheet_of(16, flat, columns=3) == RED).all(-1).sum()) for flat in (np.arange(0), np.arange(16 * 16))]
    assert red == [3 * tile, 6 * tile]
    a_quarter = [t * 16 + patch for t in range(16) for patch in range(4)]
    assert (sheet_of(16, a_quarter, columns=3) == RED).all(-1).sum() == 3 * tile + 3 * (tile // 4) - 3 * 192  # the line


def test_the_moments_are_those_of_which_most_is_kept():
    flat = [0, 5 * 16, 5 * 16 + 1, 12 * 16 + 3]
    page = sheet_of(16, flat, columns=3)
    kept = colours.kept(a_clip(16)[0].frames[5], colours.masks(np.array(flat), (16, 4, 4))[5], 192)
    found = [
        bool((page[-140 - 202 : -140 - 10, left : left + 192] == kept).all()) for left in (26 + 232 + n * 202 for n in range(3))
    ]
    assert found == [False, True, False]


def test_a_clip_of_one_frame_and_a_title():
    plain, titled = sheet_of(1, [5]), sheet_of(1, [5], name="somebody.mp4")
    assert plain.shape == titled.shape
    assert (plain[:90] != titled[:90]).any()
    assert (plain[90:] == titled[90:]).all()
    for page in (plain, titled):
        assert (page[:5] == 255).all()
        assert (page[:, :5] == 255).all()


def test_outlines_stand_between_chosen_and_not_chosen():
    chosen = np.zeros((4, 4), bool)
    chosen[1, 1] = True
    picture = colours.kept(np.full((56, 56, 3), 90, np.uint8), chosen, 224)
    assert (picture == [255, 214, 0]).all(-1).sum() == 4 * 56 - 4


@pytest.mark.parametrize(("motion", "channel"), [((1, 0), 0), ((0, 1), 1), ((-1, -1.7), 2)])
def test_directions_have_their_colours_and_what_stands_still_is_white(motion, channel):
    field = np.zeros((1, 4, 2), np.float32)
    field[0, 1], field[0, 2] = np.array(motion), 10 * np.array(motion)
    still, slow, fast, unknown = colours.motion_colours(field, np.array([[True, True, True, False]]), 10.0)[0].astype(int)
    assert still.tolist() == [255, 255, 255]
    assert unknown.tolist() == list(colours.UNKNOWN_COLOUR)
    assert fast.argmax() == slow.argmax() == channel
    assert np.ptp(fast) > np.ptp(slow) > 0


def test_the_wheel_is_the_key_to_the_colours():
    wheel = colours.wheel(101)
    right = colours.motion_colours(np.array([[[1.0, 0.0]]]), np.ones((1, 1), bool), 1.0)
    assert (wheel[50, 100] == right[0, 0]).all()
    assert (wheel[50, 50] > 245).all()
    assert (wheel[0, 0] == 255).all()


def test_the_video_shows_each_sampled_frame_beside_what_is_kept(tmp_path):
    clip, _, _ = a_clip(6)
    flat = [16 + 5, *range(32, 48)]
    write_animation(tmp_path / "v.mp4", clip, Selection(np.array(flat, np.int32), (6, 4, 4)), "somebody.mp4")
    assert [path.name for path in tmp_path.iterdir()] == ["v.mp4"]
    with av.open(str(tmp_path / "v.mp4")) as container:
        stream = container.streams.video[0]
        frames = [frame.to_ndarray(format="rgb24") for frame in container.decode(stream)]
        assert float(stream.average_rate) == ANIMATION_FPS
    assert len(frames) == 6
    red = [int((np.abs(frame.astype(int) - RED).max(-1) < 25).sum()) for frame in frames]
    side = 400 * 400
    assert red[0] == pytest.approx(side, rel=0.02)
    assert red[1] == pytest.approx(side + side // 16, rel=0.02)
    assert red[2] == pytest.approx(2 * side, rel=0.02)


def test_a_comparison_shows_the_same_moments_for_every_rule():
    clip, _, _ = a_clip(16)
    first = Selection(np.array([3 * 16, 3 * 16 + 1, 9 * 16 + 2], np.int32), (16, 4, 4))
    last = Selection(np.arange(7 * 16, 8 * 16, dtype=np.int32), (16, 4, 4))
    one = compare_selections(clip, {"first": (first, "some patches"), "last": (last, "a frame")}, "Kept", columns=3)
    tile = 168 * 168
    # Three moments of the video, of the first rule two patches, and the whole frame of the last one.
    red = int((one == RED).all(-1).sum())
    assert 4 * tile + tile // 16 < red < 4 * tile + 3 * (tile // 16)
    two = compare_selections(clip, {"last": (last, "a frame")}, "Kept", columns=3)
    assert one.shape[1] == two.shape[1]
    assert one.shape[0] > two.shape[0]


def test_the_title_tells_how_many_frames_of_a_short_video_differ(monkeypatch):
    said = []
    monkeypatch.setattr(Canvas, "text", lambda self, x, base, words, **style: said.append(words))
    clip, signals, saliency = a_clip(16)
    order = np.arange(16) // 4
    halves = [getattr(signals, name)[:4] for name in ("motion", "has_vector", "residual")]
    selection = Selection(np.arange(40, dtype=np.int32), (16, 4, 4))
    overlay(
        replace(clip, frame_index=order.astype(np.int32), n_decoded=4),
        CodecSignals(*halves, order=order),
        saliency,
        selection,
        VideoConfig(n_frames=16, size_px=56),
    )
    assert any(words.startswith("16 frames sampled from 4 (only 4 differ; copies are not kept)") for words in said)
