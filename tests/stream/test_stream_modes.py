"""Every mode shows the record's own pixels at the places it names."""

import dataclasses
from fractions import Fraction
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from synthetic import BUDGET, GOP, GRID, PATCH_PX, SIZE_PX, T, record_of

from ove.config import SelectionConfig
from ove.errors import BadShard, ConfigError
from ove.records import CODEC, FRAMES, IMAGE, MODES, TILING, Saliency, on_time_grid
from ove.shards.schema import VideoRecord, decode_frames
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView, to_tokens
from ove.stream.order import schedule
from ove.video.patches import frames_to_patches
from ove.video.select import choose_patches

VIEW = TokenView(BUDGET, SelectionConfig(gop_frames=GOP))


@pytest.fixture(scope="module")
def record() -> VideoRecord:
    return record_of(InputFile(Path("5.mp4"), "0005", "light"))


@pytest.fixture(scope="module")
def patches(record: VideoRecord) -> np.ndarray:
    """(T, Y, X, P): all patches of the record."""
    return frames_to_patches(decode_frames(record, range(T)), PATCH_PX).reshape(*GRID, -1)


def test_codec_shows_the_selection_in_flat_order(record: VideoRecord, patches: np.ndarray) -> None:
    seen, tyx = to_tokens(record, CODEC, VIEW, None)
    frame_of_step = {int(step): frame for frame, step in enumerate(on_time_grid(np.arange(T), T))}
    tyx = np.array([(frame_of_step[t], y, x) for t, y, x in tyx.tolist()])
    flat = np.ravel_multi_index(tuple(tyx.T), GRID)
    assert (np.diff(flat) > 0).all()
    np.testing.assert_array_equal(seen, patches[tuple(tyx.T)])
    i_frames = np.arange(T) % GOP == 0
    chosen = np.zeros(GRID, bool)
    chosen[tuple(tyx.T)] = True
    assert chosen[i_frames].all()
    scores = record.saliency[~i_frames]
    assert scores[chosen[~i_frames]].min() >= scores[~chosen[~i_frames]].max()
    assert len(flat) == BUDGET


@pytest.mark.parametrize(
    "options", [{"static_fallback": True}, {"outside": "zero"}, {"buckets": 4}, {"iframe_policy": "score"}], ids=str
)
def test_a_view_chooses_as_the_video_settings_of_the_same_names_do(options: dict) -> None:
    valid = np.zeros((4, 4), bool)
    valid[1:3] = True
    scores = np.where(valid, np.random.default_rng(0).uniform(0.2, 0.4, (8, 4, 4)), -1).astype(np.float32)
    scores[:3] += np.float32(0.05) * valid  # so that time is not all the same
    budget = 8 * 8 + 4 if "outside" in options else 40
    config = SelectionConfig(gop_frames=GOP, **options)
    chosen = TokenView(budget, config).choose(Saliency(scores, valid))
    expected = choose_patches(Saliency(scores, valid), np.arange(8) % GOP == 0, budget, config).flat
    np.testing.assert_array_equal(chosen, expected)
    if "outside" not in options:  # without it there would be too few patches
        assert chosen.tolist() != TokenView(budget, SelectionConfig(gop_frames=GOP)).choose(Saliency(scores, valid)).tolist()


