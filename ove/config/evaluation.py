"""What a run is measured by while it trains."""

from dataclasses import dataclass
from typing import Literal

from ove.config.checks import at_least_one
from ove.errors import ConfigError


@dataclass(frozen=True)
class EvaluationConfig:
    """A quick probe of the encoder on labelled shards, every `train.eval_every` steps."""

    train_shards: str = ""
    """Labelled shards: what the probe learns from."""
    val_shards: str = ""
    """Labelled shards that it is scored on."""
    probe: Literal["knn", "attentive"] = "knn"
    """`knn`: the classes of the nearest embeddings vote, nothing is trained; `attentive`: as `launch.probe`."""
    modes: tuple[str, ...] = ("codec",)
    """How the shards are seen; budget, I-frames and policy are those of `batches`."""
    neighbours: int = 10
    """k of `knn`."""
    epochs: int = 10
    """Of `attentive`."""

    def __post_init__(self) -> None:
        at_least_one("evaluation", self, "neighbours", "epochs")
        if bool(self.train_shards) != bool(self.val_shards):
            raise ConfigError("evaluation.train_shards and evaluation.val_shards go together; give both, or neither.")
