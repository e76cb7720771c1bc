"""Dense fields from vectors, and the camera's motion taken out of them."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from video_files import P_ONLY, moving_texture

from ove import toy
from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.video.decode import read_video
from ove.video.motion import dense_field, remove_camera

VECTOR = np.dtype(
    {
        "names": ["source", "w", "h", "dst_x", "dst_y", "motion_x", "motion_y", "motion_scale"],
        "formats": ["i4", "u1", "u1", "i2", "i2", "i4", "i4", "u2"],
    }
)


def vectors(*blocks):
    """An array as FFmpeg exports it, from (source, w, h, left, top, motion_x, motion_y)."""
    array = np.zeros(len(blocks), VECTOR)
    for entry, (source, w, h, left, top, motion_x, motion_y) in zip(array, blocks, strict=True):
        entry["source"], entry["w"], entry["h"], entry["motion_scale"] = source, w, h, 4
        entry["dst_x"], entry["dst_y"] = left + w // 2, top + h // 2
        entry["motion_x"], entry["motion_y"] = motion_x, motion_y
    return array


@given(st.integers(0, 2**32 - 1), st.integers(1, 5), st.integers(1, 5), st.integers(0, 15), st.integers(0, 15))
@settings(deadline=None)
def test_field_equals_a_loop_over_vectors(seed, mb_rows, mb_columns, cut_y, cut_x):
    rng = np.random.default_rng(seed)
    blocks = []
    for source in (-1, 1):
        for y, x in np.ndindex(mb_rows, mb_columns):
            w, h = rng.choice([8, 16], 2)
            for top, left in np.ndindex(16 // h, 16 // w):
                if rng.random() < 0.7:
                    blocks.append((source, w, h, 16 * x + left * w, 16 * y + top * h, *rng.integers(-40, 40, 2)))
    rng.shuffle(blocks)
    height, width = 16 * mb_rows - cut_y, 16 * mb_columns - cut_x
    cells_of = {-1: {}, 1: {}}
    for source, w, h, left, top, dx, dy in blocks:
        for y, x in np.ndindex(h // 8, w // 8):
            cells_of[source][top // 8 + y, left // 8 + x] = np.array([dx, dy]) / 4 * (-1 if source < 0 else 1)
    expected = {name: np.zeros((2 * mb_rows, 2 * mb_columns, 2)) for name in ("l0", "l1", "both")}
    for cell in cells_of[-1].keys() | cells_of[1].keys():
        past, future = (cells_of[source].get(cell) for source in (-1, 1))
        expected["l0"][cell] = future if past is None else past
        expected["l1"][cell] = past if future is None else future
        mean, magnitude = expected["l0"][cell], np.linalg.norm(expected["l0"][cell])
        if past is not None and future is not None:
            mean, magnitude = (past + future) / 2, (np.linalg.norm(past) + np.linalg.norm(future)) / 2
            mean = mean if mean.any() else past
        expected["both"][cell] = mean / max(np.linalg.norm(mean), 1e-9) * magnitude
    crop_y, crop_x = (min(int(rng.integers(0, 12)), side - 1) for side in (height, width))
    shown = np.s_[crop_y // 8 : -(-height // 8), crop_x // 8 : -(-width // 8)]
    for lists, field_of_all in expected.items():
        field, has_vector = dense_field(vectors(*map(tuple, blocks)), height - crop_y, width - crop_x, lists, (crop_y, crop_x))
        np.testing.assert_allclose(field, field_of_all[shown], rtol=1e-5, atol=1e-5)
        covered = np.zeros((2 * mb_rows, 2 * mb_columns), bool)
        covered[tuple(zip(*(cells_of[-1].keys() | cells_of[1].keys()), strict=True)) or ([], [])] = True
        np.testing.assert_array_equal(has_vector, covered[shown])


def test_no_vectors_and_vectors_outside():
    field, has_vector = dense_field(None, 40, 24)
    assert field.shape == (5, 3, 2)
    assert not has_vector.any()
    # The coded picture may be larger than the shown one by more than a macroblock.
    _, has_vector = dense_field(vectors((-1, 16, 16, 0, 0, 4, 4), (-1, 16, 16, 48, 0, 4, 4), (-1, 16, 16, 0, 48, 4, 4)), 40, 24)
    assert has_vector.sum() == 4


def test_content_moves_the_way_it_is_drawn(write_video):
    frames = moving_texture(16, 128)  # pans half a pixel to the left, the square goes 3 pixels to the right each frame
    path = write_video("m.mp4", frames, preset="medium", crf="14", x264_params=P_ONLY)
    _, signals = read_video(path, VideoConfig(n_frames=16))
    top, size = 128 // 3, 32
    inside = np.s_[(top + 8) // 8 : (top + size - 8) // 8]
    for t in range(2, 16):
        left = 3 * t
        square = signals.motion[t, inside, (left + 8) // 8 : (left + size - 8) // 8]
        np.testing.assert_allclose(np.median(square.reshape(-1, 2), axis=0), [3, 0], atol=0.25)
        np.testing.assert_allclose(np.median(signals.motion[t, 10:].reshape(-1, 2), axis=0), [-0.5, 0], atol=0.25)


def test_references_in_the_future_show_the_same_direction(write_video):
    frames = moving_texture(24, 128, pan=1)
    path = write_video("b.mp4", frames, preset="medium", crf="14", x264_params="bframes=3:b-adapt=0:ref=1:scenecut=0")
    _, signals = read_video(path, VideoConfig(n_frames=24))
    pan = np.array(
        [np.median(field[has], axis=0) for field, has in zip(signals.motion[1:], signals.has_vector[1:], strict=True)]
    )
    # One pixel a frame, over the one to four frames to the reference; the mean where there are two.
    assert (pan[:, 0] < -0.9).all()
    assert (pan[:, 0] > -4.1).all()
    # The lists differ only in B-frames, where both are used.
    other = {lists: read_video(path, VideoConfig(n_frames=24, vectors=lists))[1].motion for lists in ("l0", "l1")}
    differ = (other["l0"] != other["l1"]).any((1, 2, 3))
    assert 8 <= differ.sum() <= 18
    np.testing.assert_array_equal(other["l0"][~differ], signals.motion[~differ])
    for motion in other.values():
        assert np.median(motion[differ][..., 0]) < -0.9


def camera(rows, columns, tx, ty, a, b):
    y, x = np.meshgrid(np.linspace(-1, 1, rows), np.linspace(-1, 1, columns), indexing="ij")
    return np.stack([tx + a * x - b * y, ty + b * x + a * y], -1)


moves = st.floats(-8, 8, width=32)


@pytest.mark.parametrize("own", [(30, 0), (0, 30), (-20, 20)])
@given(moves, moves, moves, moves, st.integers(0, 2**32 - 1))
@settings(deadline=None, max_examples=50)
def test_similarity_recovers_a_planted_camera(own, tx, ty, a, b, seed):
    rng = np.random.default_rng(seed)
    planted = camera(20, 28, tx, ty, a, b)
    motion = (planted + np.zeros((2, 1, 1, 1))).astype(np.float32)
    motion[1, 4:9, 6:12] += np.array(own, np.float32)  # an object of its own, which the second round leaves out
    has_vector = rng.random((2, 20, 28)) < 0.9
    has_vector[1, 4:9, 6:12] = True
    motion *= has_vector[..., None]
    left = remove_camera(motion, has_vector, "similarity")
    if np.abs(planted).max() < 0.1:
        return  # hardly anything moves: too few cells to fit
    assert np.abs(left[0]).max() < 1e-4
    here = np.zeros((20, 28), bool)
    here[4:9, 6:12] = True
    np.testing.assert_allclose(left[1][here & has_vector[1]], [own] * 30, atol=1e-3)
    assert np.abs(left[1][~here]).max() < 1e-3


@given(st.lists(moves, min_size=6, max_size=6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_affine_recovers_any_linear_camera(numbers, seed):
    rng = np.random.default_rng(seed)
    model = np.array(numbers).reshape(2, 3)
    y, x = np.meshgrid(np.linspace(-1, 1, 20), np.linspace(-1, 1, 28), indexing="ij")
    planted = np.einsum("cp,phw->hwc", model, np.stack([np.ones_like(x), x, y]))
    if np.abs(planted).max() < 0.1:
        return  # hardly anything moves: too few cells to fit
    motion = (planted + np.zeros((2, 1, 1, 1))).astype(np.float32)
    motion[1, 4:9, 6:12] += np.array([40, -20], np.float32)  # an object of its own, which the second round leaves out
    has_vector = rng.random((2, 20, 28)) < 0.9
    motion *= has_vector[..., None]
    left = remove_camera(motion, has_vector, "affine")
    assert np.abs(left[0]).max() < 1e-4
    object_cells = np.zeros((20, 28), bool)
    object_cells[4:9, 6:12] = True
    np.testing.assert_allclose(left[1][object_cells & has_vector[1]] - [40, -20], 0, atol=1e-3)
    assert np.abs(left[1][~object_cells]).max() < 1e-3


def test_a_turn_on_a_wide_picture_needs_affine():
    """x and y both run over [−1, 1], so that on a picture that is not square a turn is no similarity (spec §2)."""
    y, x = np.meshgrid(np.arange(20) - 9.5, np.arange(40) - 19.5, indexing="ij")
    motion = (0.3 * np.stack([-y, x], -1)[None]).astype(np.float32)
    has_vector = np.ones((1, 20, 40), bool)
    assert np.abs(remove_camera(motion, has_vector, "affine")).max() < 1e-4
    assert np.abs(remove_camera(motion, has_vector, "similarity")).max() > 1
    zoom = (0.3 * np.stack([x / 19.5, y / 9.5], -1)[None]).astype(np.float32)
    assert np.abs(remove_camera(zoom, has_vector, "similarity")).max() < 1e-4


def test_cells_on_a_line_and_cells_that_stand_still():
    for model in ("similarity", "affine"):
        motion, has_vector = np.zeros((1, 70, 5, 2), np.float32), np.zeros((1, 70, 5), bool)
        has_vector[0, :, 2] = True
        motion[0, :, 2, 0] = 3 + 0.1 * np.arange(70)
        assert np.abs(remove_camera(motion, has_vector, model)).max() < 1e-3
        still = np.zeros((1, 20, 28, 2), np.float32)
        np.testing.assert_array_equal(remove_camera(still, np.ones((1, 20, 28), bool), model), still)
        np.testing.assert_array_equal(remove_camera(still, np.zeros((1, 20, 28), bool), model), still)


def test_a_still_camera_is_not_fitted_to_what_moves():
    """A third of the picture moves, everything else stands still: similarity leaves both as they are."""
    motion, has_vector = np.zeros((1, 20, 28, 2), np.float32), np.ones((1, 20, 28), bool)
    motion[0, :, :9] = (6, -2)
    np.testing.assert_array_equal(remove_camera(motion, has_vector, "similarity"), motion)


def test_simple_models_and_few_cells():
    rng = np.random.default_rng(0)
    motion = rng.normal(size=(3, 9, 9, 2)).astype(np.float32) + np.float32(5)
    has_vector = rng.random((3, 9, 9)) < 0.7
    has_vector[2] = False
    motion[~has_vector] = 0
    np.testing.assert_array_equal(remove_camera(motion, has_vector, "none"), motion)
    for model, centre in (("median", np.median), ("mean", np.mean), ("similarity", np.median), ("affine", np.median)):
        left = remove_camera(motion, has_vector, model)  # under 64 cells have a vector, so similarity falls back
        for t in range(2):
            expected = motion[t][has_vector[t]] - centre(motion[t][has_vector[t]], axis=0)
            np.testing.assert_allclose(left[t][has_vector[t]], expected, atol=1e-5)
        assert (left[~has_vector] == 0).all()
    with pytest.raises(ConfigError, match="none of"):
        remove_camera(motion, has_vector, "afine")


def test_vectors_on_toy_objects_are_right_within_a_pixel(tmp_path):
    """Of drifting and of hopping objects, on cells that lie within one of them; as measured in docs/codec.md."""
    errors_px = {"drift": [], "hop": []}
    for index in range(4):  # hops: the object keeps its shape
        video = toy.render(11, index)
        toy.write_mp4(video.frames, tmp_path / "toy.mp4")
        _, signals = read_video(tmp_path / "toy.mp4", VideoConfig(n_frames=len(video.frames)))
        start, end = video.event
        y, x = (np.indices(signals.has_vector.shape[1:]) * 8 + 3.5).astype(np.float64)
        for t in range(1, len(video.frames)):
            moved_px = video.centers_px[t] - video.centers_px[t - 1]
            away = [np.hypot(x - cx, y - cy) for cx, cy in video.centers_px[t]]
            for i, within_px in enumerate((12, 12, 28)):
                inside = signals.has_vector[t] & (away[i] < within_px)
                for drawn_later in away[i + 1 :]:
                    inside &= drawn_later > 50
                kind = "hop" if i == 2 and start <= t <= end else "drift"
                errors_px[kind] += np.hypot(*(signals.motion[t][inside] - moved_px[i]).T).tolist()
    medians = {kind: round(float(np.median(values)), 3) for kind, values in errors_px.items()}
    print(f"median end-point error in px: {medians}; cells: {[len(values) for values in errors_px.values()]}")
    assert all(len(values) > 200 for values in errors_px.values())
    assert max(medians.values()) < 1
