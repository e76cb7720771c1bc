"""Training, and a training run as a whole."""

from dataclasses import dataclass, field
from typing import Literal

from ove.config.batches import BatchesConfig
from ove.config.centers import CentersConfig
from ove.config.checks import at_least_one
from ove.config.encoder import EncoderConfig


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
        at_least_one("train", self, "steps", "log_every", "save_every", "keep")


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    batches: BatchesConfig = field(default_factory=BatchesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    centers: CentersConfig = field(default_factory=CentersConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
