"""Probing."""

from dataclasses import dataclass
from typing import Literal

from ove.config.checks import at_least_one
from ove.errors import ConfigError

INTERVENTIONS = ("none", "non_motion", "other_video", "shuffle")


@dataclass(frozen=True)
class ProbeConfig:
    """What a frozen encoder is worth on labelled shards (spec §6)."""

    weights: str = ""
    """Folder of a training run, folder or file of published weights, or folder of a CLIP vision tower."""
    train_shards: str = ""
    val_shards: str = ""
    probe: Literal["attentive", "linear", "knn"] = "attentive"
    """`attentive`: a learned query over all tokens; `linear`: logistic regression on embeddings; `knn`: nothing is trained."""
    modes: tuple[str, ...] = ("codec", "frames")
    budgets: tuple[int, ...] = (2048,)
    """Tokens of a clip; each mode is probed at each of them."""
    interventions: tuple[str, ...] = ("none",)
    """What is done to the codec's patches before the encoder sees them (`ove.probe.interventions`)."""
    untrained: bool = True
    """Also probe the same encoder with fresh weights."""
    gop_frames: int = 32
    iframe_policy: Literal["keep", "first", "score", "drop"] = "keep"
    buckets: int = 1
    static_fallback: bool = False
    outside: Literal["exclude", "zero"] = "exclude"
    """How the codec's patches are chosen: as in `VideoConfig`."""
    image_px: int = 224
    """Shards of pictures (mode image): side of the square that each is cut and brought to; clips keep theirs."""
    features: Literal["memory", "disk", "encode"] = "memory"
    """Tokens are computed once and held in memory, or in files under `cache`, or computed anew whenever they are needed, which
    alone allows augmentation. 2,048 tokens of width 1,024 take 4 MiB a sample."""
    cache: str = ""
    """Folder for `features` = disk; what is found there from earlier runs is used again."""
    jitter: bool = False
    """Training, `features` = encode: frames drawn at random from their intervals (modes frames and tiling)."""
    flip: float = 0.0
    """Training, `features` = encode: share of the clips that are mirrored. Not where left and right are classes."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Dtype of the frozen encoder's activations."""
    epochs: int = 10
    batch_size: int = 32
    lr: float = 1e-4
    lr_end: float = 1e-7
    label_smoothing: float = 0.1
    clip_norm: float = 5.0
    neighbours: int = 20
    """k of `knn`."""
    l2: float = 1.0
    """Of `linear`: ½·l2·|W|² beside the summed cross-entropy, features scaled to variance 1."""
    seeds: tuple[int, ...] = (0,)
    """The attentive probe is trained once with each; fresh weights of `untrained` are those of the first."""

    def __post_init__(self) -> None:
        at_least_one("probe", self, "epochs", "batch_size", "neighbours", "gop_frames", "buckets", "image_px")
        if not self.budgets or not self.seeds or min(self.budgets) < 1:
            raise ConfigError(f"probe.budgets = {self.budgets} and probe.seeds = {self.seeds} must each name at least one.")
        unknown = [name for name in self.interventions if name not in INTERVENTIONS]
        if unknown or not self.interventions:
            raise ConfigError(
                f"probe.interventions = {list(self.interventions)}: name one or more of {', '.join(INTERVENTIONS)}."
            )
        if self.features == "disk" and not self.cache:
            raise ConfigError("probe.features = disk needs a folder: set probe.cache.")
        if (self.jitter or self.flip) and self.features != "encode":
            raise ConfigError("probe.jitter and probe.flip need probe.features = encode; stored tokens are always the same.")
        if not 0 <= self.flip <= 1 or self.l2 < 0:
            raise ConfigError(f"probe.flip = {self.flip:g} must be within 0…1, probe.l2 = {self.l2:g} not negative.")
