"""Pictures of batches: every patch is where it was, and what the encoder does not see is dark."""

from pathlib import Path

import cv2
import numpy as np
import pytest

from ove.records import CODEC, IMAGE, MODES, TILING, Batch
from ove.video.patches import frames_to_patches
from ove.view.batches import STEPS, FirstBatches, draw, put_back

PX = 14


def batch_of(patches: np.ndarray, positions: np.ndarray, modes: list[int]) -> Batch:
    """A batch in which all samples are alike but for their mode."""
    n = len(modes)
    return Batch(
        patches=np.stack([patches] * n),
        positions=np.stack([positions] * n).astype(np.int32),
        labels=np.full((n, 3), 7, np.int32),
        mode=np.array(modes, np.int32),
        replaced=np.zeros(n, bool),
        source=np.zeros(n, np.int32),
        record=np.arange(n, dtype=np.int64),
    )


def clip(seed: int = 0) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """(frames, patches, positions) of three frames of 2 × 3 patches."""
    frames = np.random.default_rng(seed).integers(0, 256, (3, 2 * PX, 3 * PX, 3), dtype=np.uint8)
    tyx = np.stack(np.unravel_index(np.arange(18), (3, 2, 3)), axis=-1).astype(np.int32)
    return frames, frames_to_patches(frames, PX), tyx


def test_patches_go_back_to_where_they_were_in_any_order() -> None:
    frames, patches, tyx = clip()
    order = np.random.default_rng(1).permutation(18)
    times, found, seen = put_back(patches[order], tyx[order] * np.array([20, 1, 1], np.int32), PX)
    assert times.tolist() == [0, 20, 40] and seen.all()
    np.testing.assert_array_equal(found, frames)


def test_hidden_places_show_what_was_there_last_and_are_marked_as_hidden() -> None:
    frames, patches, tyx = clip()
    keep = np.ones(18, bool)
    keep[[0, 6, 12, 13]] = False  # (0, 0) never, (0, 1) not in the last frame
    _, found, seen = put_back(patches[keep], tyx[keep], PX)
    assert np.argwhere(~seen).tolist() == [[0, 0, 0], [1, 0, 0], [2, 0, 0], [2, 0, 1]]
    np.testing.assert_array_equal(found[2, :PX, PX : 2 * PX], frames[1, :PX, PX : 2 * PX])
    assert len(np.unique(found[:, :PX, :PX])) == 1


def test_a_picture_is_bright_where_there_are_patches_and_dark_elsewhere() -> None:
    tyx = np.array([[0, 0, 0], [0, 1, 1], [5, 0, 1]], np.int32)
    white = np.full((3, 3 * PX**2), 255, np.uint8)
    picture = draw(batch_of(white, tyx, [CODEC]), 0, "vid", PX, step=1)
    tiles = picture[84 + 18 : 84 + 18 + 128, 20 : 20 + 128], picture[84 + 18 : 84 + 18 + 128, 156 : 156 + 128]
    quarters = [[[int(tile[y + 20 : y + 44, x + 20 : x + 44].mean()) for x in (0, 64)] for y in (0, 64)] for tile in tiles]
    assert quarters[0][0][0] == quarters[0][1][1] == quarters[1][0][1] == 255
    # Nothing was ever there; or something was, which is dimmed.
    assert max(quarters[0][0][1], quarters[0][1][0], quarters[1][1][0]) < 40
    assert quarters[1][0][0] == quarters[1][1][1] == pytest.approx(0.28 * 255, abs=2)


def test_a_tall_picture_is_cut_into_squares() -> None:
    tyx = np.stack(np.unravel_index(np.arange(10), (1, 5, 2)), axis=-1).astype(np.int32)
    patches = np.full((10, 3 * PX**2), 200, np.uint8)
    tall, wide = (draw(batch_of(patches, at, [TILING]), 0, "vid", PX, 1) for at in (tyx, tyx[:, [0, 2, 1]]))
    assert tall.shape == wide.shape  # three squares, and one: room for four at least
    assert (tall[84 + 18 + 32, 20 + 136 * np.arange(3) + 60] == 200).all()


def test_the_first_samples_of_each_bank_and_mode_are_drawn_and_no_more(tmp_path: Path) -> None:
    _, patches, tyx = clip()
    pictures = FirstBatches(tmp_path / "pictures", PX, each=2)
    videos = batch_of(patches, tyx, [CODEC, CODEC, CODEC])
    images = batch_of(patches[:6], tyx[:6], [IMAGE])
    first = pictures(1, {"vid": videos, "obj": images})
    assert [path.name for path in first] == [
        f"step_0000001_{name}.png" for name in ("vid_codec_1", "vid_codec_2", "obj_image_1")
    ]
    assert [path.name for path in pictures(2, {"vid": videos, "obj": images})] == ["step_0000002_obj_image_2.png"]
    assert pictures(3, {"vid": videos, "obj": images}) == []
    assert all(cv2.imread(str(path)) is not None for path in first)
    for step in range(4, STEPS + 1):
        assert pictures(step, {"vid": videos}) == []
    # A mode that comes so late is not waited for.
    assert pictures(STEPS + 1, {"vid": batch_of(patches, tyx, [MODES.index("frames")])}) == []
    assert FirstBatches(tmp_path / "none", PX, each=0)(1, {"vid": videos}) == [] and not (tmp_path / "none").exists()
