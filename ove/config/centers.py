"""The banks of class centers."""

from dataclasses import dataclass
from typing import Literal

from ove.config.checks import at_least_one
from ove.errors import ConfigError


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
        at_least_one("centers", self, "chunk_rows")
        if self.positives_capacity < 0 or self.softmax_scale * (1 + abs(self.softmax_margin)) > 87:
            raise ConfigError(
                f"centers.positives_capacity = {self.positives_capacity} must not be negative, and centers.softmax_scale = "
                f"{self.softmax_scale:g} times 1 + |{self.softmax_margin:g}| (softmax_margin) at most 87, or float32 overflows."
            )
