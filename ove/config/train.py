"""A training run."""

from dataclasses import dataclass, field
from typing import Annotated, Literal

from ove.config.data import BatchesConfig
from ove.config.model import CentersConfig, EncoderConfig
from ove.config.probe import Head, Mode, check_folders
from ove.config.section import Bounds, Count, Natural, NonNegative, Own, Positive, Section
from ove.errors import ConfigError


@dataclass(frozen=True)
class BankRates(Section):
    """Peak learning rates of single banks; None: `train.lr_bank`; 0: the bank stays as it is."""

    vid: NonNegative | None = None
    obj: NonNegative | None = None
    ocr: NonNegative | None = None


@dataclass(frozen=True)
class TrainConfig(Section):
    """Optimizer, schedule, logging and checkpoints (spec §4)."""

    steps: Count = 1000
    lr: NonNegative = 1e-3
    """Peak of the encoder's learning rate."""
    lr_bank: NonNegative = 1e-3
    """Peak of the banks' learning rate, which follows the same schedule."""
    lr_by_bank: BankRates = field(default_factory=BankRates)
    grad_accum_steps: Count = 1
    """Microbatches that each device makes of its samples; losses and gradients stay those of the batch (docs/scaling.md)."""
    init_from: str = ""
    """Folder of a run, or folder or file of published weights, from which a new run takes its encoder; "": random ones."""
    schedule: Literal["linear", "cosine"] | Own = "linear"
    warmup_steps: Natural = 50
    weight_decay: NonNegative = 0.2
    b1: float = 0.9
    b2: float = 0.999
    adam_eps: Positive = 1e-8
    clip_norm: Positive = 5.0
    """Of the encoder's gradient; the bank's sampled gradient is clipped alike, apart from it."""
    log_every: Count = 20
    save_every: Count = 200
    max_to_keep: Count = 2
    """Newest checkpoints kept."""
    keep_period: Natural = 0
    """Besides, checkpoints of every so many steps stay for good, a multiple of `save_every`; 0: none."""
    step_limit_s: NonNegative = 1800.0
    """A process in which no step, save or evaluation ends for so long writes where it stands and exits (70); 0: never."""
    first_step_limit_s: NonNegative = 7200.0
    """The same until the first step is done: opening data, restoring, compiling; 0: never."""
    barrier_timeout_s: Annotated[float, Bounds(1)] = 600.0
    """How long processes wait for each other where all must come together: at the start, over a checkpoint, at the end."""
    heartbeat_timeout_s: Annotated[float, Bounds(1)] = 60.0
    """A process not heard of for so long ends all others."""
    compilation_cache: str = "auto"
    """Folder in which compiled programs are kept, so that a restart compiles nothing; "": none. "auto": JAX's own setting
    (JAX_COMPILATION_CACHE_DIR) if there is one, else `compiled` in the run's folder on GPUs and TPUs, and none on CPUs."""
    on_spike: Literal["ignore", "skip", "stop"] = "ignore"
    """A bank's loss that jumps: is only reported, its step changes nothing, or the run ends (`ove.train.monitor.guards`)."""
    spike_mads: Positive = 10.0
    """By how many median absolute deviations above its median a loss has jumped."""
    eval_every: Natural = 0
    """Steps between two evaluations (section `evaluation`), each after a save; 0: none."""
    eval_limit_s: NonNegative = 3600.0
    """An evaluation that takes longer ends the process like a step that is stuck; 0: none does."""
    log_images: Natural = 2
    """Samples of each bank and mode that are drawn at the start of a run, into `pictures/`; 0: none."""
    peak_tflops: NonNegative = 0.0
    """10¹² operations a second of one device, for the model FLOPs utilisation; 0: by device (`ove.train.monitor.speed`)."""
    seed: Natural = 0

    def rate_of(self, bank: str) -> float:
        """Returns the peak learning rate of a bank."""
        rate = getattr(self.lr_by_bank, bank)
        return self.lr_bank if rate is None else rate

    def check(self) -> None:
        if self.keep_period % self.save_every:
            raise ConfigError(
                f"train.keep_period = {self.keep_period} is not a multiple of train.save_every = {self.save_every}, the "
                "steps at which there are checkpoints to keep."
            )


@dataclass(frozen=True)
class MeshConfig(Section):
    """The axes of the mesh (docs/scaling.md). Samples are split over all of them; the defaults do for any number of devices.

    Neighbouring devices lie along the last axes: `fsdp` or `bank` no larger than a host (or an NVLink domain) talk within it.
    """

    data: Natural = 0
    """Devices along the axis over which the encoder is repeated; 0: all that the other axes leave."""
    fsdp: Count = 1
    """Devices over which the encoder's parameters and moments are cut; 1: each device holds all of them."""
    bank: Natural = 0
    """0: banks are cut over all devices; n: over groups of fsdp · n neighbours, each of which holds a whole copy."""


@dataclass(frozen=True)
class EvaluationConfig(Section):
    """A quick probe of the encoder on labelled shards, every `train.eval_every` steps."""

    train_shards: str | tuple[str, ...] = ""
    """Labelled shards, a folder or several: what the probe learns from."""
    val_shards: str | tuple[str, ...] = ""
    """The same, to score it on."""
    probe: Head | Own = "knn"
    """As in `ove probe`, with its defaults."""
    modes: tuple[Mode, ...] = ("codec",)
    """How the shards are seen; budget, I-frames and policy are those of `batches`."""
    neighbours: Count = 10
    """k of `knn`."""
    epochs: Count = 10
    """Of `attentive`."""

    def check(self) -> None:
        if not self.modes:
            raise ConfigError("evaluation.modes is empty; name at least one.")
        check_folders("evaluation", self)
        if bool(self.train_shards) != bool(self.val_shards):
            raise ConfigError("evaluation.train_shards and evaluation.val_shards go together; give both, or neither.")


@dataclass(frozen=True)
class RunConfig(Section):
    """One training run."""

    batches: BatchesConfig = field(default_factory=BatchesConfig)
    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    centers: CentersConfig = field(default_factory=CentersConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    evaluation: EvaluationConfig = field(default_factory=EvaluationConfig)
    mesh: MeshConfig = field(default_factory=MeshConfig)
