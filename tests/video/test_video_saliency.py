"""Patch scores against the formulas written out."""

import dataclasses

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.records import CodecSignals
from ove.video.saliency import patch_means, saliency


def random_signals(seed, n_frames=3, height=44, width=61, offset=(0, 0)):
    rng = np.random.default_rng(seed)
    field = (n_frames, -(-(offset[0] + height) // 8), -(-(offset[1] + width) // 8))
    has_vector = rng.random(field) < 0.8
    motion = (rng.normal(size=(*field, 2)) * 3 * has_vector[..., None]).astype(np.float32)
    residual = np.rint(rng.laplace(size=(n_frames, height, width)) * 6).astype(np.int16)
    return CodecSignals(motion, has_vector, residual, cell_offset_px=offset)


def by_formula(signals, config):
    """Spec §2 without camera motion, in float64; where a frame with vectors has none, the residual alone."""
    axis = None if config.percentile_scope == "clip" else (1, 2)
    height, width = signals.residual.shape[1:]
    speed = np.sqrt(np.square(signals.motion.astype(float)).sum(-1))
    if config.motion_feature == "variance":
        around = np.pad(speed, ((0, 0), (1, 1), (1, 1)), mode="edge")
        speed = np.lib.stride_tricks.sliding_window_view(around, (3, 3), (1, 2)).var((3, 4))
    motion = np.clip(speed / np.maximum(np.percentile(speed, 95, axis=axis, keepdims=True), 1e-6), 0, 1)
    strength = np.abs(signals.residual.astype(float))
    if config.residual_feature == "gradient":
        around = np.pad(signals.residual.astype(float), ((0, 0), (1, 1), (1, 1)), mode="edge")
        down, right = around[:, 2:, 1:-1] - around[:, :-2, 1:-1], around[:, 1:-1, 2:] - around[:, 1:-1, :-2]
        strength = np.rint(np.hypot(down, right))
    strength = np.minimum(strength, 255)
    residual = np.clip(strength / np.maximum(np.percentile(strength, 95, axis=axis, keepdims=True), 1), 0, 1)

    def over_pixels(cells):
        y, x = signals.cell_offset_px
        return cells.repeat(8, 1).repeat(8, 2)[:, y : y + height, x : x + width]

    motion = over_pixels(motion)
    m, r = config.w_motion, config.w_residual
    fused = {
        "mean": (m * motion + r * residual) / (m + r),
        "max": np.maximum(m * motion, r * residual) / max(m, r),
        "sum": np.minimum(m * motion + r * residual, 1),
        "geomean": (motion**m * residual**r) ** (1 / (m + r)),
    }[config.fusion]
    fused = np.where(over_pixels(~signals.has_vector & signals.has_vector.any((1, 2), keepdims=True)), residual, fused)
    squared = (np.arange(height) - (height - 1) / 2)[:, None] ** 2 + (np.arange(width) - (width - 1) / 2) ** 2
    sigma = 0.35 * min(height, width)
    fused = np.clip(fused * (1 + config.centre_prior * np.exp(-squared / (2 * sigma**2))), 0, 1)
    # Area averaging of whole numbers of equal sub-pixels.
    fine = fused.repeat(config.grid, 1).repeat(config.grid, 2)
    return fine.reshape(len(fused), config.grid, height, config.grid, width).mean((2, 4))


@pytest.mark.parametrize("scope", ["frame", "clip"])
@pytest.mark.parametrize("fusion", ["mean", "max", "sum", "geomean"])
@pytest.mark.parametrize(("weights", "size"), [((1.0, 1.0), (44, 61)), ((2.0, 0.5), (44, 61)), ((1.0, 1.0), (6, 5))])
def test_scores_follow_the_formula(scope, fusion, weights, size):
    config = VideoConfig(
        size_px=56, compensation="none", fusion=fusion, percentile_scope=scope, w_motion=weights[0], w_residual=weights[1]
    )
    signals = random_signals(3, 3, *size)  # in a small picture percentiles fall between the values
    np.testing.assert_allclose(saliency(signals, config).scores, by_formula(signals, config), atol=2e-6)


@pytest.mark.parametrize("scope", ["frame", "clip"])
@pytest.mark.parametrize("fusion", ["mean", "max", "sum", "geomean"])
@pytest.mark.parametrize(
    "options",
    [
        {"motion_feature": "variance"},
        {"residual_feature": "gradient"},
        {"centre_prior": 0.3},
        {"motion_feature": "variance", "residual_feature": "gradient", "centre_prior": 0.3},
    ],
)
def test_options_of_the_probe_follow_the_formula(scope, fusion, options):
    config = VideoConfig(size_px=56, compensation="none", fusion=fusion, percentile_scope=scope, **options)
    for signals in (random_signals(4), random_signals(6, offset=(3, 7))):
        np.testing.assert_allclose(saliency(signals, config).scores, by_formula(signals, config), atol=5e-6)


@pytest.mark.parametrize("scope", ["frame", "clip"])
@pytest.mark.parametrize("feature", ["magnitude", "gradient"])
def test_residuals_beyond_255_count_as_255(scope, feature):
    config = VideoConfig(size_px=56, compensation="none", percentile_scope=scope, residual_feature=feature)
    for times in (8, 15, 60):  # few of the values lie beyond 255, about a twentieth, half
        signals = random_signals(5)
        signals.residual[...] *= times
        assert 0.002 < (np.abs(signals.residual) > 255).mean() < 0.6
        np.testing.assert_allclose(saliency(signals, config).scores, by_formula(signals, config), atol=2e-6)


def test_cells_may_begin_before_the_picture():
    config = VideoConfig(size_px=56, compensation="none")
    for offset in ((0, 5), (7, 0), (4, 4)):
        signals = random_signals(8, offset=offset)
        np.testing.assert_allclose(saliency(signals, config).scores, by_formula(signals, config), atol=2e-6)


def test_motion_that_is_all_but_uniform_has_no_variance():
    """Everything moves alike, fast: the difference of large squares must not pass for news."""
    motion = (300 + np.random.default_rng(2).normal(0, 1e-4, (3, 20, 20, 2))).astype(np.float32)
    signals = CodecSignals(motion, np.ones((3, 20, 20), bool), np.zeros((3, 160, 160), np.int16))
    config = VideoConfig(size_px=56, compensation="none", motion_feature="variance")
    assert saliency(signals, config).scores.max() < 0.05


def test_signals_without_the_camera_are_left_as_they_are():
    signals = random_signals(9)
    plain = VideoConfig(size_px=56, compensation="none")
    removed = dataclasses.replace(signals, camera_removed=True)
    compensated = saliency(signals, VideoConfig(size_px=56, compensation="median")).scores
    np.testing.assert_array_equal(
        saliency(removed, VideoConfig(size_px=56, compensation="median")).scores, saliency(signals, plain).scores
    )
    assert (compensated != saliency(signals, plain).scores).any()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 6), st.integers(0, 2**32 - 1))
