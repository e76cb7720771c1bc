"""Patch scores against the formulas written out."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.records import CodecSignals
from ove.video.saliency import patch_means, saliency


def random_signals(seed, n_frames=3, height=44, width=61):
    rng = np.random.default_rng(seed)
    field = (n_frames, -(-height // 8), -(-width // 8))
    has_vector = rng.random(field) < 0.8
    motion = (rng.normal(size=(*field, 2)) * 3 * has_vector[..., None]).astype(np.float32)
    residual = np.rint(rng.laplace(size=(n_frames, height, width)) * 6).astype(np.int16)
    return CodecSignals(motion, has_vector, residual)


def by_formula(signals, config):
    """Spec §2 without camera motion, in float64; where a frame with vectors has none, the residual alone."""
    axis = None if config.percentile_scope == "clip" else (1, 2)
    speed = np.sqrt(np.square(signals.motion.astype(float)).sum(-1))
    motion = np.clip(speed / np.maximum(np.percentile(speed, 95, axis=axis, keepdims=True), 1e-6), 0, 1)
    strength = np.abs(signals.residual.astype(float))
    residual = np.clip(strength / np.maximum(np.percentile(strength, 95, axis=axis, keepdims=True), 1), 0, 1)
    height, width = residual.shape[1:]
    motion = motion.repeat(8, 1).repeat(8, 2)[:, :height, :width]
    m, r = config.w_motion, config.w_residual
    fused = {
        "mean": (m * motion + r * residual) / (m + r),
        "max": np.maximum(m * motion, r * residual) / max(m, r),
        "sum": np.minimum(m * motion + r * residual, 1),
        "geomean": (motion**m * residual**r) ** (1 / (m + r)),
    }[config.fusion]
    unknown = ~signals.has_vector & signals.has_vector.any((1, 2), keepdims=True)
    fused = np.where(unknown.repeat(8, 1).repeat(8, 2)[:, :height, :width], residual, fused)
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
    for weights in ({"w_motion": 0.0, "w_residual": 0.0}, {"w_motion": -1.0}):
        with pytest.raises(ConfigError, match="neither may be negative"):
            saliency(random_signals(0), VideoConfig(size_px=56, **weights))
