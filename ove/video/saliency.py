"""Motion field and residual → how surprising each patch is."""

import cv2
import numpy as np
from jaxtyping import Float, Float32, Int, Int16, Shaped

from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.records import CELL_PX, CodecSignals, Saliency
from ove.video.motion import remove_camera

_PERCENTILE = 95
_LEAST_MOTION_PX = 1e-6
_LEAST_RESIDUAL = 1.0
"""Spec §2: each signal is divided by its 95th percentile, which is taken to be at least so much."""


def saliency(signals: CodecSignals, config: VideoConfig) -> Saliency:
    """The score of each patch, 0 … 1: motion without the camera's, and residual, each scaled, fused, averaged over the patch.

    Percentiles are over a frame, or over the clip. The fused map has the size of the coded picture; a patch's mean is over
    its exact area, whole pixels or not. Weights that are negative or both zero raise ConfigError (spec §2).
    """
    if min(config.w_motion, config.w_residual) < 0 or config.w_motion + config.w_residual == 0:
        raise ConfigError(
            f"video.w_motion = {config.w_motion:g} and video.w_residual = {config.w_residual:g}: neither may be negative, "
            "and one must be above 0."
        )
    moved = remove_camera(signals.motion, signals.has_vector, config.compensation)
    speed = np.hypot(moved[..., 0], moved[..., 1])
    per_clip = config.percentile_scope == "clip"
    speed /= np.maximum(_motion_scales(speed, per_clip), _LEAST_MOTION_PX)
    np.clip(speed, 0, 1, out=speed)
    residual_scales = np.maximum(_residual_scales(signals.residual, per_clip), _LEAST_RESIDUAL)

    n_frames, height, width = signals.residual.shape
    scores = np.empty((n_frames, config.grid, config.grid), np.float32)
    for t in range(n_frames):  # frame by frame, so that full-size maps of floats never exist for the whole clip
        residual = np.abs(signals.residual[t]).astype(np.float32)
        residual *= np.float32(1 / residual_scales[t])
        np.minimum(residual, 1, out=residual)
        fused = _fused(_per_pixel(speed[t], height, width), residual, config)
        if (intra := ~signals.has_vector[t]).any() and not intra.all():
            # Nothing predicted these cells of a P- or B-frame: their motion is not zero but unknown, the residual speaks alone.
            np.copyto(fused, residual, where=_per_pixel(intra, height, width))
        scores[t] = patch_means(fused, config.grid)
    return Saliency(np.clip(scores, 0, 1))


def patch_means(image: Float32[np.ndarray, "H W"], patches: int) -> Float32[np.ndarray, "patches patches"]:
    """Means over `patches`² equal rectangles of the picture, exact where their edges cut pixels.

    From the integral image, which is linear within a pixel. (A product with averaging matrices is no faster, and the threads
    of BLAS make it wait for busy cores.)
    """
    integral = cv2.integral(image, sdepth=cv2.CV_64F)
    for axis, pixels in enumerate(image.shape):
        edges = np.arange(patches + 1) * (pixels / patches)
        lower = np.minimum(edges.astype(np.int64), pixels - 1)
        part = np.expand_dims(edges - lower, 1 - axis)
        at_edges = integral.take(lower, axis) * (1 - part) + integral.take(lower + 1, axis) * part
        integral = np.diff(at_edges, axis=axis)
    return (integral * (patches * patches / image.size)).astype(np.float32)


def _per_pixel(cells: Shaped[np.ndarray, "h w"], height: int, width: int) -> Shaped[np.ndarray, "H W"]:
    """Each cell repeated over its 8×8 pixels, cut to the picture."""
    return np.repeat(np.repeat(cells, CELL_PX, axis=0), CELL_PX, axis=1)[:height, :width]


def _fused(
    motion: Float32[np.ndarray, "H W"], residual: Float32[np.ndarray, "H W"], config: VideoConfig
) -> Float32[np.ndarray, "H W"]:
    """Both signals as one, 0 … 1; at equal weights: mean, larger one, sum up to 1, geometric mean."""
    w_motion, w_residual = np.float32(config.w_motion), np.float32(config.w_residual)
    if config.fusion == "mean":
        share = w_motion / (w_motion + w_residual)
        return share * motion + (1 - share) * residual
    if config.fusion == "max":
        return np.maximum(w_motion * motion, w_residual * residual) / max(w_motion, w_residual)
    if config.fusion == "sum":
        return np.minimum(w_motion * motion + w_residual * residual, 1)
    return (motion**w_motion * residual**w_residual) ** (1 / (w_motion + w_residual))


def _motion_scales(speed: Float32[np.ndarray, "T h w"], per_clip: bool) -> Float[np.ndarray, "..."]:
    """95th percentile of each frame, or of the clip, shaped so that it divides `speed`."""
    return np.percentile(speed, _PERCENTILE, axis=None if per_clip else (1, 2), keepdims=True)


def _residual_scales(residual: Int16[np.ndarray, "T H W"], per_clip: bool) -> Float[np.ndarray, "T"]:
    """95th percentile of |residual| of each frame, or of the clip for each; from counts, for the values are whole numbers."""
    counts = [np.bincount(np.abs(frame).ravel(), minlength=256) for frame in residual]
    if per_clip:
        longest = max(len(count) for count in counts)
        total = np.sum([np.pad(count, (0, longest - len(count))) for count in counts], axis=0)
        return np.full(len(counts), _percentile_of_counts(total))
    return np.array([_percentile_of_counts(count) for count in counts])


def _percentile_of_counts(counts: Int[np.ndarray, "values"]) -> float:
    """What numpy.percentile (linear) gives for `counts[v]` times each value v."""
    reached = np.cumsum(counts)
    rank = (reached[-1] - 1) * (_PERCENTILE / 100)
    below, above = np.searchsorted(reached, [int(rank), int(np.ceil(rank))], side="right")
    return float(below + (above - below) * (rank - int(rank)))
