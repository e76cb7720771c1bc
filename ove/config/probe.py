"""Probing."""

from dataclasses import dataclass
from typing import Literal

from ove.config.checks import at_least_one


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
        at_least_one("probe", self, "epochs", "batch_size")
