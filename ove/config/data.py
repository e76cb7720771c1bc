"""What is read, chosen, stored and fed to a training run."""

import math
import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, ClassVar, Literal

from ove.config.mapping import from_mapping
from ove.config.section import Bounds, Count, Natural, NonNegative, Own, Positive, Section, Share
from ove.errors import ConfigError

_LEAST_GRACE_S = 5.0
_MOST_PATCHES, _PATCH_PIXELS = 1 << 22, 1024
"""Of a clip: 64 frames of 256 × 256 patches of 32 px, whose pixels take 13 GB."""
IframePolicy = Literal["keep", "first", "score", "drop"]


@dataclass(frozen=True)
class SelectionConfig(Section):
    """Which patches of a clip are chosen, by their saliency (spec §2)."""

    rule: Literal["patches", "frames"] | Own = "patches"
    """`patches`: I-frames and top-K; `frames`: whole frames, evenly spaced, for comparison."""
    gop_frames: Count = 32
    """One I-frame every so many sampled frames."""
    iframe_policy: IframePolicy | Own = "keep"
    """I-frames: all whole; only frame 0 whole, the rest compete; all compete; none chosen."""
    buckets: Count = 1
    """Equal stretches of time among which the top-K is divided equally."""
    static_fallback: bool = False
    """Clips in which little stands out: 4 evenly spaced frames whole in place of the I-frames."""
    outside: Literal["exclude", "zero"] = "exclude"
    """Letterbox: patches not wholly within the picture are never chosen, or come last."""


@dataclass(frozen=True)
class VideoConfig(Section):
    """How a video file becomes 64 frames and a saliency map (spec §2)."""

    n_frames: Count = 64
    """Sampled frames of a clip."""
    sampling: Literal["uniform", "consecutive", "energy", "pool"] | Own = "uniform"
    """`uniform`: int(linspace(0, n − 1, n_frames)); `consecutive`: the n_frames in the middle of the video; `energy`: of equal
    intervals the frame of most news by its packet; `pool`: uniform, the signals pooled over all frames in between."""
    size_px: Count = 224
    """Side of the square that the frames are resized to; 14 must divide it."""
    patch_px: Count = 14
    geometry: Literal["stretch", "letterbox"] = "stretch"
    """`stretch` fills the square; `letterbox` keeps the proportions and pads."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    vectors: Literal["l0", "l1", "both"] = "both"
    """What counts where a block is predicted from two frames: list 0, list 1, or both with their mean magnitude."""
    compensation: Literal["none", "median", "mean", "similarity", "affine"] | Own = "similarity"
    """Model of the camera motion that is subtracted from the vectors."""
    motion_feature: Literal["magnitude", "variance"] | Own = "magnitude"
    """`variance`: of the magnitude, over 3×3 cells."""
    residual_feature: Literal["magnitude", "gradient"] | Own = "magnitude"
    centre_prior: NonNegative = 0.0
    """p of the factor 1 + p·exp(−d²/2σ²) around the picture's centre, σ = 0.35·min(H, W)."""
    fusion: Literal["mean", "max", "sum", "geomean"] | Own = "mean"
    w_motion: NonNegative = 1.0
    w_residual: NonNegative = 1.0
    percentile_scope: Literal["frame", "clip"] = "frame"
    """Over what the 95th percentiles that scale each signal are taken."""
    source: Literal["auto", "bitstream", "transcode"] = "auto"
    """Of vectors and residual: the file's bitstream where it tells them, that or nothing, or always a new encoding."""
    time_limit_s: float = 120.0
    """Decoding a file for more processor time than this, in seconds, sets it aside; so does ten times that by the clock
    (`LimitsConfig.stall_factor`)."""
    truncated: Literal["refuse", "keep"] = "refuse"
    """A file that ends early or is damaged: set aside, or what decodes before that is kept and marked (`Clip.cut`)."""

    PRESETS: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "paper": {},
        "probe": {
            "motion_feature": "variance",
            "residual_feature": "gradient",
            "centre_prior": 0.3,
            "selection": {"static_fallback": True},
        },
        "lmm": {"geometry": "letterbox"},
        "frames": {"selection": {"rule": "frames"}},
    }
    """What the key `preset` of a mapping stands for; keys beside it go before it (spec §2)."""

    @property
    def work_limit_s(self) -> float:
        """Processor seconds for all work on a file, after which its process is ended: half as much again, 5 at least."""
        return self.time_limit_s + max(self.time_limit_s / 2, _LEAST_GRACE_S)

    @property
    def grid(self) -> int:
        """Patches along one side (Y = X)."""
        return self.size_px // self.patch_px

    def check(self) -> None:
        if self.size_px % self.patch_px:
            raise ConfigError(f"video.size_px = {self.size_px} is not a multiple of the patch side {self.patch_px}.")
        if self.n_frames * self.grid**2 > _MOST_PATCHES or self.size_px**2 * self.n_frames > _MOST_PATCHES * _PATCH_PIXELS:
            raise ConfigError(
                f"video.n_frames = {self.n_frames} and video.size_px = {self.size_px} make {self.n_frames * self.grid**2:,} "
                f"patches of {self.patch_px} px; give fewer than {_MOST_PATCHES:,}, of up to {_PATCH_PIXELS} pixels each."
            )
        if self.selection.buckets > self.n_frames:
            raise ConfigError(
                f"video.selection.buckets = {self.selection.buckets} must be within 1…n_frames = {self.n_frames}."
            )
        if self.w_motion + self.w_residual == 0:
            raise ConfigError("video.w_motion and video.w_residual are both 0; one must be above 0.")


