"""What a training run sees."""

import math
from dataclasses import dataclass
from typing import Literal

from ove.errors import ConfigError


@dataclass(frozen=True)
class HeadConfig:
    """One bank and the samples that train it."""

    bank: Literal["vid", "obj", "ocr"]
    """`vid`: clips; `obj`: images; `ocr`: images with text. Of clips, `obj` and `ocr` take the middle frame."""
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
    shards: tuple[str, ...] = ()
    """Folders of the head's records; (): that of `batches.shards`."""
    shares: tuple[float, ...] = ()
    """In what proportion samples come from each of `shards`, exactly; (): equally."""
    size_px: int = 0
    """Images: side of the square after augmentation, in pixels; 0: that of the records, where they are of one size."""
    budget_tokens: int = 0
    """Tokens of one clip; 0: `batches.budget_tokens`."""
    augment: Literal["auto", "crop", "centre", "none"] = "auto"
    """Images: `crop`, a random crop, mirrored half of the time; `centre`, shorter side to the size, centre crop; `none`, the
    whole picture. `auto`: crop for `obj`, centre for `ocr` (spec §4). Clips are never augmented."""

    def __post_init__(self) -> None:
        if self.shares and (len(self.shares) != len(self.shards) or not all(0 < s < math.inf for s in self.shares)):
            raise ConfigError(
                f"head {self.bank}: shares = {self.shares} must be one positive number for each of shards = {self.shards}."
            )
        if self.size_px < 0 or self.budget_tokens < 0:
            raise ConfigError(
                f"head {self.bank}: size_px = {self.size_px} and budget_tokens = {self.budget_tokens} must not be negative."
            )
        if self.bank == "vid" and (self.size_px or self.augment not in ("auto", "none")):
            raise ConfigError(
                f"head vid: size_px = {self.size_px} and augment = {self.augment!r} are for images; clips have the size that "
                "they were stored at (`--size` of launch.shards)."
            )
        if self.batch_size < 1 or self.labels_per_step < 1 or not 0 < self.negatives <= 1:
            raise ConfigError(
                f"head {self.bank}: batch_size = {self.batch_size} and labels_per_step = {self.labels_per_step} must be at "
                f"least 1, negatives = {self.negatives:g} within 0…1."
            )


@dataclass(frozen=True)
class BatchesConfig:
    """From shards to batches (spec §2, §4)."""

    shards: str = ""
    """Folder that `launch.shards` wrote, for the heads that name none of their own."""
    budget_tokens: int = 2048
    """Tokens of one clip in every video mode; a multiple of the patches of a frame."""
    share_codec: float = 0.5
    share_frames: float = 0.375
    share_tiling: float = 0.125
    """Shares of the modes among the video samples; they sum to 1."""
    gop_frames: int = 32
    iframe_policy: Literal["keep", "first", "score", "drop"] = "keep"
    buckets: int = 1
    static_fallback: bool = False
    outside: Literal["exclude", "zero"] = "exclude"
    """The last five as in `VideoConfig`: the selection is made anew from the stored saliency."""
    patch_px: int = 14
    """Side of a patch; that of the clips must be the same."""
    heads: tuple[HeadConfig, ...] = ()
    threads: int = 2
    """Threads that read and decode ahead, a batch each; 0: none, batches are made when they are asked for."""
    processes: int = 0
    """Processes that do so, each with `threads` threads; 0: none but the trainer's own."""
    decode_limit_s: float = 30.0
    """A record that takes longer to read and decode is set aside like a damaged one, in seconds."""
    max_bad_share: float = 0.05
    """Past this share of replaced records the run stops, 0…1."""
    allow_new_data: bool = False
    """Goes on from a checkpoint though records, labels, shares or modes have changed since."""
    seed: int = 0

    def __post_init__(self) -> None:
        shares = self.share_codec, self.share_frames, self.share_tiling
        if abs(sum(shares) - 1) > 1e-6 or min(shares) < 0:
            raise ConfigError(
                f"batches.share_codec + share_frames + share_tiling = {sum(shares):g}; they must sum to 1, none negative."
            )
        banks = [head.bank for head in self.heads]
        if len(set(banks)) < len(banks):
            raise ConfigError(f"batches.heads names a bank twice ({', '.join(banks)}); give each bank one head.")
        if self.threads < 0 or self.processes < 0:
            raise ConfigError(f"batches.threads = {self.threads} and processes = {self.processes} must not be negative.")
        if not self.decode_limit_s > 0 or not 0 <= self.max_bad_share <= 1:
            raise ConfigError(
                f"batches.decode_limit_s = {self.decode_limit_s:g} must be positive, and batches.max_bad_share = "
                f"{self.max_bad_share:g} within 0…1."
            )
        for head in self.heads:
            if self.patch_px < 1 or head.size_px % self.patch_px:
                raise ConfigError(
                    f"head {head.bank}: size_px = {head.size_px} is not a multiple of batches.patch_px = {self.patch_px}."
                )
