"""Mosaics: what was selected is in the images, in the order of the positions."""

import json

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ove.errors import ConfigError
from ove.records import Clip, Selection
from ove.tokens import mosaics
from ove.video.patches import frames_to_patches


def a_clip(n_frames, side):
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (n_frames, 6, 6, 3), dtype=np.uint8)
    frames = np.stack([cv2.resize(frame, (side, side), interpolation=cv2.INTER_CUBIC) for frame in small])
    index = np.arange(n_frames, dtype=np.int32) * 2
    return Clip(frames, index, index / 25, np.arange(n_frames) % 4 == 0, "bitstream", "h264", 2 * n_frames, 25.0)


@given(st.integers(1, 3), st.integers(1, 3), st.integers(0, 2**32 - 1))
def test_positions_lead_back_to_the_pixels(side, n_images, seed):
    n_frames, patch_px = 5, 4
    rng = np.random.default_rng(seed)
    frames = rng.integers(0, 256, (n_frames, side * patch_px, side * patch_px, 3), dtype=np.uint8)
    flat = np.sort(rng.choice(n_frames * side * side, n_images * side * side, replace=False)).astype(np.int32)
    images, positions = mosaics.pack_mosaics(frames, Selection(flat, (n_frames, side, side)), patch_px)
    assert images.shape == (n_images, *frames.shape[1:])
    assert positions.dtype == np.int32
    for (t, y, x), patch in zip(positions, frames_to_patches(images, patch_px), strict=True):
        rows, columns = slice(y * patch_px, (y + 1) * patch_px), slice(x * patch_px, (x + 1) * patch_px)
        np.testing.assert_array_equal(patch, frames[t, rows, columns].reshape(-1))
    assert (np.lexsort(positions.T[::-1]) == np.arange(len(positions))).all()  # t, then y, then x


def test_the_files_are_those_that_the_reader_looks_for(tmp_path):
    clip = a_clip(8, 56)
    flat = np.sort(np.random.default_rng(0).choice(8 * 16, 48, replace=False)).astype(np.int32)
    selection = Selection(flat, (8, 4, 4))
    (tmp_path / "clip").mkdir()
    (tmp_path / "clip" / "mosaic_007.jpg").touch()  # of an earlier call with a larger budget
    entry = mosaics.write(tmp_path / "clip", "clip", clip, selection, 14, tmp_path / "folder" / "clip.mp4")
    names = ["frame_ids.npy", "meta.json", "mosaic_000.jpg", "mosaic_001.jpg", "mosaic_002.jpg", "positions_thw.npy"]
    assert sorted(path.name for path in (tmp_path / "clip").iterdir()) == names
    assert entry == {
        "id": "clip",
        "image": [str(tmp_path / "clip" / name) for name in names[2:5]],
        "positions_thw": str(tmp_path / "clip" / "positions_thw.npy"),
    }
    assert json.loads((tmp_path / "clip" / "meta.json").read_text())["video"] == str(tmp_path / "folder" / "clip.mp4")
    np.testing.assert_array_equal(np.load(tmp_path / "clip" / "frame_ids.npy"), clip.frame_index)
    expected, positions = mosaics.pack_mosaics(clip.frames, selection, 14)
    found = np.load(tmp_path / "clip" / "positions_thw.npy")
    assert (found.dtype, found.shape) == (np.int32, (48, 3))
    np.testing.assert_array_equal(found, positions)
    images = np.stack([cv2.imread(path, cv2.IMREAD_COLOR_RGB) for path in entry["image"]])
    assert np.abs(images.astype(int) - expected).mean() < 2  # JPEG
    # 4:4:4: the first component is sampled as often as the others.
    data = (tmp_path / "clip" / "mosaic_000.jpg").read_bytes()
    start = data.index(b"\xff\xc0")
    assert data[start + 11] == 0x11


def test_a_budget_that_fills_no_image_is_refused():
    with pytest.raises(ConfigError, match="multiple of 16, for example 32"):
        mosaics.pack_mosaics(a_clip(4, 56).frames, Selection(np.arange(30, dtype=np.int32), (4, 4, 4)), 14)
    with pytest.raises(ConfigError, match="for example 16"):
        mosaics.check_budget(3, 16)