def video_preset(name: str, **overrides: Any) -> VideoConfig:
    """Returns the configuration of a preset (`paper`, `probe`, `lmm`, `frames`), with some of its values replaced."""
    return from_mapping(VideoConfig, {"preset": name} | overrides, "video.")


@dataclass(frozen=True)
class ShardsConfig(Section):
    """What is written to disk."""

    records_per_shard: Count = 64
    store: tuple[Literal["frames", "h264", "mosaics"], ...] = ("frames",)
    """How the pixels of a video are stored: as JPEG `frames`, as an `h264` stream (fewer bytes, more work), both, and, besides,
    the selected patches as `mosaics` (quick to read, for this one selection)."""
    jpeg_quality: Annotated[int, Bounds(1, 100)] = 92
    """Of the stored frames, and of pictures that had to be encoded anew, 4:4:4 (1…100)."""
    h264_crf: Annotated[int, Bounds(0, 51)] = 18
    """Of the stored stream: 0 (large) … 51 (poor)."""
    budget_tokens: Count = 2048
    """Patches of a clip in its mosaics; chosen as the video section says."""
    max_side_px: Natural = 0
    """Pictures whose longer side is more are shrunk to that; 0: none are."""
    image_column: str = ""
    """Where a table (Parquet, TFRecord) has the file itself; "": where it usually is (docs/data_format.md)."""
    path_column: str = ""
    """Where a list (CSV, JSONL) has the path; "": `path` and what else is usual."""
    label_column: str = ""
    """Where a list, a table or the JSON of a sample has the class name; "": `label` and what else is usual."""
    label_folder: Natural = 0
    """The class name is that of the n-th folder above a file, below the source: 1, the folder that holds it; 2, the one above.
    0: the topmost. In lists it is taken from the path as written, for lines without a class name."""
    root: str = ""
    """Folder at which relative paths of a list start; "": that of the list."""
    centers_obj: Natural = 0
    centers_vid: Natural = 0
    centers_ocr: Natural = 0
    """Class centers of a bank, for inputs with labels: a file with a label that is not below is set aside. 0: any is taken."""
    workers: Natural | None = None
    """Processes that decode in parallel; None: one a core; 0: in the command's own, which a crash of the decoder ends."""

    @property
    def centers(self) -> dict[str, int]:
        """Class centers by bank, where they are told."""
        told = {"obj": self.centers_obj, "vid": self.centers_vid, "ocr": self.centers_ocr}
        return {bank: count for bank, count in told.items() if count}

    def check(self) -> None:
        if not {"frames", "h264"} & set(self.store) or len(set(self.store)) < len(self.store):
            raise ConfigError(
                f"shards.store = {','.join(self.store) or 'nothing'} must have frames or h264, each once: mosaics alone are "
                "enough for one selection only."
            )


