"""Training, and a training run as a whole."""

from dataclasses import dataclass, field
from typing import Literal

from ove.config.batches import BatchesConfig
from ove.config.centers import CentersConfig
from ove.config.checks import at_least_one
from ove.config.encoder import EncoderConfig
from ove.config.evaluation import EvaluationConfig
from ove.config.mesh import MeshConfig
from ove.errors import ConfigError


@dataclass(frozen=True)
class BankRates:
    """Peak learning rates of single banks; 0: `train.lr_bank`."""

    vid: float = 0.0
    obj: float = 0.0
    ocr: float = 0.0


@dataclass(frozen=True)
class TrainConfig:
    """Optimizer, schedule, logging and checkpoints (spec §4)."""

    steps: int = 1000
    lr: float = 1e-3
    """Peak of the encoder's learning rate."""
    lr_bank: float = 1e-3
    """Peak of the banks' learning rate, which follows the same schedule."""
    lr_banks: BankRates = field(default_factory=BankRates)
    accumulate: int = 1
    """Microbatches that each device makes of its samples; losses and gradients stay those of the batch (docs/scaling.md)."""
    init_from: str = ""
    """Folder of a run, or folder or file of published weights, from which a new run takes its encoder; "": random ones."""
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
    """Newest checkpoints kept."""
    keep_every: int = 0
    """Besides, checkpoints of every so many steps stay for good, a multiple of `save_every`; 0: none."""
    step_limit_s: float = 1800.0
    """A process in which no step, save or evaluation ends for so long writes where it stands and exits (70); 0: never."""
    first_step_limit_s: float = 7200.0
    """The same until the first step is done: opening data, restoring, compiling; 0: never."""
    meet_limit_s: float = 600.0
    """How long processes wait for each other where all must come together: at the start, over a checkpoint, at the end."""
    silence_limit_s: float = 60.0
    """A process not heard of for so long ends all others."""
    on_spike: Literal["ignore", "skip", "stop"] = "ignore"
    """A bank's loss that jumps (`ove.train.monitor.guards.judge`): is only reported, its step changes nothing, or the run ends."""
    spike_mads: float = 10.0
    """By how many median absolute deviations above its median a loss has jumped."""
    eval_every: int = 0
    """Steps between two evaluations (section `evaluation`), each after a save; 0: none."""
    eval_limit_s: float = 3600.0
    """An evaluation that takes longer ends the process like a step that is stuck; 0: none does."""
    pictures: int = 2
    """Samples of each bank and mode that are drawn at the start of a run, into `pictures/`; 0: none."""
    peak_tflops: float = 0.0
    """10¹² operations a second that one device could do, for the model FLOPs utilisation; 0: by `ove.train.monitor.throughput`."""
    seed: int = 0

    def __post_init__(self) -> None:
        at_least_one("train", self, "steps", "accumulate", "log_every", "save_every", "keep", "meet_limit_s", "silence_limit_s")
        if min(self.keep_every, self.step_limit_s, self.first_step_limit_s) < 0:
            raise ConfigError(
                f"train.keep_every = {self.keep_every}, train.step_limit_s = {self.step_limit_s:g} and "
                f"train.first_step_limit_s = {self.first_step_limit_s:g} must not be negative."
            )
        if self.keep_every % self.save_every:
            raise ConfigError(
                f"train.keep_every = {self.keep_every} is no multiple of train.save_every = {self.save_every}, the steps at "
                "which there are checkpoints to keep."
            )
        if min(self.eval_every, self.eval_limit_s, self.pictures, self.peak_tflops) < 0 or self.spike_mads <= 0:
            raise ConfigError(
                f"train.eval_every = {self.eval_every}, train.eval_limit_s = {self.eval_limit_s:g}, train.pictures = "
                f"{self.pictures} and train.peak_tflops = {self.peak_tflops:g} must not be negative, "
                f"train.spike_mads = {self.spike_mads:g} must be above 0."
            )
        if min(self.lr, self.lr_bank, *vars(self.lr_banks).values()) < 0:
            raise ConfigError(
                f"train.lr, train.lr_bank and train.lr_banks must not be negative, not "
                f"{self.lr:g}, {self.lr_bank:g} and {self.lr_banks}."
            )

    def rate_of(self, bank: str) -> float:
        """Peak learning rate of a bank."""
        return getattr(self.lr_banks, bank) or self.lr_bank


@dataclass(frozen=True)
class RunConfig:
    """One training run."""

    batches: BatchesConfig = field(default_factory=BatchesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    centers: CentersConfig = field(default_factory=CentersConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
