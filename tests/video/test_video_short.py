"""Videos of fewer frames than are sampled: no token shows what another of the same video shows."""

import dataclasses
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from shards_material import record_of
from video_files import moving_texture

from ove.config import SelectionConfig, ShardsConfig, VideoConfig
from ove.errors import BadClip
from ove.probing.interventions import intervene
from ove.records import CODEC, FRAMES, Saliency, on_time_grid
from ove.shards.make import RecordMaker
from ove.shards.schema import VideoRecord, pack, unpack
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView, to_tokens
from ove.tokens.read import InputConfig, read_file
from ove.video import clip_builder
from ove.video.decode import read_scored, read_video
from ove.video.saliency import saliency
from ove.video.select import choose_patches, i_frame_flags
from ove.video.span import VideoSpan

SIZE_PX, GRID = 56, 4
SETTINGS = {"n_frames": 16, "size_px": SIZE_PX, "selection": SelectionConfig(gop_frames=8)}


def short_video(write_video, n_frames: int, name: str = "short.mp4") -> Path:
    """Frames of noise, no two of whose patches are equal."""
    return write_video(name, np.random.default_rng(n_frames).integers(0, 256, (n_frames, 64, 64, 3), np.uint8))


def sampled(scores: np.ndarray, n_frames: int) -> Saliency:
    """The scores of distinct frames as those of `n_frames` samples with copies."""
    index = np.linspace(0, len(scores) - 1, n_frames).astype(np.int32)
    return Saliency(scores[index], None, index)


