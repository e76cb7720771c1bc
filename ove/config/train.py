"""Training, and a training run as a whole."""

from dataclasses import dataclass, field
from typing import Literal

from ove.config.batches import BatchesConfig
from ove.config.centers import CentersConfig
from ove.config.checks import at_least_one
from ove.config.encoder import EncoderConfig
from ove.config.evaluation import EvaluationConfig
from ove.errors import ConfigError


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
    on_spike: Literal["ignore", "skip", "stop"] = "ignore"
    """A bank's loss that jumps (`ove.train.guards.judge`): is only reported, its step changes nothing, or the run ends."""
    spike_mads: float = 10.0
    """By how many median absolute deviations above its median a loss has jumped."""
    eval_every: int = 0
    """Steps between two evaluations (section `evaluation`); 0: none."""
    pictures: int = 2
    """Samples of each bank and mode that are drawn at the start of a run, into `pictures/`; 0: none."""
    peak_tflops: float = 0.0
    """10¹² operations a second that one device could do, for the model FLOPs utilisation; 0: by `ove.train.throughput`."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("train", self, "steps", "log_every", "save_every", "keep")
        if min(self.eval_every, self.pictures, self.peak_tflops) < 0 or self.spike_mads <= 0:
            raise ConfigError(
                f"train.eval_every = {self.eval_every}, train.pictures = {self.pictures} and train.peak_tflops = "
                f"{self.peak_tflops:g} must not be negative, train.spike_mads = {self.spike_mads:g} must be above 0."
            )


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    batches: BatchesConfig = field(default_factory=BatchesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    centers: CentersConfig = field(default_factory=CentersConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
