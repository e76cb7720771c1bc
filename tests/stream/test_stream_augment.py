"""Pictures of any size become squares as the spec says: what is cut, what is mirrored, what is left alone."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.stream.augment import _random_part, to_square


def ramp(height: int, width: int) -> np.ndarray:
    """A picture whose first channel tells the row and whose second the column."""
    rows, columns = np.mgrid[:height, :width]
    return np.stack([rows, columns, np.zeros_like(rows)], axis=-1).astype(np.uint8)


@given(st.integers(8, 255), st.integers(8, 255), st.integers(0, 2**32 - 1))
def test_crops_lie_within_the_picture_and_have_the_area_and_proportions_asked_for(height: int, width: int, seed: int) -> None:
    part = _random_part(ramp(height, width), np.random.default_rng(seed))
    rows, columns = part.shape[:2]
    assert rows >= 1 and columns >= 1
    top, left = int(part[0, 0, 0]), int(part[0, 0, 1])
    np.testing.assert_array_equal(part, ramp(height, width)[top : top + rows, left : left + columns])
    if rows < height and columns < width:  # nothing had to be cut off to fit
        assert 0.7 - 2 / min(rows, columns) < rows * columns / (height * width) <= 1
        assert 0.8 * 0.9 < columns / rows < 1.25 * 1.1 or min(rows, columns) < 20


def test_crops_are_mirrored_half_of_the_time_and_cover_the_ranges() -> None:
    picture = ramp(200, 200)
    squares = [to_square(picture, 56, "crop", np.random.default_rng(seed)) for seed in range(300)]
    mirrored = [square[28, 0, 1] > square[28, -1, 1] for square in squares]
    assert 0.4 < np.mean(mirrored) < 0.6
    parts = [_random_part(picture, np.random.default_rng(seed)).shape for seed in range(300)]
    areas = [rows * columns / 40000 for rows, columns, _ in parts]
    aspects = [columns / rows for rows, columns, _ in parts]
    assert min(areas) > 0.69 and np.mean(areas) == pytest.approx(0.845, abs=0.02)
    assert min(aspects) > 0.79 and max(aspects) < 1.27 and np.mean(np.log(aspects)) == pytest.approx(0, abs=0.02)


@pytest.mark.parametrize(("height", "width"), [(56, 100), (100, 56)])
def test_the_centre_is_the_shorter_side_and_never_mirrored(height: int, width: int) -> None:
    for rng in (None, np.random.default_rng(0), np.random.default_rng(1)):
        square = to_square(ramp(height, width), 56, "centre", rng)
        np.testing.assert_array_equal(square, ramp(height, width)[(height - 56) // 2 :, (width - 56) // 2 :][:56, :56])


def test_none_keeps_all_of_the_picture_and_evaluation_takes_the_centre_of_what_training_crops() -> None:
    picture = ramp(112, 56)
    stretched = to_square(picture, 56, "none", np.random.default_rng(0))
    assert stretched[0, 0, 0] <= 1 and stretched[-1, -1, 0] >= 110
    assert stretched[0, 0, 1] == 0 and stretched[-1, -1, 1] == 55
    np.testing.assert_array_equal(to_square(picture, 56, "crop", None), to_square(picture, 56, "centre", None))
    assert to_square(ramp(30, 20), 56, "centre", None).shape == (56, 56, 3)


def test_large_pictures_shrink_without_aliasing() -> None:
    stripes = np.zeros((448, 448, 3), np.uint8)
    stripes[:, ::8] = 255  # interpolation alone would see columns 3 and 4 of each 8
    assert np.abs(to_square(stripes, 56, "centre", None).astype(int) - 32).max() <= 1
