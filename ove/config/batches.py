"""What a training run sees."""

from dataclasses import dataclass
from typing import Literal

from ove.errors import ConfigError


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
