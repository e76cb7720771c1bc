"""Motion field and residual → the saliency of each patch."""

import functools
from collections.abc import Callable

import cv2
import numpy as np
from jaxtyping import Bool, Float, Float32, Float64, Int, Int16, Shaped, UInt8

from ove.config import VideoConfig
from ove.errors import ConfigError
from ove.named import named
from ove.records import CELL_PX, CodecSignals, Saliency
from ove.video.geometry import Placement, place_in_square
from ove.video.motion import remove_camera

_PERCENTILE = 95
_LEAST_MOTION_PX = 1e-6
_LEAST_RESIDUAL = 1.0
"""Spec §2: each signal is divided by its 95th percentile, or by these minima if they are larger."""
_PRIOR_SIGMA = 0.35
"""Of the centre prior, as a share of the picture's shorter side."""
_LEVELS = 256


class ClipScales:
    """What the signals of all frames of a clip are divided by: their 95th percentiles, from frames that come one by one."""

    def __init__(self, config: VideoConfig) -> None:
        self._config = config
        self._motion: list[Float32[np.ndarray, "T h w"]] = []
        self._counts = np.zeros(_LEVELS, np.int64)

    def add(self, signals: CodecSignals) -> None:
        """Counts more frames, each once."""
        self._motion.append(_motion(signals, self._config))
        strength_of = named(RESIDUAL_FEATURES, self._config.residual_feature, "video.residual_feature")
        for frame in signals.residual:
            self._counts += _counts(strength_of(frame))

    @functools.cached_property
    def motion(self) -> Float[np.ndarray, "1 1 1"]:
        """That of the motion, after the last frame."""
        return _motion_scales(np.concatenate(self._motion), per_clip=True)

    @functools.cached_property
    def residual(self) -> float:
        """That of the residual, after the last frame."""
        return _scale(np.cumsum(self._counts).item, int(self._counts.sum()))


def saliency(signals: CodecSignals, config: VideoConfig, scales: ClipScales | None = None) -> Saliency:
    """Scores each patch 0 … 1: motion without the camera's and residual, each scaled, fused, averaged over the patch (spec §2).

    Percentiles are over a frame or over the clip; |residual| above 255 counts as 255. `scales`: those of a clip of which
    `signals` are a part. A patch's mean is over its exact area in the coded picture, whole pixels or not. A frame sampled more
    than once counts once, and its copies have its scores. Letterboxed patches that do not lie wholly within the picture get −1.
    """
    if config.percentile_scope == "clip" and scales is None:
        scales = ClipScales(config)
        scales.add(signals)
    motion = _motion(signals, config)
    motion /= np.maximum(scales.motion if scales else _motion_scales(motion, per_clip=False), _LEAST_MOTION_PX)
    np.clip(motion, 0, 1, out=motion)
    # Intra-coded cells of a P- or B-frame have no motion, not zero motion: only their residual counts.
    unknown = ~signals.has_vector & signals.has_vector.any(axis=(1, 2), keepdims=True)

    height, width = signals.residual.shape[1:]
    to = place_in_square(height, width, config.size_px, config.geometry)
    fuser = _Fuser(config, to, signals.cell_offset_px)
    strength_of = named(RESIDUAL_FEATURES, config.residual_feature, "video.residual_feature")
    strengths = (strength_of(frame) for frame in signals.residual)
    of_clip = scales.residual if scales else 0.0
    scores = np.stack(
        [
            fuser.scores(motion[t], strength, of_clip or _scale(_reached(strength), strength.size), unknown[t])
            for t, strength in enumerate(strengths)
        ]
    )
    scores = np.clip(scores, 0, 1)
    valid = None if config.geometry == "stretch" else to.valid(config.patch_px)
    if valid is not None:
        scores = np.where(valid, scores, np.float32(-1))
    return Saliency(scores if signals.order is None else scores[signals.order], valid, signals.order)


def scores_frames_alone(config: VideoConfig) -> bool:
    """Returns whether the scores of a frame depend on it alone, and the scales of its clip, so that others need not be kept."""
    return config.motion_feature in MOTION_FEATURES


