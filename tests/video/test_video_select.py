"""Laws of sampling and of the choice of patches."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.errors import BadClip, ConfigError
from ove.video.select import i_frame_flags, sample_indices, select


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


@given(st.integers(1, 500), st.integers(1, 80), st.sampled_from(["uniform", "consecutive"]))
def test_samples_are_ascending_and_inside(n_decoded, n_frames, sampling):
    indices = sample_indices(n_decoded, n_frames, sampling)
    assert len(indices) == n_frames
    assert (np.diff(indices) >= 0).all()
    assert indices[0] >= 0
    assert indices[-1] <= n_decoded - 1
    if n_decoded >= n_frames:
        assert len(set(indices.tolist())) == n_frames
    if sampling == "uniform" and n_frames > 1:
        assert (indices[0], indices[-1]) == (0, n_decoded - 1)


def test_samples_follow_the_formula():
    np.testing.assert_array_equal(sample_indices(300, 64, "uniform"), [int(v) for v in np.linspace(0, 299, 64)])
    np.testing.assert_array_equal(sample_indices(5, 8, "consecutive"), [0, 0, 1, 1, 2, 2, 3, 4])
    np.testing.assert_array_equal(sample_indices(10, 4, "consecutive"), [3, 4, 5, 6])
    with pytest.raises(BadClip):
        sample_indices(0, 64, "uniform")