@given(st.integers(1, 15), st.integers(1, 64), st.sampled_from(["keep", "first", "score"]), st.integers(0, 2**32 - 1))
def test_the_best_patches_of_different_frames_are_chosen(n_distinct, budget, policy, seed):
    """Against a plain sort of the distinct frames, a frame being whole if any of its copies is an I-frame."""
    scores = np.random.default_rng(seed).permutation(n_distinct * 4).astype(np.float32).reshape(n_distinct, 2, 2)
    found = sampled(scores, 16)
    flags = i_frame_flags(16, 8)
    whole = {"keep": flags, "first": np.arange(16) == 0}.get(policy, np.zeros(16, bool))
    whole = np.array([whole[found.frame_index == frame].any() for frame in range(n_distinct)])
    budget = max(budget, int(whole.sum()) * 4)
    chosen = choose_patches(found, flags, budget, SelectionConfig(gop_frames=8, iframe_policy=policy))
    order = sorted(range(scores.size), key=lambda i: (not whole[i // 4], -scores.reshape(-1)[i]))
    expected = sorted((i // 4, i % 4) for i in order[:budget])
    assert sorted((int(found.frame_index[flat // 4]), int(flat % 4)) for flat in chosen.flat) == expected
    filled = choose_patches(found, flags, budget, SelectionConfig(gop_frames=8, iframe_policy=policy), fill=True).flat
    assert len(filled) == budget and len(set(filled.tolist())) == budget and set(chosen.flat.tolist()) <= set(filled.tolist())


@pytest.mark.parametrize("rule", ["patches", "frames"])
@pytest.mark.parametrize("static_fallback", [False, True])
def test_every_rule_leaves_copies_out(rule, static_fallback):
    found = sampled(np.full((5, 2, 2), 0.1, np.float32), 16)
    config = SelectionConfig(gop_frames=8, rule=rule, static_fallback=static_fallback)
    for budget, expected in ((12, 12), (20, 20), (40, 20)):
        flat = choose_patches(found, i_frame_flags(16, 8), budget, config).flat
        places = {(int(found.frame_index[n // 4]), int(n % 4)) for n in flat}
        assert len(flat) == len(places) == expected
    assert len(choose_patches(found, i_frame_flags(16, 8), 40, config, fill=True).flat) == 40


def test_a_frame_whose_copies_are_not_all_dropped_is_chosen_from():
    """`drop` bars frames 0 and 8 of 16; of the frame sampled as 0 and 1 the second copy is left."""
    found = sampled(np.arange(32, dtype=np.float32).reshape(8, 2, 2), 16)
    flat = choose_patches(found, i_frame_flags(16, 8), 32, SelectionConfig(gop_frames=8, iframe_policy="drop")).flat
    assert {int(n // 4) for n in flat}.isdisjoint({0, 8})
    assert sorted((int(found.frame_index[n // 4]), int(n % 4)) for n in flat) == [(f, p) for f in range(8) for p in range(4)]


def test_a_letterbox_that_leaves_too_few_patches_is_still_refused():
    valid = np.array([[True, False], [False, False]])
    found = dataclasses.replace(sampled(np.ones((5, 2, 2), np.float32), 16), valid=valid)
    assert len(choose_patches(found, i_frame_flags(16, 8), 16, SelectionConfig(gop_frames=8)).flat) == 5
    with pytest.raises(BadClip, match="lie wholly within the picture"):
        choose_patches(found, i_frame_flags(16, 8), 17, SelectionConfig(gop_frames=8))


@pytest.mark.parametrize("source", ["bitstream", "transcode"])
@pytest.mark.parametrize("n_frames", [3, 11, 15])
def test_tokens_of_a_short_file_all_differ(write_video, source, n_frames):
    path, budget = short_video(write_video, n_frames), 128
    inputs = InputConfig("codec", VideoConfig(**SETTINGS, source=source), budget=budget)
    read = read_file(path, inputs)
    assert len(read.tokens.patches) == len(np.unique(read.tokens.patches, axis=0)) == min(budget, n_frames * GRID**2)
    index = read.clip.frame_index
    for patch, (t, y, x) in zip(read.tokens.patches, read.tokens.positions, strict=True):
        (frame,) = np.flatnonzero(on_time_grid(np.arange(16), 16) == t)
        np.testing.assert_array_equal(patch, read.frames[frame, 14 * y : 14 * y + 14, 14 * x : 14 * x + 14].ravel())
    assert len(set(index[(read.tokens.positions[:, 0] / 63 * 15).round().astype(int)])) == min(n_frames, len(set(index)))
    frames = read_file(path, InputConfig("frames", VideoConfig(**SETTINGS), n_frames=8)).tokens
    assert len(frames.patches) == len(np.unique(frames.patches, axis=0)) == min(8, n_frames) * GRID**2


@pytest.mark.parametrize("scope", ["frame", "clip"])
def test_copies_do_not_weigh_in_the_scores(write_video, scope):
    """The scores of a short video are those of its frames sampled once each."""
    path = short_video(write_video, 5)
    short = VideoConfig(n_frames=16, size_px=SIZE_PX, percentile_scope=scope)
    once = dataclasses.replace(short, n_frames=5)
    clip, signals = read_video(path, short)
    expected = saliency(read_video(path, once)[1], once).scores
    np.testing.assert_array_equal(saliency(signals, short).scores, expected[clip.frame_index])


def short_record(write_video, n_frames: int, tmp_path: Path, store=("frames", "mosaics")) -> VideoRecord:
    shards = ShardsConfig(store=store, budget_tokens=128)
    path = short_video(write_video, n_frames)
    return unpack(pack(RecordMaker("video", VideoConfig(**SETTINGS), shards, tmp_path)(InputFile(path, "a", None))))


@pytest.mark.parametrize("seed", [None, 0, 1, 2])
@pytest.mark.parametrize("n_frames", [8, 9, 11, 15])
def test_tokens_of_a_short_record_all_differ(write_video, tmp_path, n_frames, seed):
    record = short_record(write_video, n_frames, tmp_path)
    assert record.n_distinct == n_frames
    rng = None if seed is None else np.random.default_rng(seed)
    for mode in (CODEC, FRAMES):
        patches, tyx = to_tokens(record, mode, TokenView(128, SelectionConfig(gop_frames=8)), rng)
        assert patches.shape[0] == len(np.unique(patches, axis=0)) == len(np.unique(tyx, axis=0)) == 128, mode
    without = dataclasses.replace(record, mosaics=[], mosaic_flat=np.zeros(0, np.uint16))
    np.testing.assert_array_equal(record.mosaic_flat, TokenView(128, SelectionConfig(gop_frames=8)).choose(without.scored))


def test_rows_of_one_length_are_filled_with_copies_once_nothing_else_is_left(write_video, tmp_path):
    record = short_record(write_video, 3, tmp_path)
    for mode in (CODEC, FRAMES):
        patches, tyx = to_tokens(record, mode, TokenView(128, SelectionConfig(gop_frames=8)), None)
        assert len(patches) == len(np.unique(tyx, axis=0)) == 128
        assert {int(n) for n in record.frame_index[(tyx[:, 0] / 63 * 15).round().astype(int)]} == {0, 1, 2}


def test_an_intervention_puts_no_copy_in_the_place_of_a_patch():
    frames = np.random.default_rng(0).integers(0, 256, (16, 28, 28, 3), np.uint8)
    index = np.linspace(0, 9, 16).astype(np.int32)
    record = dataclasses.replace(record_of(frames[index], "a", None), frame_index=index)
    view = TokenView(20, SelectionConfig(gop_frames=8))
    chosen = view.choose(record.scored)
    assert len({(int(index[n // 4]), int(n % 4)) for n in chosen}) == 20
    before, _ = to_tokens(record, CODEC, view, None)
    for seed in range(8):
        changed, _ = intervene(record, record, "non_motion", view, np.random.default_rng(seed))
        new = [patch for patch, old in zip(changed, before, strict=True) if (patch != old).any()]
        assert len(new) == 6  # half of the 12 tokens outside of whole frames
        assert not {patch.tobytes() for patch in new} & {patch.tobytes() for patch in before}


@pytest.mark.parametrize("sampling", ["uniform", "pool"])
@pytest.mark.parametrize("source", ["bitstream", "transcode"])
@pytest.mark.parametrize("options", [{}, {"percentile_scope": "clip"}, {"geometry": "letterbox", "motion_feature": "variance"}])
@pytest.mark.parametrize("n_frames", [7, 40])
def test_scores_of_frames_one_by_one_are_those_of_the_whole_clip(write_video, sampling, source, options, n_frames, monkeypatch):
    monkeypatch.setattr(clip_builder, "_MOST_KEPT_BYTES", 0)
    path = write_video("a.mp4", moving_texture(n_frames, 64, height=48))
    config = VideoConfig(**SETTINGS, sampling=sampling, source=source, **options)
    (clip, found), (same, signals) = read_scored(path, config), read_video(path, config)
    expected = saliency(signals, config)
    np.testing.assert_array_equal(found.scores, expected.scores)
    np.testing.assert_array_equal(clip.frames, same.frames)
    for name in ("valid", "frame_index"):
        assert (getattr(found, name) is None) == (getattr(expected, name) is None)
        np.testing.assert_array_equal(getattr(found, name), getattr(expected, name))


@pytest.mark.parametrize("scope", ["frame", "clip"])
def test_signals_of_no_more_than_a_frame_are_kept_for_scores(write_video, scope, monkeypatch):
    """64 residuals of 640 × 480 are 39 MB."""
    monkeypatch.setattr(clip_builder, "_MOST_KEPT_BYTES", 30e6)
    path = write_video("a.mp4", moving_texture(64, 640, height=480))

    def peak(read) -> int:
        tracemalloc.start()
        read(path, VideoConfig(n_frames=64, size_px=28, source="bitstream", percentile_scope=scope))
        try:
            return tracemalloc.get_traced_memory()[1]
        finally:
            tracemalloc.stop()

    assert peak(read_video) > 39e6
    assert peak(read_scored) < 15e6


def test_one_frame_is_enough(write_video):
    config = VideoConfig(n_frames=4, size_px=56)
    clip, _ = read_video(write_video("one.mp4", moving_texture(1, 64)), config)
    assert (clip.n_decoded, clip.frame_index.tolist()) == (1, [0] * 4)
    path = write_video("ten.mp4", moving_texture(10, 64), bf="0")
    every, _ = read_video(path, VideoConfig(n_frames=10, size_px=56))
    clip, _ = read_video(path, config, VideoSpan(0.1, 0.14))  # frame 3, at 0.12 s
    assert clip.n_decoded == 1
    np.testing.assert_array_equal(clip.frames, every.frames[[3] * 4])
    with pytest.raises(BadClip, match=r"no frame from 0\.41 s to 0\.5 s; the video may be shorter"):
        read_video(path, config, VideoSpan(0.41, 0.5))
