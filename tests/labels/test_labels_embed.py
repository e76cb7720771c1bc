"""The stand-in teacher: unit length, deaf to brightness, and awake to short events."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.errors import ConfigError
from ove.labels.embed import INTERVALS, THUMBNAIL_PX, thumbnail_image, thumbnails

S = 56
LOOK = 3 * THUMBNAIL_PX**2


def _clip(seed: int, count: int = 64) -> np.ndarray:
    rng = np.random.default_rng(seed)
    still = np.kron(rng.integers(40, 200, (7, 7, 3), dtype=np.uint8), np.ones((8, 8, 1), np.uint8))
    return np.repeat(still[None], count, axis=0)


@given(seed=st.integers(0, 999), count=st.integers(INTERVALS, 70), side=st.sampled_from([4, 12, 16]))
@settings(max_examples=20, deadline=None)
def test_embeddings_have_length_one(seed: int, count: int, side: int) -> None:
    clip = np.random.default_rng(seed).integers(0, 256, (count, S, S, 3), dtype=np.uint8)
    clip_vector, image_vector = thumbnails(clip, side), thumbnail_image(clip[0], side)
    assert clip_vector.shape == (INTERVALS * 4 * side * side,)
    assert image_vector.shape == (3 * side * side,)
    assert np.linalg.norm(clip_vector) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(image_vector) == pytest.approx(1, abs=1e-5)


def test_more_light_changes_nothing() -> None:
    clip = _clip(1)
    assert np.dot(thumbnails(clip), thumbnails(clip + np.uint8(30))) == pytest.approx(1, abs=1e-3)
    assert np.dot(thumbnail_image(clip[0]), thumbnail_image(clip[0] + np.uint8(30))) == pytest.approx(1, abs=1e-3)


def test_a_still_clip_has_no_motion_and_a_uniform_one_nothing_at_all() -> None:
    parts = thumbnails(_clip(2)).reshape(INTERVALS, -1)
    assert np.all(parts[:, LOOK:] == 0)
    assert np.all(np.linalg.norm(parts[:, :LOOK], axis=1) > 0)
    assert np.all(thumbnails(np.full((16, S, S, 3), 7, np.uint8)) == 0)


@pytest.mark.parametrize(("frame", "interval"), [(1, 0), (8, 0), (9, 1), (24, 2), (25, 3), (63, 7)])
def test_an_event_is_seen_in_its_interval_with_its_sign(frame: int, interval: int) -> None:
    """A step from frame f − 1 to f belongs to the interval of f − 1, also across the border."""
    for sign in (1, -1):
        clip = _clip(3).astype(int)
        clip[frame:, :, : S // 2] += sign * 40
        parts = thumbnails(clip.astype(np.uint8)).reshape(INTERVALS, -1)[:, LOOK:]
        assert np.flatnonzero(np.abs(parts).max(axis=1)).tolist() == [interval]
        steps = parts[interval].reshape(THUMBNAIL_PX, THUMBNAIL_PX)
        assert np.all(sign * steps[:, : THUMBNAIL_PX // 2] > 0)
        assert np.all(steps[:, THUMBNAIL_PX // 2 :] == 0)


def test_the_largest_step_wins_and_its_weight_is_set() -> None:
    clip = _clip(4, 16).astype(int)
    clip[1:] += 10  # within interval 0, less than the step back into interval 1
    clip[2:] -= 30
    parts = thumbnails(np.clip(clip, 0, 255).astype(np.uint8), w_motion=2.0).reshape(INTERVALS, -1)
    assert np.all(parts[0, LOOK:] < 0)
    assert np.linalg.norm(parts[0, LOOK:]) / np.linalg.norm(parts[0, :LOOK]) == pytest.approx(2, abs=1e-3)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 8 frames"):
        thumbnails(_clip(5, 7))
