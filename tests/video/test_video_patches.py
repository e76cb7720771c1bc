"""Frames and patches hold the same numbers."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.records import TIME_STEPS, on_time_grid
from ove.video.patches import all_positions, frames_to_patches, patches_to_frames, positions, take_patches

PX = 2


@st.composite
def clips(draw: st.DrawFn) -> tuple[np.ndarray, tuple[int, int, int]]:
    grid = tuple(draw(st.integers(1, 4)) for _ in range(3))
    t, y, x = grid
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    return rng.integers(0, 256, (t, y * PX, x * PX, 3), dtype=np.uint8), grid


@given(clips())
def test_unpatchify_undoes_patchify(clip: tuple[np.ndarray, tuple[int, int, int]]) -> None:
    frames, grid = clip
    np.testing.assert_array_equal(patches_to_frames(frames_to_patches(frames, PX), grid, PX), frames)


@given(clips(), st.data())
def test_gathering_is_taking_from_all_patches(clip: tuple[np.ndarray, tuple[int, int, int]], data: st.DataObject) -> None:
    frames, grid = clip
    flat = np.array(data.draw(st.lists(st.integers(0, np.prod(grid) - 1), min_size=1, max_size=20)))
    np.testing.assert_array_equal(take_patches(frames, flat, PX), frames_to_patches(frames, PX)[flat])


@given(clips())
def test_a_patch_lies_where_its_position_says(clip: tuple[np.ndarray, tuple[int, int, int]]) -> None:
    frames, grid = clip
    patches, tyx = frames_to_patches(frames, PX), positions(np.arange(np.prod(grid)), grid)
    for patch, (t, y, x) in zip(patches, tyx, strict=True):
        there = frames[t, y * PX : (y + 1) * PX, x * PX : (x + 1) * PX]
        np.testing.assert_array_equal(patch, there.reshape(-1))  # (row, column, channel)


@pytest.mark.parametrize(
    ("frames", "n_frames", "steps"),
    [([0, 63], 64, [0, 63]), ([17], 64, [17]), ([0, 1, 7], 8, [0, 9, 63]), ([0], 1, [0]), ([0, 100, 127], 128, [0, 50, 63])],
)
def test_times_lie_on_the_grid_of_64(frames: list[int], n_frames: int, steps: list[int]) -> None:
    found = on_time_grid(np.array(frames), n_frames)
    assert found.tolist() == steps
    assert found.max() < TIME_STEPS


def test_positions_that_are_shared_cannot_be_written_to():
    shared = all_positions((2, 3, 4))
    with pytest.raises(ValueError, match="read-only"):
        shared[0, 0] = 1
    assert shared.tolist() == [[t, y, x] for t in range(2) for y in range(3) for x in range(4)]
