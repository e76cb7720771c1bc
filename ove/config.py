"""Every knob: one frozen dataclass a folder."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, Literal

from ove.config_mapping import from_mapping
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


@dataclass(frozen=True)
class ShardsConfig:
    """What is written to disk."""

    records_per_shard: int = 64
    jpeg_quality: int = 92
    """Of the stored frames, 4:4:4 (0…100)."""
    workers: int = 2
    """Processes that decode videos in parallel; 0: in the command's own process, which a crash of the decoder then ends."""

    def __post_init__(self) -> None:
        if self.records_per_shard < 1 or not 1 <= self.jpeg_quality <= 100 or self.workers < 0:
            raise ConfigError(
                f"shards.records_per_shard = {self.records_per_shard} must be at least 1, shards.jpeg_quality = "
                f"{self.jpeg_quality} within 1…100, and shards.workers = {self.workers} not negative."
            )


@dataclass(frozen=True)
class LabelsConfig:
    """From clips to class centers (spec §5)."""

    teacher: Literal["thumbnails"] = "thumbnails"
    """`thumbnails` is an offline stand-in without weights; see `ove.labels.embed`."""
    n_centers: int = 64
    """k of k-means, per bank; at most half the number of samples."""
    n_labels: int = 10
    """Nearest centers kept per sample, at most n_centers."""
    iterations: int = 20
    seed: int = 0


@dataclass(frozen=True)
class HeadConfig:
    """One bank and the samples that train it."""

    bank: Literal["vid", "obj"]
    """`vid`: whole clips; `obj`: single images (here the middle frame of each clip)."""
    batch_size: int
    """Samples of this bank in one step, over all devices."""
    weight: float = 1.0
    """Of this bank's loss in the sum."""
    negatives: float = 0.1
    """Fraction r of the bank's centers drawn as negatives in each step (spec §3)."""
    labels_per_step: int = 10
    """Labels drawn per sample and step, without replacement."""
    centroids: str = ""
    """File (.npy, .safetensors) or folder of such from which a new run takes the bank's centers; "": random ones."""

    def __post_init__(self) -> None:
        if self.batch_size < 1 or self.labels_per_step < 1 or not 0 < self.negatives <= 1:
            raise ConfigError(
                f"head {self.bank}: batch_size = {self.batch_size} and labels_per_step = {self.labels_per_step} must be at "
                f"least 1, negatives = {self.negatives:g} within 0…1."
            )


@dataclass(frozen=True)
class BatchesConfig:
    """From shards to batches (spec §2, §4)."""

    shards: str = ""
    """Folder that `launch.shards` wrote."""
    budget_tokens: int = 2048
    """Tokens of one clip in every video mode; a multiple of the patches of a frame."""
    share_codec: float = 0.5
    share_frames: float = 0.375
    share_tiling: float = 0.125
    """Shares of the modes among the video samples; they sum to 1."""
    gop_frames: int = 32
    iframe_policy: Literal["keep", "first", "score", "drop"] = "keep"
    """As in `VideoConfig`: the selection is made anew from the stored saliency."""
    heads: tuple[HeadConfig, ...] = ()
    threads: int = 2
    """Threads that read and decode ahead."""
    max_bad_share: float = 0.05
    """Past this share of replaced records the run stops."""
    seed: int = 0

    def __post_init__(self) -> None:
        total = self.share_codec + self.share_frames + self.share_tiling
        if abs(total - 1) > 1e-6:
            raise ConfigError(f"batches.share_codec + share_frames + share_tiling = {total:g}; they must sum to 1.")
        banks = [head.bank for head in self.heads]
        if len(set(banks)) < len(banks):
            raise ConfigError(f"batches.heads names a bank twice ({', '.join(banks)}); give each bank one head.")
        if self.threads < 0:
            raise ConfigError(f"batches.threads = {self.threads} must not be negative.")