@dataclass(frozen=True)
class HeadConfig(Section):
    """One bank and the samples that train it."""

    bank: Literal["vid", "obj", "ocr"]
    """`vid`: clips; `obj`: images; `ocr`: images with text. Of clips, `obj` and `ocr` take the middle frame."""
    batch_size: Count
    """Samples of this bank in one step, over all devices."""
    weight: float = 1.0
    """Of this bank's loss in the sum."""
    negatives: Annotated[float, Bounds(0, 1, above=True)] = 0.1
    """Fraction r of the bank's centers drawn as negatives in each step (spec §3)."""
    labels_per_step: Count = 10
    """Labels drawn per sample and step, without replacement."""
    centroids: str = ""
    """File (.npy, .safetensors) or folder of such from which a new run takes the bank's centers; "": random ones."""
    shards: tuple[str, ...] = ()
    """Folders of the head's records; (): that of `batches.shards`."""
    shares: tuple[Positive, ...] = ()
    """In what proportion samples come from each of `shards`, exactly; (): equally."""
    size_px: Natural = 0
    """Images: side of the square after augmentation, in pixels; 0: that of the records, where they are of one size."""
    budget_tokens: Natural = 0
    """Tokens of one clip; 0: `batches.budget_tokens`."""
    augment: Literal["auto", "crop", "centre", "none"] = "auto"
    """Images: `crop`, a random crop, mirrored half of the time; `centre`, shorter side to the size, centre crop; `none`, the
    whole picture. `auto`: crop for `obj`, centre for `ocr` (spec §4). Clips are never augmented."""

    def check(self) -> None:
        if self.shares and (len(self.shares) != len(self.shards) or math.inf in self.shares):
            raise ConfigError(
                f"head {self.bank}: shares = {self.shares} must be one positive number for each of shards = {self.shards}."
            )
        if self.bank == "vid" and (self.size_px or self.augment not in ("auto", "none")):
            raise ConfigError(
                f"head vid: size_px = {self.size_px} and augment = {self.augment!r} are for images; clips have the size that "
                "they were stored at (`--size` of `ove shards`)."
            )


@dataclass(frozen=True)
class BatchesConfig(Section):
    """From shards to batches (spec §2, §4)."""

    shards: str = ""
    """Folder that `ove shards` wrote, for the heads that name none of their own."""
    budget_tokens: Count = 2048
    """Tokens of one clip in every video mode; a multiple of the patches of a frame."""
    share_codec: NonNegative = 0.5
    share_frames: NonNegative = 0.375
    share_tiling: NonNegative = 0.125
    """Shares of the modes among the video samples; they sum to 1."""
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    """Made anew from the stored saliency."""
    patch_px: Count = 14
    """Side of a patch; that of the clips must be the same."""
    heads: tuple[HeadConfig, ...] = ()
    threads: Natural = 2
    """Threads that read and decode ahead, a batch each; 0: none, batches are made when they are asked for."""
    num_workers: Natural = 0
    """Processes that do so, each with `threads` threads; 0: none but the trainer's own."""
    decode_limit_s: Positive = 30.0
    """A record that takes longer to read and decode is set aside like a damaged one, in seconds."""
    max_bad_share: Share = 0.05
    """Past this share of replaced records the run stops, 0…1."""
    allow_new_data: bool = False
    """Goes on from a checkpoint though records, labels, shares or modes have changed since."""
    seed: Natural = 0

    def check(self) -> None:
        shares = self.share_codec, self.share_frames, self.share_tiling
        if abs(sum(shares) - 1) > 1e-6:
            raise ConfigError(f"batches.share_codec + share_frames + share_tiling = {sum(shares):g}; they must sum to 1.")
        banks = [head.bank for head in self.heads]
        if len(set(banks)) < len(banks):
            raise ConfigError(f"batches.heads names a bank twice ({', '.join(banks)}); give each bank one head.")
        for head in self.heads:
            if head.size_px % self.patch_px:
                raise ConfigError(
                    f"head {head.bank}: size_px = {head.size_px} is not a multiple of batches.patch_px = {self.patch_px}."
                )


@dataclass(frozen=True)
class RemoteConfig(Section):
    """How remote shards are fetched."""

    cache: Path
    """Folder for copies of remote shards (OVE_CACHE; default: `ove/shards` in $XDG_CACHE_HOME or ~/.cache)."""
    cache_gb: Positive = 100.0
    """What the copies may take together, in 10⁹ bytes (OVE_CACHE_GB)."""
    timeout_s: Positive = 60.0
    """A transfer that brings less than 1 kB/s over so many seconds is given up (OVE_TIMEOUT_S)."""
    attempts: Count = 3
    """How often a transfer is tried that breaks off or comes too slowly (OVE_ATTEMPTS)."""

    @classmethod
    def key(cls, name: str) -> str:
        """Returns the environment variable of a setting."""
        return f"OVE_{name.upper()}"

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "RemoteConfig":
        """Reads the settings of this machine; a variable that is no number raises ConfigError."""
        above = environment.get("XDG_CACHE_HOME") or "~/.cache"
        cache = Path(environment.get("OVE_CACHE") or Path(above) / "ove" / "shards").expanduser()
        numbers: dict[str, float] = {}
        for name in ("cache_gb", "timeout_s", "attempts"):
            variable = cls.key(name)
            if text := environment.get(variable):
                try:
                    numbers[name] = int(text) if name == "attempts" else float(text)
                except ValueError as error:
                    raise ConfigError(f"{variable} = {text!r} must be a number.") from error
        return cls(cache.absolute(), **numbers)  # type: ignore[arg-type]