class _Fuser:
    """Turns both signals of a frame into patch scores."""

    def __init__(self, config: VideoConfig, to: Placement, cell_offset_px: tuple[int, int]) -> None:
        self._config, self._offset = config, cell_offset_px
        self._fuse = named(FUSIONS, config.fusion, "video.fusion")
        self._height, self._width = to.height_px, to.width_px
        self._edges = to.edges(config.patch_px)
        # The same borders counted in cells.
        self._cell_edges = tuple((edges + offset) / CELL_PX for edges, offset in zip(self._edges, cell_offset_px, strict=True))
        self._prior = _centre_prior(to.height_px, to.width_px, config.centre_prior) if config.centre_prior else None

    def scores(
        self,
        motion: Float32[np.ndarray, "h w"],
        strength: UInt8[np.ndarray, "H W"],
        scale: float,
        unknown: Bool[np.ndarray, "h w"],
    ) -> Float32[np.ndarray, "Y X"]:
        """Returns patch scores from `motion`, scaled to 0 … 1 already, and `strength`, yet to be divided by `scale`."""
        if self._config.fusion == "mean" and self._prior is None:
            return self._mean_scores(motion, strength, scale, unknown)
        residual = cv2.LUT(strength, np.minimum(np.arange(_LEVELS) / scale, 1).astype(np.float32))
        weights = np.float32(self._config.w_motion), np.float32(self._config.w_residual)
        fused = np.asarray(self._fuse(self._per_pixel(motion), residual, *weights), np.float32)
        if fused.shape != residual.shape or not np.isfinite(fused).all():
            found = f"shape {fused.shape}" if fused.shape != residual.shape else "values that are not finite"
            raise ConfigError(f"video.fusion = {self._config.fusion!r} returned {found}; expected: {residual.shape}, 0 to 1.")
        if unknown.any():
            np.copyto(fused, residual, where=self._per_pixel(unknown))
        if self._prior is not None:
            fused = np.minimum(fused * self._prior, 1)
        return patch_means(fused, *self._edges)

    def _mean_scores(
        self,
        motion: Float32[np.ndarray, "h w"],
        strength: UInt8[np.ndarray, "H W"],
        scale: float,
        unknown: Bool[np.ndarray, "h w"],
    ) -> Float32[np.ndarray, "Y X"]:
        """Takes `weighted_mean` of the patch means instead: of motion by cells, of the residual in integers.

        Several times faster; a test compares it with the other way.
        """
        share = self._config.w_motion / (self._config.w_motion + self._config.w_residual)
        scores = share * patch_means(np.where(unknown, np.float32(0), motion), *self._cell_edges)
        scores += (1 - share) * self._residual_means(strength, scale)
        if unknown.any():
            alone = cv2.bitwise_and(strength, self._per_pixel(unknown.astype(np.uint8) * np.uint8(255)))
            scores += share * self._residual_means(alone, scale)
        return scores

    def _residual_means(self, strength: UInt8[np.ndarray, "H W"], scale: float) -> Float32[np.ndarray, "Y X"]:
        """Returns patch means of min(strength / scale, 1)."""
        whole = int(scale)
        part = scale - whole
        means = (1 - part) * patch_means(_at_most(strength, whole), *self._edges)
        if part:
            # A fractional limit lies between two whole ones: min(v, k + f) = (1 − f)·min(v, k) + f·min(v, k + 1).
            means += part * patch_means(_at_most(strength, whole + 1), *self._edges)
        return means / np.float32(scale)

    def _per_pixel(self, cells: Shaped[np.ndarray, "h w"]) -> Shaped[np.ndarray, "H W"]:
        """Repeats each cell over its 8×8 pixels, cropped to the picture."""
        down, across = self._offset
        pixels = np.repeat(np.repeat(cells, CELL_PX, axis=0), CELL_PX, axis=1)
        return np.ascontiguousarray(pixels[down : down + self._height, across : across + self._width])