@dataclass(frozen=True)
class EncoderConfig:
    """A vision transformer with 3D RoPE (spec §1)."""

    layers: int = 24
    width: int = 1024
    heads: int = 16
    mlp: int = 4096
    patch_px: int = 14
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-6
    rope: Literal["paired", "released"] = "paired"
    """`paired` is a true rotation; `released` is what the published weights were trained with."""
    rope_theta: float = 10000.0
    head: bool = True
    """Whether the pooling head (and the norm before it) exist."""
    init_std: float = 0.02
    """Of the initial kernels. Meant for wide models: at widths of a few hundred nothing is learned for thousands of steps with
    it, and about 1/√width is right."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: next to nothing; all but what attention needs; everything (`ove.encoder.encoder`)."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Dtype of activations; parameters stay float32."""
    attention: Literal["auto", "cudnn", "pallas", "splash", "cpu", "reference"] = "auto"
    """Implementation of attention (`ove.encoder.attention`); `auto` goes by machine, dtype and shapes."""

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.width // self.heads

    @property
    def patch_values(self) -> int:
        """P, the numbers of one flattened RGB patch."""
        return self.patch_px * self.patch_px * 3

    def __post_init__(self) -> None:
        if self.width % self.heads or (self.width // self.heads) % 32:
            raise ConfigError(
                f"encoder.width = {self.width} over encoder.heads = {self.heads} must give a head width that 32 divides "
                "(RoPE splits half of it 4:6:6 over time, rows and columns)."
            )


@dataclass(frozen=True)
class CentersConfig:
    """The banks of class centers and their loss (spec §3)."""

    loss: Literal["sigmoid", "raw", "margin_softmax"] = "sigmoid"
    """`sigmoid`: scaled cosine with learned scale and bias; `raw`: the bare dot product (paper eq. 9); `margin_softmax`: one
    softmax a label over fixed-scale cosines, the reference's."""
    init_scale: float = 10.0
    init_std: float = 0.01
    negative_weight: Literal["1", "1/r"] = "1"
    """Of each negative term (sigmoid, raw); 1/r estimates the loss over the whole bank."""
    undrawn_positives: Literal["negative", "ignore"] = "negative"
    """What a row that is in the sample only as someone's label is to the samples that lack it (sigmoid, raw)."""
    softmax_scale: float = 64.0
    softmax_margin: float = 0.3
    """Taken off the cosine of the label."""
    softmax_filter: float = 0.75
    """Cosines of other rows above this count as 0; 1: none."""
    sampler: Literal["stratified", "feistel"] = "stratified"
    """One row of each of equal strata, or a random subset of each block of about a thousand rows."""
    decay: Literal["sampled", "elapsed"] = "sampled"
    """Weight decay when a row is sampled, hence at r times the dense rate; or then for all steps since it last was."""
    positives_capacity: int = 0
    """Most unique positives of a step in one shard of a bank; 0: enough by itself (`ove.centers.sample`)."""
    chunk_rows: int = 4096
    """Sampled rows of a shard that are compared with the batch at a time: what bounds the memory of a step."""
    collapse_cosine: float = 0.98
    """Mean cosine between the embeddings of a batch above which the run reports a collapse."""

    def __post_init__(self) -> None:
        _at_least_one("centers", self, "chunk_rows")
        if self.positives_capacity < 0 or self.softmax_scale * (1 + abs(self.softmax_margin)) > 87:
            raise ConfigError(
                f"centers.positives_capacity = {self.positives_capacity} must not be negative, and centers.softmax_scale = "
                f"{self.softmax_scale:g} times 1 + |{self.softmax_margin:g}| (softmax_margin) at most 87, or float32 overflows."
            )


@dataclass(frozen=True)
class TrainConfig:
    """Optimizer, schedule, logging and checkpoints (spec §4)."""

    steps: int = 1000
    lr: float = 1e-3
    lr_bank: float = 1e-3
    schedule: Literal["linear", "cosine"] = "linear"
    warmup_steps: int = 50
    weight_decay: float = 0.2
    b1: float = 0.9
    b2: float = 0.999
    adam_eps: float = 1e-8
    clip_norm: float = 5.0
    """Of the encoder's gradient; the bank's sampled gradient is clipped alike, apart from it."""
    log_every: int = 20
    save_every: int = 200
    keep: int = 2
    """Checkpoints kept."""
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one("train", self, "steps", "log_every", "save_every", "keep")


@dataclass(frozen=True)
class ProbeConfig:
    """A frozen encoder under an attentive probe (spec §6)."""

    workdir: str = ""
    """Folder of the training run whose encoder is probed."""
    train_shards: str = ""
    val_shards: str = ""
    modes: tuple[str, ...] = ("codec", "frames")
    untrained: bool = True
    """Also probe the same encoder with fresh weights."""
    budget_tokens: int = 2048
    gop_frames: int = 32
    iframe_policy: Literal["keep", "first", "score", "drop"] = "keep"
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-4
    lr_end: float = 1e-7
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    seed: int = 0

    def __post_init__(self) -> None:
        _at_least_one("probe", self, "epochs", "batch_size")


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    batches: BatchesConfig = field(default_factory=BatchesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    centers: CentersConfig = field(default_factory=CentersConfig)
    train: TrainConfig = field(default_factory=TrainConfig)


def _at_least_one(where: str, config: Any, *names: str) -> None:
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{where}.{name} = {getattr(config, name)} must be at least 1.")