@pytest.mark.parametrize("seed", [None, 0, 1])
def test_frames_shows_one_whole_frame_of_each_chunk(record: VideoRecord, patches: np.ndarray, seed: int | None) -> None:
    rng = None if seed is None else np.random.default_rng(seed)
    seen, tyx = to_tokens(record, FRAMES, VIEW, rng)
    steps = np.unique(tyx[:, 0])
    which = [on_time_grid(np.arange(T), T).tolist().index(step) for step in steps]
    assert [frame // 2 for frame in which] == [0, 1, 2, 3]
    np.testing.assert_array_equal(seen, patches[which].reshape(BUDGET, -1))
    assert tyx.tolist() == [[step, y, x] for step in steps for y in range(2) for x in range(2)]


@pytest.mark.parametrize(("budget", "frames"), [(4, [4]), (8, [2, 6]), (16, [1, 3, 5, 7]), (32, list(range(8)))])
def test_evaluation_takes_the_middle_frame_of_each_chunk_and_training_any(
    record: VideoRecord, patches: np.ndarray, budget: int, frames: list[int]
) -> None:
    view = TokenView(budget, SelectionConfig(gop_frames=GOP))
    seen, tyx = to_tokens(record, FRAMES, view, None)
    np.testing.assert_array_equal(seen, patches[frames].reshape(budget, -1))
    assert tyx[::4, 0].tolist() == on_time_grid(np.array(frames), T).tolist()
    np.testing.assert_array_equal(to_tokens(record, TILING, view, None)[0], seen)
    frame_of_step = {int(step): frame for frame, step in enumerate(on_time_grid(np.arange(T), T))}
    drawn = [to_tokens(record, FRAMES, view, np.random.default_rng(seed))[1][::4, 0].tolist() for seed in range(60)]
    counts = np.bincount([frame_of_step[step] for steps in drawn for step in steps], minlength=T)
    assert counts.sum() == 60 * len(frames)
    share = len(frames) / T
    assert np.abs(counts / 60 - share).max() <= 4.5 * np.sqrt(share * (1 - share) / 60)


def test_tiling_shows_the_same_frames_as_one_tall_image(record: VideoRecord) -> None:
    whole = to_tokens(record, FRAMES, VIEW, np.random.default_rng(3))[0]
    seen, tyx = to_tokens(record, TILING, VIEW, np.random.default_rng(3))
    np.testing.assert_array_equal(seen, whole)
    assert tyx.tolist() == [[0, y, x] for y in range(8) for x in range(2)]


def test_an_image_is_the_middle_frame_and_changes_only_in_training(record: VideoRecord, patches: np.ndarray) -> None:
    seen, tyx = to_tokens(record, IMAGE, VIEW, None)
    np.testing.assert_array_equal(seen, patches[T // 2].reshape(4, -1))
    assert tyx.tolist() == [[0, y, x] for y in range(2) for x in range(2)]
    cropped = [to_tokens(record, IMAGE, VIEW, np.random.default_rng(seed))[0] for seed in (0, 0, 1)]
    np.testing.assert_array_equal(cropped[0], cropped[1])
    assert (cropped[0] != cropped[2]).any() and (cropped[0] != seen).any()


@given(st.lists(st.integers(0, 16), min_size=1, max_size=3).filter(any))
def test_shares_are_met_exactly_and_evenly(parts: list[int]) -> None:
    shares = [Fraction(part, sum(parts)) for part in parts]
    if any(share.denominator > 64 for share in shares):
        return
    pattern = schedule([float(share) for share in shares])
    for mode, share in enumerate(shares):
        taken = np.cumsum(np.array(pattern) == mode)
        assert taken[-1] == share * len(pattern)
        assert (np.abs(taken - float(share) * np.arange(1, len(pattern) + 1)) < 1).all()


def test_the_papers_shares_repeat_every_eight_samples() -> None:
    pattern = schedule((0.5, 0.375, 0.125))
    assert sorted(pattern) == [CODEC] * 4 + [FRAMES] * 3 + [TILING]
    assert schedule((4.0, 3.0, 1.0)) == pattern  # proportions
    with pytest.raises(ConfigError, match="no simple proportions"):
        schedule((3.14159265, 1.41421356, 1.0))


def test_a_budget_that_does_not_fit_is_refused_before_anything_is_read() -> None:
    with pytest.raises(ConfigError, match=r"budget_tokens = 18 is not 1 to 8 times the 4 patches"):
        TokenView(18, SelectionConfig(gop_frames=GOP)).check(GRID, {FRAMES})
    TokenView(18, SelectionConfig(gop_frames=GOP)).check(GRID, {CODEC})
    with pytest.raises(ConfigError, match=r"budget_tokens = 4 is below the 8 patches"):
        TokenView(4, SelectionConfig(gop_frames=GOP)).check(GRID, {CODEC})
    TokenView(4, SelectionConfig(gop_frames=GOP)).check(GRID, {IMAGE})


@pytest.mark.parametrize("mode", range(4), ids=MODES)
def test_a_frame_that_cannot_be_decoded_is_a_bad_shard(record: VideoRecord, mode: int) -> None:
    broken = dataclasses.replace(record, frames=[frame[: len(frame) // 2] for frame in record.frames])
    with pytest.raises(BadShard, match=f"{SIZE_PX}×{SIZE_PX}"):
        to_tokens(broken, mode, VIEW, None)
