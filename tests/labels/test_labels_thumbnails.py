"""The stand-in teacher: unit length, and the same change looks the same wherever and whenever it happens."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.errors import ConfigError
from ove.labels.teachers.thumbnails import IMAGE_PX, INTERVALS, LOOK_PX, WINDOW_PX, thumbnail_image, thumbnails

S = 56
LOOKS = INTERVALS * 3 * LOOK_PX**2


def _clip(count: int = 64) -> np.ndarray:
    return np.full((count, S, S, 3), 90, np.uint8)


def _changes(clip: np.ndarray) -> np.ndarray:
    return thumbnails(clip)[LOOKS:].reshape(INTERVALS, WINDOW_PX, WINDOW_PX)


def _with_event(frame: int, top: int, left: int, height: int = 12, width: int = 6) -> np.ndarray:
    clip = _clip()
    clip[frame : frame + 2, top : top + height, left : left + width] = 220
    return clip


@given(seed=st.integers(0, 999), count=st.integers(INTERVALS, 70))
@settings(max_examples=20, deadline=None)
def test_embeddings_have_length_one(seed: int, count: int) -> None:
    clip = np.random.default_rng(seed).integers(0, 256, (count, S, S, 3), dtype=np.uint8)
    clip_vector, image_vector = thumbnails(clip), thumbnail_image(clip[0])
    assert clip_vector.shape == (LOOKS + INTERVALS * WINDOW_PX**2,)
    assert image_vector.shape == (3 * IMAGE_PX**2,)
    assert np.linalg.norm(clip_vector) == pytest.approx(1, abs=1e-5)
    assert np.linalg.norm(image_vector) == pytest.approx(1, abs=1e-5)


def test_a_still_clip_has_looks_and_no_changes() -> None:
    assert np.all(_changes(_clip()) == 0)
    assert np.linalg.norm(thumbnails(_clip())) == pytest.approx(1, abs=1e-5)
    assert np.all(thumbnails(np.zeros((16, S, S, 3), np.uint8)) == 0)


@pytest.mark.parametrize(("frame", "top", "left"), [(3, 20, 20), (30, 4, 40), (46, 30, 12)])
def test_an_event_looks_the_same_wherever_and_whenever(frame: int, top: int, left: int) -> None:
    here, there = thumbnails(_with_event(20, 16, 24)), thumbnails(_with_event(frame, top, left))
    other = thumbnails(_with_event(20, 16, 24, height=6, width=12))
    assert here @ there == pytest.approx(1, abs=1e-3)
    assert here @ other < 0.9


def test_the_strongest_change_comes_first_with_its_sign() -> None:
    clip = _with_event(5, 20, 20)
    clip[40:42, 10:20, 10:20] = 60  # darker, and less so
    changes = _changes(clip)
    assert changes[0].max() > 0 == changes[0].min()
    assert changes[1].min() < 0 == changes[1].max()
    assert np.abs(changes[0]).max() > np.abs(changes[1]).max()
    assert np.all(changes[2:] == 0)


def test_too_few_frames_are_refused() -> None:
    with pytest.raises(ConfigError, match="at least 8 frames"):
        thumbnails(_clip(7))
