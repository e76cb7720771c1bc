"""Pictures turned, mirrored and letterboxed, and their signals with them."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from video_files import moving_texture

from ove.config import SelectionConfig, VideoConfig
from ove.errors import ConfigError
from ove.records import CodecSignals
from ove.video.decode import read_video
from ove.video.geometry import Orientation, in_square, place_in_square, turned, turned_signals
from ove.video.saliency import saliency
from ove.video.select import choose_patches

MATRICES = {
    # (a, b, c, d): a point (x, y) is shown at (a·x + c·y, b·x + d·y), y downwards
    (1, 0, 0, 1): lambda x: x,
    (0, 1, -1, 0): lambda x: np.rot90(x, -1, axes=(1, 2)),
    (-1, 0, 0, -1): lambda x: x[:, ::-1, ::-1],
    (0, -1, 1, 0): lambda x: np.rot90(x, 1, axes=(1, 2)),
    (-1, 0, 0, 1): lambda x: x[:, :, ::-1],
    (1, 0, 0, -1): lambda x: x[:, ::-1],
    (0, 1, 1, 0): lambda x: x.swapaxes(1, 2),
    (0, -1, -1, 0): lambda x: x[:, ::-1, ::-1].swapaxes(1, 2),
}


def with_display_matrix(path, a, b, c, d):
    """A copy of an MP4 with the matrix of its track header replaced (16.16 fixed point; ISO/IEC 14496-12, 8.3.2)."""
    data = path.read_bytes()
    at = data.index(b"tkhd") + 4 + 40
    matrix = (np.array([a, b, 0, c, d, 0, 0, 0, 1 << 14]) * 65536).astype(">i4").tobytes()
    copy = path.with_name(f"turned_{a}{b}{c}{d}.mp4")
    copy.write_bytes(data[:at] + matrix + data[at + len(matrix) :])
    return copy


def test_every_display_matrix_turns_pixels_vectors_scores_and_selection(write_video):
    # Sides that are no multiples of a cell: turned, the cut cells are the first ones.
    plain = write_video("plain.mp4", moving_texture(16, 108, 76), preset="medium", crf="14")
    config = VideoConfig(n_frames=16, size_px=84, selection=SelectionConfig(gop_frames=16, iframe_policy="drop"))
    clip, signals = read_video(plain, config)
    scores = saliency(signals, config)
    grid = np.zeros(scores.scores.size, bool)
    grid[choose_patches(scores, clip.is_i_frame, 100, config.selection).flat] = True
    assert signals.has_vector.any()
    for (a, b, c, d), turn in MATRICES.items():
        other, found = read_video(with_display_matrix(plain, a, b, c, d), config)
        np.testing.assert_array_equal(other.frames, turn(clip.frames))
        np.testing.assert_array_equal(found.residual, turn(signals.residual))
        np.testing.assert_array_equal(found.has_vector, turn(signals.has_vector))
        dx, dy = turn(signals.motion)[..., 0], turn(signals.motion)[..., 1]
        np.testing.assert_array_equal(found.motion, np.stack([a * dx + c * dy, b * dx + d * dy], -1))
        # Where the content of a cell lies: cells repeated over their pixels, as the coded picture has them.
        np.testing.assert_array_equal(over_pixels(found), turn(over_pixels(signals)))
        expected = turn(scores.scores)
        turned_scores = saliency(found, config)
        np.testing.assert_allclose(turned_scores.scores, expected, atol=2e-4)
        selected = choose_patches(turned_scores, other.is_i_frame, 100, config.selection).flat
        # All but ties and near ties.
        assert turn(grid.reshape(scores.scores.shape)).ravel()[selected].mean() >= 0.98


def over_pixels(signals):
    down, across = signals.cell_offset_px
    height, width = signals.residual.shape[1:]
    return signals.has_vector.repeat(8, 1).repeat(8, 2)[:, down : down + height, across : across + width]


@given(st.integers(0, 3), st.booleans(), st.integers(0, 7), st.integers(0, 7), st.integers(0, 2**32 - 1))
def test_turning_signals_turns_their_pixels_and_four_quarters_are_none(quarters, mirrored, down, across, seed):
    rng = np.random.default_rng(seed)
    height, width = rng.integers(9, 40, 2)
    rows, columns = -(-(down + height) // 8), -(-(across + width) // 8)
    signals = CodecSignals(
        rng.normal(size=(2, rows, columns, 2)).astype(np.float32),
        rng.random((2, rows, columns)) < 0.5,
        rng.integers(-128, 128, (2, height, width)).astype(np.int16),
        cell_offset_px=(down, across),
    )
    found = turned_signals(signals, Orientation(quarters, mirrored))
    expected = np.stack([turned(frame, Orientation(quarters, mirrored)) for frame in over_pixels(signals)])
    np.testing.assert_array_equal(over_pixels(found), expected)
    back = turned_signals(turned_signals(found, Orientation((4 - quarters) % 4)), Orientation(0, mirrored))
    for name in ("motion", "has_vector", "residual", "cell_offset_px"):
        np.testing.assert_array_equal(getattr(back, name), getattr(signals, name))


@given(st.integers(1, 2000), st.integers(1, 2000), st.integers(1, 24))
def test_letterbox_keeps_shape_and_centre(height, width, grid):
    size = 14 * grid
    to = place_in_square(height, width, size, "letterbox")
    assert max(to.rows, to.columns) == size and min(to.rows, to.columns) >= 1
    assert abs(to.rows * width - to.columns * height) <= max(height, width) or min(to.rows, to.columns) == 1
    assert 0 <= size - to.rows - 2 * to.top <= 1 and 0 <= size - to.columns - 2 * to.left <= 1
    inside = np.zeros((size, size), bool)
    inside[to.top : to.top + to.rows, to.left : to.left + to.columns] = True
    np.testing.assert_array_equal(to.valid(14), inside.reshape(grid, 14, grid, 14).all((1, 3)))
    down, across = to.edges(14)
    assert down[0] == across[0] == 0 and abs(down[-1] - height) < 1e-6 and abs(across[-1] - width) < 1e-6


def test_a_letterboxed_clip_is_padded_with_black_and_padding_is_never_chosen(write_video):
    config = VideoConfig(n_frames=16, size_px=112, geometry="letterbox", selection=SelectionConfig(gop_frames=8))
    stretched = VideoConfig(n_frames=16, size_px=112, selection=SelectionConfig(gop_frames=8))
    for name, codec, side, height in (
        ("h264", "libx264", 128, 72),
        ("vp9", "libvpx-vp9", 72, 128),
        ("odd", "libx264", 112, 66),
    ):
        path = write_video(f"{name}.{'webm' if name == 'vp9' else 'mp4'}", moving_texture(20, side, height), codec=codec)
        clip, signals = read_video(path, config)
        to = place_in_square(height, side, 112, "letterbox")
        assert clip.frames.shape == (16, 112, 112, 3)
        content = clip.frames[:, to.top : to.top + to.rows, to.left : to.left + to.columns]
        assert clip.frames.sum(dtype=np.int64) == content.sum(dtype=np.int64) and content.min() > 10
        whole = read_video(path, stretched)[0].frames
        assert abs(content.mean() - whole.mean()) < 2
        scores = saliency(signals, config)
        np.testing.assert_array_equal(clip.valid, to.valid(14))
        np.testing.assert_array_equal(scores.valid, clip.valid)
        assert 0 < clip.valid.sum() < 64 and (scores.scores[:, ~clip.valid] == -1).all()
        assert scores.scores[:, clip.valid].min() >= 0
        selection = choose_patches(scores, clip.is_i_frame, 16 * int(clip.valid.sum()) // 2, config.selection)
        assert clip.valid.ravel()[selection.flat % 64].all()


def test_signals_of_a_letterboxed_clip_lie_where_its_pixels_do():
    """A picture of exactly half the height of the square: patches are those of the picture, two patches down."""
    rng = np.random.default_rng(3)
    residual = rng.integers(-90, 90, (2, 56, 112)).astype(np.int16)
    signals = CodecSignals(np.zeros((2, 7, 14, 2), np.float32), np.ones((2, 7, 14), bool), residual)
    config = VideoConfig(size_px=112, geometry="letterbox", percentile_scope="clip")
    limit = np.percentile(np.abs(residual), 95)
    expected = np.minimum(np.abs(residual) / limit, 1).reshape(2, 4, 14, 8, 14).mean((2, 4)) / 2
    scores = saliency(signals, config)
    np.testing.assert_allclose(scores.scores[:, 2:6], expected, atol=1e-6)
    assert scores.valid.sum() == 32 and scores.valid[2:6].all()


def test_squares_need_no_padding_and_unknown_geometries_are_refused():
    pictures = np.zeros((1, 28, 28, 3), np.uint8)
    assert in_square(pictures, 28) is pictures
    with pytest.raises(ConfigError, match="none of 'stretch', 'letterbox'"):
        VideoConfig(geometry="crop")
