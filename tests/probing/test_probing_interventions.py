"""What an intervention changes, and what it leaves as it is."""

import dataclasses
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, GRID, RECORDS, T, frames_of, record_of

from ove.config import SelectionConfig
from ove.errors import BadClip, ConfigError
from ove.probing import dataset as looks_module
from ove.probing.dataset import ProbeDataset
from ove.probing.interventions import intervene
from ove.records import on_time_grid
from ove.shards.schema import VideoRecord, encode_frames
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView
from ove.video.patches import frames_to_patches

VIEW = TokenView(BUDGET, SelectionConfig(gop_frames=GOP))
WHOLE = 8
"""Tokens of the two frames that are kept whole; the other 8 were chosen."""


def seen(folder: Path, kind: str, seed: int = 0, view: TokenView = VIEW) -> tuple[np.ndarray, np.ndarray]:
    shards = ShardSet.open(folder)
    return intervene(shards.video(3), shards.video(6), kind, view, np.random.default_rng(seed))


def differing(patches: np.ndarray, others: np.ndarray) -> np.ndarray:
    return np.flatnonzero((patches != others).any(axis=1))


def nearest(patch: np.ndarray, number: int) -> int:
    """Flat index of the patch of a record that looks most like it (JPEG changes the numbers a little)."""
    every = frames_to_patches(frames_of(number), 14).astype(float)
    return int(np.abs(every - patch).mean(axis=1).argmin())


@pytest.mark.parametrize("kind", ["none", "non_motion", "other_video", "shuffle"])
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


def frame_of(flat: int) -> int:
    return flat // (GRID[1] * GRID[2])


def test_non_motion_takes_patches_of_the_same_frame_where_it_has_enough(shard_folder: Path) -> None:
    places_seen = 0
    steps = on_time_grid(np.arange(GRID[0]), GRID[0])
    for seed in range(4):
        intact, places = seen(shard_folder, "none")
        patches, _ = seen(shard_folder, "non_motion", seed)
        chosen = [nearest(patch, 3) for patch in intact]
        changed = differing(patches, intact)
        wanted = np.bincount([frame_of(chosen[i]) for i in changed], minlength=GRID[0])
        spare = 4 - np.bincount([frame_of(flat) for flat in chosen], minlength=GRID[0])
        for i in changed:
            source, own = frame_of(nearest(patches[i], 3)), frame_of(chosen[i])
            assert steps[own] == places[i, 0]
            if wanted[own] <= spare[own] and (wanted <= spare).all():
                assert source == own
                places_seen += 1
            assert abs(source - own) <= 2  # the frames that are kept whole have none
    assert places_seen > 0


def boxed(number: int) -> VideoRecord:
    """A record whose lower row is padding: black in all frames, never chosen."""
    valid = np.array([[True, True, True], [True, True, True], [False, False, False]])
    frames = np.random.default_rng(number).integers(60, 255, (T, 42, 42, 3), dtype=np.uint8)
    frames[:, 28:] = 0
    saliency = np.random.default_rng(number).random((T, 3, 3)).astype(np.float16)
    record = record_of(InputFile(Path("x"), f"{number:04d}", None))
    return dataclasses.replace(record, frames=encode_frames(frames, 95), size_px=42, saliency=saliency, valid=valid)


@pytest.mark.parametrize("kind", ["non_motion", "other_video"])
@pytest.mark.parametrize("policy", ["keep", "score"])
def test_padding_is_never_shown_instead(kind: str, policy: str) -> None:
    view = TokenView(24, SelectionConfig("patches", GOP, policy))
    for seed in range(3):
        patches, _ = intervene(boxed(1), boxed(2), kind, view, np.random.default_rng(seed))
        assert (patches.mean(axis=1) > 60).all(), "a black patch"


def test_frames_whose_valid_patches_are_all_chosen_keep_their_content() -> None:
    view = TokenView(24, SelectionConfig(gop_frames=GOP))  # two frames of six valid patches, and twelve of the others
    intact, _ = intervene(boxed(1), boxed(2), "none", view, np.random.default_rng(0))
    for kind in ("non_motion", "other_video"):
        patches, positions = intervene(boxed(1), boxed(2), kind, view, np.random.default_rng(0))
        changed = differing(patches, intact)
        assert len(changed) == 6
        assert not np.isin(positions[changed, 0], on_time_grid(np.arange(T), T)[[0, GOP]]).any()


def test_another_video_lends_no_patch_of_a_frame_that_is_kept_whole_and_repeats_only_at_need(shard_folder: Path) -> None:
    intact, _ = seen(shard_folder, "none")
    for seed in range(5):
        patches, _ = seen(shard_folder, "other_video", seed)
        shown = [nearest(patches[i], 6) for i in differing(patches, intact)]
        assert not {frame_of(flat) for flat in shown} & {0, GOP} and len(set(shown)) == len(shown)
    shards = ShardSet.open(shard_folder)
    few = dataclasses.replace(shards.video(6), valid=np.array([[True, False], [False, False]]))
    few = dataclasses.replace(few, saliency=np.where(few.valid, few.saliency, np.float16(0)))
    with pytest.raises(BadClip, match="budget_tokens = 16"):
        intervene(shards.video(3), few, "other_video", VIEW, np.random.default_rng(0))