def patch_means(
    image: Shaped[np.ndarray, "H W"], down: Float64[np.ndarray, "edges"], across: Float64[np.ndarray, "edges2"]
) -> Float32[np.ndarray, "Y X"]:
    """Returns means over the rectangles between the borders, exact where these cut pixels; 0 for empty ones.

    From the integral image, which is linear within a pixel. (A product with averaging matrices is no faster, and BLAS's
    threads make it wait for busy cores.)
    """
    # Sums of bytes are whole numbers, in 32 bits unless the picture is huge.
    small = image.dtype == np.uint8 and image.size < 1 << 23
    integral = cv2.integral(image, sdepth=cv2.CV_32S if small else cv2.CV_64F)
    where, (weight_down, weight_across), area = _corners(down.tobytes(), across.tobytes(), image.shape)
    near = integral[where]  # one look-up, the rest is small
    rows = len(near) // 2
    near = np.diff(near[:rows] * (1 - weight_down) + near[rows:] * weight_down, axis=0)
    columns = near.shape[1] // 2
    sums = np.diff(near[:, :columns] * (1 - weight_across) + near[:, columns:] * weight_across, axis=1)
    return np.divide(sums, area, out=np.zeros_like(sums), where=area > 0).astype(np.float32)


@functools.lru_cache(maxsize=16)
def _corners(
    down: bytes, across: bytes, shape: tuple[int, int]
) -> tuple[tuple[np.ndarray, ...], tuple[np.ndarray, np.ndarray], Float64[np.ndarray, "Y X"]]:
    """Returns, of borders (float64), the pixels on either side, where between them each lies, and the rectangles' areas."""
    edges = np.frombuffer(down), np.frombuffer(across)
    lower = [np.minimum(at.astype(np.int64), pixels - 1) for at, pixels in zip(edges, shape, strict=True)]
    where = np.ix_(*(np.concatenate([low, low + 1]) for low in lower))
    weights = ((edges[0] - lower[0])[:, None], edges[1] - lower[1])
    return where, weights, np.diff(edges[0])[:, None] * np.diff(edges[1])


def _motion(signals: CodecSignals, config: VideoConfig) -> Float32[np.ndarray, "T h w"]:
    """Returns the motion feature of the vectors without the camera's motion."""
    moved = signals.motion
    if not signals.camera_removed:
        moved = remove_camera(moved, signals.has_vector, config.compensation)
    speed = np.hypot(moved[..., 0], moved[..., 1])
    return named(MOTION_FEATURES, config.motion_feature, "video.motion_feature")(speed)


def _variance(speed: Float32[np.ndarray, "T h w"]) -> Float32[np.ndarray, "T h w"]:
    """Returns the variance of the magnitude over 3×3 cells."""
    # In double precision: the rounded difference of two large squares would pass for variance.
    wide = speed.astype(np.float64)
    means, squares = (
        np.stack([cv2.blur(frame, (3, 3), borderType=cv2.BORDER_REPLICATE) for frame in stack]) for stack in (wide, wide * wide)
    )
    return np.maximum(squares - means * means, 0).astype(np.float32)


MOTION_FEATURES: dict[str, Callable] = {"magnitude": lambda speed: speed, "variance": _variance}
"""`video.motion_feature`: magnitudes (T, h, w) of the vectors without the camera's → float32 of the same shape, 0 or more."""


def _gradient(residual: Int16[np.ndarray, "H W"]) -> UInt8[np.ndarray, "H W"]:
    """Returns the magnitude of the residual's gradient (difference of the two neighbours, rounded), at most 255."""
    down = cv2.Sobel(residual, cv2.CV_32F, 0, 1, ksize=1, borderType=cv2.BORDER_REPLICATE)
    right = cv2.Sobel(residual, cv2.CV_32F, 1, 0, ksize=1, borderType=cv2.BORDER_REPLICATE)
    # Exact until the root, which every machine rounds alike (cv2.magnitude is not bound to).
    return np.minimum(np.rint(np.sqrt(right * right + down * down)), _LEVELS - 1).astype(np.uint8)