@settings(deadline=None)
def test_patch_means_keep_the_mean(height, width, patches, seed):
    image = np.random.default_rng(seed).random((height, width), np.float32)
    edges = (np.arange(patches + 1) * (side / patches) for side in image.shape)
    means = patch_means(image, *edges)
    fine = image.astype(float).repeat(patches, 0).repeat(patches, 1).reshape(patches, height, patches, width)
    np.testing.assert_allclose(means, fine.mean((1, 3)), atol=1e-6)
    assert abs(means.mean() - image.mean()) < 1e-5


def test_a_coded_i_frame_is_no_news_as_a_whole():
    """Cells without a vector count by their residual alone among others that have one, not in a frame where none has."""
    signals = random_signals(5)
    config = VideoConfig(size_px=56, compensation="none")
    no_vectors = CodecSignals(np.zeros_like(signals.motion), np.zeros_like(signals.has_vector), signals.residual)
    some = CodecSignals(np.zeros_like(signals.motion), signals.has_vector, signals.residual)
    coded_i, coded_p = saliency(no_vectors, config).scores, saliency(some, config).scores
    assert (coded_i <= coded_p + 1e-6).all() and coded_i.mean() < 0.95 * coded_p.mean()


def test_a_clip_without_news_scores_zero():
    signals = CodecSignals(np.zeros((2, 7, 7, 2), np.float32), np.ones((2, 7, 7), bool), np.zeros((2, 56, 56), np.int16))
    assert (saliency(signals, VideoConfig(size_px=56)).scores == 0).all()


def test_weights_must_make_sense():
    with pytest.raises(ConfigError, match=r"video\.w_motion and video\.w_residual are both 0"):
        VideoConfig(w_motion=0.0, w_residual=0.0)
    with pytest.raises(ConfigError, match=r"video\.w_motion = -1\.0 must be at least 0"):
        VideoConfig(w_motion=-1.0)