def test_another_video_of_whole_frames_alone_lends_their_patches(shard_folder: Path) -> None:
    shards = ShardSet.open(shard_folder)
    saliency = np.zeros(GRID, np.float16)
    saliency[[1, 2]] = 1  # beside the two frames that are kept whole anyway
    other = dataclasses.replace(shards.video(6), saliency=saliency)
    intact, places = seen(shard_folder, "none")
    patches, positions = intervene(shards.video(3), other, "other_video", VIEW, np.random.default_rng(0))
    np.testing.assert_array_equal(positions, places)
    shown = [nearest(patches[i], 6) for i in differing(patches, intact)]
    assert len(shown) == (BUDGET - WHOLE) // 2 and {frame_of(flat) for flat in shown} <= {0, 1, 2, GOP}


def test_another_video_that_lends_just_enough_lends_each_patch_once(shard_folder: Path) -> None:
    shards = ShardSet.open(shard_folder)
    saliency = np.zeros(GRID, np.float16)
    saliency[1], saliency[[2, 3, 5, 6], 0, 1] = 2, 1  # frame 1 is kept whole too: four patches are left to lend
    lent = {int(np.ravel_multi_index((frame, 0, 1), GRID)) for frame in (2, 3, 5, 6)}
    other = dataclasses.replace(shards.video(6), saliency=saliency)
    intact, _ = seen(shard_folder, "none")
    for seed in range(5):
        patches, _ = intervene(shards.video(3), other, "other_video", VIEW, np.random.default_rng(seed))
        shown = [nearest(patches[i], 6) for i in differing(patches, intact)]
        assert len(shown) == len(lent) and set(shown) == lent


def test_the_other_video_is_never_the_same_one_and_may_be_any(shard_folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shards = ShardSet.open(shard_folder)
    asked: list[tuple[str, str]] = []

    def remember(record: VideoRecord, other: VideoRecord, kind: str, *rest: Any) -> tuple[np.ndarray, np.ndarray]:
        asked.append((record.key, other.key))
        return np.zeros((1, 588), np.uint8), np.zeros((1, 3), np.int32)

    monkeypatch.setattr(looks_module, "intervene", remember)
    for seed in range(12):
        dataset = ProbeDataset(shards, CLASSES, "codec", VIEW, "other_video", seed)
        for index in (0, RECORDS - 1):
            dataset(index)
            dataset(index)
    assert all(key != other for key, other in asked) and asked[::2] == asked[1::2]
    assert len({other for _, other in asked}) > 8
    ProbeDataset(shards, CLASSES, "codec", VIEW, "shuffle")(3)
    assert asked[-1] == ("0003", "0003")


def test_other_video_shows_patches_that_were_chosen_there(shard_folder: Path) -> None:
    intact, _ = seen(shard_folder, "none")
    patches, _ = seen(shard_folder, "other_video")
    shards = ShardSet.open(shard_folder)
    theirs = {nearest(p, 6) for p in intervene(shards.video(6), shards.video(3), "none", VIEW, np.random.default_rng(0))[0]}
    assert {nearest(patches[i], 6) for i in differing(patches, intact)} <= theirs


def test_shuffle_keeps_patches_and_the_set_of_positions(shard_folder: Path) -> None:
    intact, places = seen(shard_folder, "none")
    patches, positions = seen(shard_folder, "shuffle")
    np.testing.assert_array_equal(patches, intact)
    assert not np.array_equal(positions, places)
    assert sorted(map(tuple, positions)) == sorted(map(tuple, places))


def test_a_budget_that_leaves_nothing_to_put_in_is_refused(shard_folder: Path) -> None:
    with pytest.raises(ConfigError, match="leaves too few patches"):
        seen(shard_folder, "non_motion", view=TokenView(31, SelectionConfig(gop_frames=GOP)))
    with pytest.raises(ConfigError, match=r"'blur' is none of 'none', 'non_motion'"):
        seen(shard_folder, "blur")


def test_ones_own_intervention_counts_and_is_checked(shard_folder: Path) -> None:
    intact, places = seen(shard_folder, "none")
    patches, positions = seen(shard_folder, "own_functions:darker")
    np.testing.assert_array_equal(patches, intact // 2)
    np.testing.assert_array_equal(positions, places)
    found = ProbeDataset(ShardSet.open(shard_folder), CLASSES, "codec", VIEW, "own_functions:darker")(3)
    np.testing.assert_array_equal(found.patches, patches)
    with pytest.raises(ConfigError, match=r"must return patches \(16, 588\) and positions \(16, 3\)"):
        seen(shard_folder, "own_functions:fewer")