RESIDUAL_FEATURES: dict[str, Callable] = {"magnitude": cv2.convertScaleAbs, "gradient": _gradient}
"""`video.residual_feature`: the residual (H, W) of a frame → bytes of the same shape; magnitude: at most 255."""


def _at_most(strength: UInt8[np.ndarray, "H W"], limit: int) -> UInt8[np.ndarray, "H W"]:
    return cv2.threshold(strength, limit, 0, cv2.THRESH_TRUNC)[1].astype(np.uint8, copy=False)


Map = Float32[np.ndarray, "H W"]


def weighted_mean(motion: Map, residual: Map, w_motion: np.float32, w_residual: np.float32) -> Map:
    """(w_motion·motion + w_residual·residual) / (w_motion + w_residual); see `_Fuser._mean_scores`."""
    share = w_motion / (w_motion + w_residual)
    return share * motion + (1 - share) * residual


FUSIONS: dict[str, Callable[[Map, Map, np.float32, np.float32], Map]] = {
    "mean": weighted_mean,
    "max": lambda m, r, w_m, w_r: np.maximum(w_m * m, w_r * r) / max(w_m, w_r),
    "sum": lambda m, r, w_m, w_r: np.minimum(w_m * m + w_r * r, 1),
    "geomean": lambda m, r, w_m, w_r: (m**w_m * r**w_r) ** (1 / (w_m + w_r)),
}
"""`video.fusion`: motion m and residual r of a frame, 0 … 1 a pixel, and their weights → one map, 0 … 1."""


def _centre_prior(height: int, width: int, strength: float) -> Float32[np.ndarray, "H W"]:
    """Returns 1 + strength·exp(−d²/2σ²), d the distance from the centre and σ = 0.35 of its shorter side (spec §2)."""
    y, x = np.arange(height) - (height - 1) / 2, np.arange(width) - (width - 1) / 2
    double_variance = 2 * (_PRIOR_SIGMA * min(height, width)) ** 2
    return (1 + strength * np.exp(-(y[:, None] ** 2 + x**2) / double_variance)).astype(np.float32)


def _motion_scales(motion: Float32[np.ndarray, "T h w"], per_clip: bool) -> Float[np.ndarray, "..."]:
    """Returns the 95th percentile of each frame or of the clip, shaped to divide `motion`."""
    return np.percentile(motion, _PERCENTILE, axis=None if per_clip else (1, 2), keepdims=True)


def _counts(strength: UInt8[np.ndarray, "H W"]) -> Int[np.ndarray, "levels"]:
    return cv2.calcHist([strength], [0], None, [_LEVELS], [0, _LEVELS]).ravel().astype(np.int64)


def _reached(strength: UInt8[np.ndarray, "H W"]) -> Callable[[int], int]:
    """Returns the count of values up to a given one, computed on demand: few are needed, and a histogram takes far longer."""
    return functools.cache(
        lambda value: strength.size - cv2.countNonZero(cv2.threshold(strength, value, 1, cv2.THRESH_BINARY)[1])
    )


def _scale(reached: Callable[[int], int], n_values: int) -> float:
    """Returns the 95th percentile, at least 1, of bytes of which `reached(v)` are at most v, as numpy.percentile (linear)."""
    rank = (n_values - 1) * (_PERCENTILE / 100)
    below, above = _at_rank(reached, int(rank)), _at_rank(reached, int(np.ceil(rank)))
    return max(float(below + (above - below) * (rank - int(rank))), _LEAST_RESIDUAL)


def _at_rank(reached: Callable[[int], int], rank: int) -> int:
    """Returns the value with a rank (from 0); most are small, so the upper limit of the search is doubled from 1 on."""
    low, high = 0, 1
    while high < _LEVELS - 1 and reached(high) <= rank:
        low, high = high + 1, min(2 * high + 1, _LEVELS - 1)
    while low < high:
        middle = (low + high) // 2
        low, high = (low, middle) if reached(middle) > rank else (middle + 1, high)
    return low
