"""Laws of sampling and of the choice of patches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.config import SelectionConfig, VideoConfig, video_preset
from ove.config.mapping import from_mapping, to_mapping
from ove.errors import BadClip, ConfigError
from ove.records import Saliency, Selection
from ove.video.select import SELECTION_RULES, budget_of, choose_patches, i_frame_flags, select


@st.composite
def clips(draw):
    shape = draw(st.tuples(st.integers(1, 9), st.integers(1, 4), st.integers(1, 5)))
    gop_frames = draw(st.integers(1, 10))
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    # Few distinct values, so that ties at the border are the rule.
    scores = rng.integers(0, draw(st.sampled_from([2, 5, 1000])), shape).astype(np.float32)
    return scores, i_frame_flags(shape[0], gop_frames)


def brute_force(scores, whole, barred, budget):
    """Flat indices by a plain sort: whole frames first, then by falling score, then by index."""
    _, rows, columns = scores.shape
    frame = np.arange(scores.size) // (rows * columns)
    order = sorted(
        (i for i in range(scores.size) if not barred[frame[i]]),
        key=lambda i: (not whole[frame[i]], -scores.reshape(-1)[i], i),
    )
    return np.sort(order[:budget])


@given(clips(), st.sampled_from(["keep", "first", "score", "drop"]), st.data())
def test_selection_equals_a_plain_sort(clip, policy, data):
    scores, is_i_frame = clip
    n_frames, rows, columns = scores.shape
    whole = {"keep": is_i_frame, "first": np.arange(n_frames) == 0}.get(policy, np.zeros(n_frames, bool))
    barred = is_i_frame if policy == "drop" else np.zeros(n_frames, bool)
    least, most = max(1, int(whole.sum()) * rows * columns), int((~barred).sum()) * rows * columns
    if most < least:
        with pytest.raises(ConfigError):
            select(scores, is_i_frame, least, policy)
        return
    budget = data.draw(st.integers(least, most))
    selection = select(scores, is_i_frame, budget, policy)
    assert len(selection.flat) == budget
    assert (np.diff(selection.flat) > 0).all()
    assert selection.grid_tyx == scores.shape
    np.testing.assert_array_equal(selection.flat, brute_force(scores, whole, barred, budget))


@given(clips(), st.data())
def test_permuting_the_patches_of_distinct_scores_permutes_the_choice(clip, data):
    shape = clip[0].shape
    rng = np.random.default_rng(data.draw(st.integers(0, 2**32 - 1)))
    scores = rng.permutation(np.prod(shape)).astype(np.float32)
    permutation = rng.permutation(scores.size)
    no_i_frames = np.zeros(shape[0], bool)
    budget = data.draw(st.integers(1, scores.size))
    plain = select(scores.reshape(shape), no_i_frames, budget, "keep").flat
    permuted = select(scores[permutation].reshape(shape), no_i_frames, budget, "keep").flat
    assert set(permutation[permuted]) == set(plain)


def test_budgets_that_cannot_be_met_say_what_to_change():
    scores, flags = np.zeros((8, 2, 2), np.float32), i_frame_flags(8, 4)
    with pytest.raises(ConfigError, match="below the 8 patches"):
        select(scores, flags, 7, "keep")
    with pytest.raises(ConfigError, match="more than the 32 patches"):
        select(scores, flags, 33, "score")
    with pytest.raises(ConfigError, match="more than the 24 patches"):
        select(scores, flags, 25, "drop")
    with pytest.raises(ConfigError, match="none of"):
        select(scores, flags, 16, "kep")
    with pytest.raises(BadClip, match="not numbers"):
        select(np.full((8, 2, 2), np.nan, np.float32), flags, 16, "keep")


@st.composite
def letterboxed(draw):
    scores, is_i_frame = draw(clips())
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    valid = rng.random(scores.shape[1:]) < draw(st.sampled_from([0.3, 0.7, 1.0]))
    return np.where(valid, scores, np.float32(-1)), is_i_frame, valid


@given(letterboxed(), st.sampled_from(["keep", "first", "score", "drop"]), st.sampled_from(["exclude", "zero"]), st.data())
def test_padding_is_never_chosen_or_comes_last(clip, policy, outside, data):
    scores, is_i_frame, valid = clip
    n_frames, rows, columns = scores.shape
    whole = {"keep": is_i_frame, "first": np.arange(n_frames) == 0}.get(policy, np.zeros(n_frames, bool))
    barred = is_i_frame if policy == "drop" else np.zeros(n_frames, bool)
    n_valid, shown = int(valid.sum()), int((~barred).sum())
    least, most = max(1, int(whole.sum()) * n_valid), shown * (rows * columns if outside == "zero" else n_valid)
    if most < least:
        with pytest.raises((BadClip, ConfigError)):
            select(scores, is_i_frame, least, policy, valid, outside)
        return
    budget = data.draw(st.integers(least, most))
    flat = select(scores, is_i_frame, budget, policy, valid, outside).flat
    # By a plain sort: valid patches of whole frames, then valid ones by falling score, then padding; ties by index.
    in_picture, frame = np.tile(valid.ravel(), n_frames), np.arange(scores.size) // (rows * columns)
    order = sorted(
        (i for i in range(scores.size) if not barred[frame[i]]),
        key=lambda i: (not in_picture[i], not (whole[frame[i]] and in_picture[i]), -scores.reshape(-1)[i], i),
    )
    np.testing.assert_array_equal(flat, np.sort(order[:budget]))
    if outside == "exclude":
        assert in_picture[flat].all()


@given(clips(), st.integers(1, 9), st.sampled_from(["keep", "score", "drop"]), st.data())
def test_buckets_share_the_budget_equally(clip, buckets, policy, data):
    scores, is_i_frame = clip
    n_frames, rows, columns = scores.shape
    whole = is_i_frame if policy == "keep" else np.zeros(n_frames, bool)
    open_ = ~is_i_frame if policy != "score" else np.ones(n_frames, bool)
    kept = int(whole.sum()) * rows * columns
    most = int((whole | open_).sum()) * rows * columns
    if most < max(kept, 1):
        return
    budget = data.draw(st.integers(max(kept, 1), most))
    flat = select(scores, is_i_frame, budget, policy, buckets=buckets).flat
    assert len(flat) == budget
    frame = flat // (rows * columns)
    bucket = np.arange(n_frames) * buckets // n_frames
    counts = np.bincount(bucket[frame[~whole[frame]]], minlength=buckets)
    there = np.bincount(bucket[open_], minlength=buckets) * rows * columns
    assert (counts >= np.minimum((budget - kept) // buckets, there)).all()
    # Within a bucket the best ones, of equal ones the first.
    for number in range(buckets):
        members = [i for i in range(scores.size) if bucket[i // (rows * columns)] == number and open_[i // (rows * columns)]]
        best = sorted(members, key=lambda i: (-scores.reshape(-1)[i], i))[: counts[number]]
        assert set(best) <= set(flat.tolist())
    if buckets == 1:
        np.testing.assert_array_equal(flat, select(scores, is_i_frame, budget, policy).flat)


@given(
    clips(),
    st.sampled_from(list(VideoConfig.PRESETS)),
    st.sampled_from(["keep", "first", "score"]),
    st.integers(1, 3),
    st.floats(0.4, 1.0),
)
def test_every_preset_selects_as_many_as_the_budget_says(clip, preset, policy, buckets, share):
    scores, is_i_frame = clip
    n_frames, rows, columns = scores.shape
    valid = np.ones((rows, columns), bool)
    if preset == "lmm":
        valid[0] = rows == 1
    config = video_preset(preset, n_frames=max(n_frames, 3), iframe_policy=policy, buckets=buckets)
    budget = max(int(share * n_frames * valid.sum()), int(is_i_frame.sum()) * int(valid.sum()), 1)
    top = np.float32(max(scores.max(), 1))
    flat = choose_patches(
        Saliency(np.where(valid, scores / top, np.float32(-1)), valid), is_i_frame, budget, config.selection
    ).flat
    assert len(flat) == len(set(flat.tolist())) == budget
    assert valid.ravel()[flat % (rows * columns)].all()


def test_frames_are_whole_and_evenly_spaced_and_the_last_is_cut_by_score():
    scores = np.random.default_rng(0).random((64, 4, 4), np.float32)
    flags, config = i_frame_flags(64, 32), video_preset("frames")
    for budget, spaced in ((0.125, [0, 9, 18, 27, 36, 45, 54, 63]), (64, [0, 21, 42, 63]), (16, [0])):
        flat = choose_patches(Saliency(scores), flags, budget, config.selection).flat
        np.testing.assert_array_equal(flat.reshape(-1, 16), np.array(spaced)[:, None] * 16 + np.arange(16))
    flat = choose_patches(Saliency(scores), flags, 37, config.selection).flat
    np.testing.assert_array_equal(flat[:32] // 16, [0] * 16 + [31] * 16)
    np.testing.assert_array_equal(flat[32:] - 63 * 16, np.sort(np.argsort(-scores[63].ravel())[:5]))
    np.testing.assert_array_equal(
        choose_patches(Saliency(scores), flags, 5, config.selection).flat, np.sort(np.argsort(-scores[0].ravel())[:5])
    )


def test_static_clips_give_four_frames_whole():
    rng = np.random.default_rng(1)
    flags, config = i_frame_flags(64, 32), video_preset("probe")

    def whole(scores, budget=2048):
        flat = choose_patches(Saliency(scores.astype(np.float32)), flags, budget, config.selection).flat
        assert len(flat) == budget
        return np.flatnonzero(np.bincount(flat // 256, minlength=64) == 256).tolist()

    low = rng.random((64, 16, 16)) * 0.5  # its 95th percentile is 0.475, below 126 of 255
    assert whole(low) == [0, 21, 42, 63]
    assert whole(low, 600) == [0, 63] and whole(low, 100) == []
    flat = 0.7 + 0.1 * rng.random((64, 16, 16))  # high, but hardly above its median
    assert whole(flat) == [0, 21, 42, 63]
    peaked = rng.random((64, 16, 16))  # its 95th percentile is twice the median
    assert whole(peaked) == [0, 32]
    always_high = np.full((64, 16, 16), 0.99)
    assert whole(always_high)[:2] == [0, 1]  # 252 or more of 255 is not static: I-frames, then ties by index


@pytest.mark.parametrize(
    ("high", "middle", "static"),
    [
        (125.9 / 255, 0.0, True),  # high scores below 126: static, whatever the middle
        (126.1 / 255, 0.0, False),
        (0.9, 0.9 * (1 - 0.379), True),  # below 252, and less than 0.38 of itself above the middle
        (0.9, 0.9 * (1 - 0.381), False),
        (251.9 / 255, 251.9 / 255, True),
        (252.1 / 255, 252.1 / 255, False),
    ],
)
def test_a_clip_is_static_by_the_rule_of_the_specification(high, middle, static):
    """Spec §2, with scores of two values: 6 %, and so the 95th percentile, are high, the rest is the middle."""
    scores = np.full((16, 8, 8), middle, np.float32)
    scores[:, 0, :4] = high
    flat = choose_patches(Saliency(scores), i_frame_flags(16, 8), 256, video_preset("probe", gop_frames=8).selection).flat
    whole = np.flatnonzero(np.bincount(flat // 64, minlength=16) == 64).tolist()
    assert (whole == [0, 5, 10, 15]) == static
    assert static or {0, 8} <= set(whole)


@pytest.mark.parametrize(
    ("flat", "grid"),
    [
        ([0, 5, 8], (2, 2, 3)),
        ([0, 5, 8, 9, 11], (2, 2, 3)),
        ([0, 5, 5, 11], (2, 2, 3)),
        ([5, 0, 8, 11], (2, 2, 3)),
        ([-1, 5, 8, 11], (2, 2, 3)),
        ([0, 5, 8, 12], (2, 2, 3)),
        ([0, 5, 8, 11], (2, 3, 2)),
    ],
    ids=str,
)
def test_a_rule_that_returns_anything_but_the_budget_in_ascending_patches_is_refused(flat, grid, monkeypatch):
    saliency, flags, config = Saliency(np.zeros((2, 2, 3), np.float32)), np.array([True, False]), SelectionConfig()
    for chosen, shape in (([0, 5, 8, 11], (2, 2, 3)), (flat, grid)):
        made = Selection(np.array(chosen, np.int32), shape)
        monkeypatch.setitem(SELECTION_RULES, "patches", lambda *_, made=made: made)
        if chosen != flat:
            assert choose_patches(saliency, flags, 4, config) is made
    with pytest.raises(ConfigError, match=r"must choose 4 ascending patches of \(2, 2, 3\)"):
        choose_patches(saliency, flags, 4, config)


def test_padding_has_no_say_in_whether_a_clip_is_static():
    valid = np.zeros((8, 8), bool)
    valid[3:6] = True
    scores = np.where(valid, np.full((16, 8, 8), 0.9, np.float32), np.float32(-1))
    config = video_preset("probe", gop_frames=8)
    flat = choose_patches(Saliency(scores, valid), i_frame_flags(16, 8), 4 * 24, config.selection).flat
    assert np.flatnonzero(np.bincount(flat // 64, minlength=16)).tolist() == [0, 5, 10, 15]


def test_budgets_are_tokens_or_shares():
    grid = (64, 16, 16)
    assert [budget_of(b, grid) for b in (2048, 2048.0, 0.125, 0.03125, 1.0, 1)] == [2048, 2048, 2048, 512, 16384, 1]
    assert budget_of(1e-9, grid) == 1
    for wrong in (0, 0.0, -1, 1.5, -0.5, float("nan"), float("inf")):
        with pytest.raises(ConfigError, match="neither a number of tokens"):
            budget_of(wrong, grid)


def test_a_clip_with_too_little_picture_says_so():
    scores, valid = np.zeros((4, 2, 2), np.float32), np.array([[True, False], [False, False]])
    with pytest.raises(BadClip, match="1 patches a frame lie wholly within the picture"):
        select(scores, np.zeros(4, bool), 5, "keep", valid)
    assert len(select(scores, np.zeros(4, bool), 5, "keep", valid, "zero").flat) == 5
    with pytest.raises(ConfigError, match="none of 'exclude', 'zero'"):
        SelectionConfig(outside="pad")
    for preset in VideoConfig.PRESETS:
        with pytest.raises(BadClip, match="0 patches a frame"):
            choose_patches(Saliency(scores, np.zeros((2, 2), bool)), i_frame_flags(4, 2), 2, video_preset(preset).selection)


def test_presets_name_the_nearest_one_and_give_way_to_other_keys():
    assert video_preset("paper") == VideoConfig()
    probe = video_preset("probe", centre_prior=0.5)
    assert (probe.motion_feature, probe.residual_feature, probe.centre_prior) == ("variance", "gradient", 0.5)
    assert from_mapping(VideoConfig, {"preset": "lmm", "outside": "zero"}) == VideoConfig(
        geometry="letterbox", selection=SelectionConfig(outside="zero")
    )
    assert from_mapping(VideoConfig, to_mapping(probe)) == probe
    with pytest.raises(ConfigError, match=r"video.preset = 'prob' is none of paper, probe, lmm, frames; did you mean probe\?"):
        video_preset("prob")
    with pytest.raises(ConfigError, match=r"did you mean video\.centre_prior"):
        video_preset("probe", center_prior=0.1)
    with pytest.raises(ConfigError, match="is none of paper"):
        from_mapping(VideoConfig, {"preset": ["probe"]}, "video.")
