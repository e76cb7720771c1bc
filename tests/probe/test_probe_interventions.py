"""What an intervention changes, and what it leaves as it is."""

from pathlib import Path

import numpy as np
import pytest
from synthetic import BUDGET, GOP, GRID, frames_of

from ove.config.probe import INTERVENTIONS
from ove.errors import ConfigError
from ove.probe.interventions import see_changed
from ove.shards.read import ShardSet
from ove.stream.modes import View
from ove.video.patches import on_time_grid, patchify

VIEW = View(BUDGET, GOP, "keep")
WHOLE = 8
"""Tokens of the two frames that are kept whole; the other 8 were chosen."""


def seen(folder: Path, kind: str, seed: int = 0, view: View = VIEW) -> tuple[np.ndarray, np.ndarray]:
    shards = ShardSet.open(folder)
    return see_changed(shards.video(3), shards.video(6), kind, view, np.random.default_rng(seed))


def differing(patches: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.flatnonzero((patches != others).any(axis=1))


def nearest(patch: np.ndarray, number: int) -> int:
    """Flat index of the patch of a record that looks most like it (JPEG changes the numbers a little)."""
    every = patchify(frames_of(number), 14).astype(float)
    return int(np.abs(every - patch).mean(axis=1).argmin())


@pytest.mark.parametrize("kind", INTERVENTIONS)
def test_number_and_seed(shard_folder: Path, kind: str) -> None:
    patches, positions = seen(shard_folder, kind)
    assert patches.shape == (BUDGET, 588) and positions.shape == (BUDGET, 3)
    again = seen(shard_folder, kind)
    np.testing.assert_array_equal(patches, again[0])
    np.testing.assert_array_equal(positions, again[1])


@pytest.mark.parametrize("kind", ["non_motion", "other_video"])
def test_half_of_the_choice_gets_other_content_in_the_same_places(shard_folder: Path, kind: str) -> None:
    intact, places = seen(shard_folder, "none")
    patches, positions = seen(shard_folder, kind)
    np.testing.assert_array_equal(positions, places)
    changed = differing(patches, intact)
    assert len(changed) == (BUDGET - WHOLE) // 2
    steps = on_time_grid(np.arange(GRID[0]), GRID[0])
    assert not np.isin(places[changed, 0], steps[[0, GOP]]).any()  # not in frames that are kept whole
    assert not np.array_equal(differing(seen(shard_folder, kind, 1)[0], intact), changed)


def test_non_motion_shows_patches_of_the_same_video_that_were_not_chosen(shard_folder: Path) -> None:
    intact, _ = seen(shard_folder, "none")
    patches, _ = seen(shard_folder, "non_motion")
    chosen = {nearest(patch, 3) for patch in intact}
    shown = [nearest(patches[i], 3) for i in differing(patches, intact)]
    assert len(set(shown)) == len(shown) and not chosen & set(shown)


def test_other_video_shows_patches_that_were_chosen_there(shard_folder: Path) -> None:
    intact, _ = seen(shard_folder, "none")
    patches, _ = seen(shard_folder, "other_video")
    shards = ShardSet.open(shard_folder)
    theirs = {nearest(p, 6) for p in see_changed(shards.video(6), shards.video(3), "none", VIEW, np.random.default_rng(0))[0]}
    assert {nearest(patches[i], 6) for i in differing(patches, intact)} <= theirs


def test_shuffle_keeps_patches_and_the_set_of_positions(shard_folder: Path) -> None:
    intact, places = seen(shard_folder, "none")
    patches, positions = seen(shard_folder, "shuffle")
    np.testing.assert_array_equal(patches, intact)
    assert not np.array_equal(positions, places)
    assert sorted(map(tuple, positions)) == sorted(map(tuple, places))


def test_a_budget_that_leaves_nothing_to_put_in_is_refused(shard_folder: Path) -> None:
    with pytest.raises(ConfigError, match="leaves too few patches"):
        seen(shard_folder, "non_motion", view=View(31, GOP, "keep"))
    with pytest.raises(ConfigError, match="none of none, non_motion"):
        seen(shard_folder, "blur")
