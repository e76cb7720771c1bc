"""How video files are read."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, ClassVar, Literal

from ove.config.mapping import from_mapping
from ove.errors import ConfigError


@dataclass(frozen=True)
class VideoConfig:
    """How a video file becomes 64 frames and a saliency map (spec §2)."""

    n_frames: int = 64
    """Sampled frames of a clip."""
    sampling: Literal["uniform", "consecutive", "energy", "accumulate"] = "uniform"
    """`uniform`: int(linspace(0, n − 1, n_frames)); `consecutive`: the n_frames in the middle of the video; `energy`: of equal
    intervals the frame of most news by its packet; `accumulate`: uniform, the signals pooled over all frames in between."""
    size_px: int = 224
    """Side of the square that the frames are resized to; 14 must divide it."""
    patch_px: int = 14
    geometry: Literal["stretch", "letterbox"] = "stretch"
    """`stretch` fills the square; `letterbox` keeps the proportions and pads."""
    outside: Literal["exclude", "zero"] = "exclude"
    """Letterbox: patches not wholly within the picture are never chosen, or come last."""
    gop_frames: int = 32
    """One I-frame every so many sampled frames."""
    iframe_policy: Literal["keep", "first", "score", "drop"] = "keep"
    """I-frames: all whole; only frame 0 whole, the rest compete; all compete; none chosen."""
    selection: Literal["patches", "frames"] = "patches"
    """`patches`: I-frames and top-K; `frames`: whole frames, evenly spaced, for comparison."""
    buckets: int = 1
    """Equal stretches of time among which the top-K is divided equally."""
    static_fallback: bool = False
    """Clips in which little stands out: 4 evenly spaced frames whole in place of the I-frames."""
    vectors: Literal["l0", "l1", "both"] = "both"
    """What counts where a block is predicted from two frames: list 0, list 1, or both with their mean magnitude."""
    compensation: Literal["none", "median", "mean", "similarity", "affine"] = "similarity"
    """Model of the camera motion that is subtracted from the vectors."""
    motion_feature: Literal["magnitude", "variance"] = "magnitude"
    """`variance`: of the magnitude, over 3×3 cells."""
    residual_feature: Literal["magnitude", "gradient"] = "magnitude"
    centre_prior: float = 0.0
    """p of the factor 1 + p·exp(−d²/2σ²) around the picture's centre, σ = 0.35·min(H, W)."""
    fusion: Literal["mean", "max", "sum", "geomean"] = "mean"
    w_motion: float = 1.0
    w_residual: float = 1.0
    percentile_scope: Literal["frame", "clip"] = "frame"
    """Over what the 95th percentiles that scale each signal are taken."""
    source: Literal["auto", "bitstream", "transcode"] = "auto"
    """Of vectors and residual: the file's bitstream where it tells them, that or nothing, or always a new encoding."""
    time_limit_s: float = 120.0
    """Decoding a file for longer than this sets it aside."""
    truncated: Literal["refuse", "keep"] = "refuse"
    """A file that ends early or is damaged: set aside, or what decodes before that is kept and marked (`Clip.cut`)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "probe": {
            "motion_feature": "variance",
            "residual_feature": "gradient",
            "centre_prior": 0.3,
            "static_fallback": True,
        },
        "lmm": {"geometry": "letterbox"},
        "frames": {"selection": "frames"},
    }
    """What the key `preset` of a mapping stands for; keys beside it go before it (spec §2)."""

    @property
    def grid(self) -> int:
        """Patches along one side (Y = X)."""
        return self.size_px // self.patch_px

    def __post_init__(self) -> None:
        if self.size_px % self.patch_px:
            raise ConfigError(f"video.size_px = {self.size_px} is not a multiple of the patch side {self.patch_px}.")
        if self.n_frames < 1 or self.gop_frames < 1:
            raise ConfigError(f"video.n_frames = {self.n_frames} and video.gop_frames = {self.gop_frames} must be at least 1.")
        if not 1 <= self.buckets <= self.n_frames or self.centre_prior < 0:
            raise ConfigError(
                f"video.buckets = {self.buckets} must be within 1…n_frames = {self.n_frames}, video.centre_prior = "
                f"{self.centre_prior:g} not negative."
            )


def video_preset(name: str, **overrides: Any) -> VideoConfig:
    """The configuration of a preset (`paper`, `probe`, `lmm`, `frames`), with some of its values replaced."""
    return from_mapping(VideoConfig, {"preset": name} | overrides, "video.")
