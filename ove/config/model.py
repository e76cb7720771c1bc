"""The network, and the class centers that train it."""

from dataclasses import dataclass
from typing import Literal

from ove.config.section import Count, Natural, NonNegative, Own, Positive, Section
from ove.errors import ConfigError


@dataclass(frozen=True)
class EncoderConfig(Section):
    """A vision transformer with 3D RoPE (spec §1)."""

    layers: Count = 24
    width: Count = 1024
    heads: Count = 16
    mlp: Count = 4096
    patch_px: Count = 14
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: Positive = 1e-6
    rope: Literal["interleaved", "released"] = "interleaved"
    """`interleaved`: neighbouring values are rotated as pairs; `released`: the same, but with an angle for each of the two, and
    so no rotation: what the published weights were trained with (spec §1)."""
    rope_theta: Positive = 10000.0
    pooling_head: bool = True
    """Whether the pooling head (and the norm before it) exist."""
    embedding: Natural = 0
    """Length to which the pooled vector is projected, without bias (the paper's W, eq. 6); 0: no projection, E = D."""
    init_std: NonNegative = 0.02
    """Of the initial kernels. Meant for wide models: at widths of a few hundred nothing is learned for thousands of steps with
    it, and about 1/√width is right."""
    remat: Literal["none", "dots", "full"] = "none"
    """What the backward pass recomputes: next to nothing; all but what attention needs; everything (`ove.encoder.encoder`)."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Dtype of activations; parameters stay float32."""
    attention: Literal["auto", "cudnn", "pallas", "splash", "cpu", "reference"] = "auto"
    """Implementation of attention (`ove.encoder.attention`); `auto` goes by machine, dtype and shapes."""

    @property
    def head_width(self) -> int:
        """K, the width of one attention head."""
        return self.width // self.heads

    @property
    def embedding_width(self) -> int:
        """E, the length of an embedding."""
        return self.embedding or self.width

    @property
    def patch_values(self) -> int:
        """P, the numbers of one flattened RGB patch."""
        return self.patch_px * self.patch_px * 3

    def check(self) -> None:
        if self.embedding and not self.pooling_head:
            raise ConfigError(
                f"encoder.embedding = {self.embedding} must be 0 without the pooling head (encoder.pooling_head)."
            )
        if self.width % self.heads or (self.width // self.heads) % 32:
            raise ConfigError(
                f"encoder.width = {self.width} over encoder.heads = {self.heads} must give a head width that 32 divides "
                "(RoPE splits half of it 4:6:6 over time, rows and columns)."
            )


@dataclass(frozen=True)
class CentersConfig(Section):
    """The banks of class centers and their loss (spec §3)."""

    loss: Literal["sigmoid", "raw", "margin_softmax"] | Own = "sigmoid"
    """`sigmoid`: scaled cosine with learned scale and bias; `raw`: the bare dot product (paper eq. 9); `margin_softmax`: one
    softmax a label over fixed-scale cosines, the reference's."""
    init_scale: float = 10.0
    init_std: NonNegative = 0.01
    negative_weight: Literal["1", "1/r"] = "1"
    """Of each negative term (sigmoid, raw); 1/r estimates the loss over the whole bank."""
    undrawn_positives: Literal["negative", "ignore"] = "negative"
    """What a row that is in the sample only as someone's label is to the samples that lack it (sigmoid, raw)."""
    softmax_scale: Positive = 64.0
    softmax_margin: float = 0.3
    """Taken off the cosine of the label."""
    softmax_filter: float = 0.75
    """Cosines of other rows above this count as 0; 1: none."""
    sampler: Literal["stratified", "feistel"] = "stratified"
    """One row of each of equal strata, or a random subset of each block of about a thousand rows."""
    decay: Literal["sampled", "elapsed"] = "sampled"
    """Weight decay when a row is sampled, hence at r times the dense rate; or then for all steps since it last was."""
    positives_capacity: Natural = 0
    """Most unique positives of a step in one shard of a bank; 0: enough by itself (`ove.centers.sample`)."""
    chunk_rows: Count = 4096
    """Sampled rows of a shard that are compared with the batch at a time: what bounds the memory of a step."""
    precision: Literal["highest", "BF16_BF16_F32_X3"] = "highest"
    """Of the products of embeddings and rows: float32 to its last bit, or three products of bfloat16 parts, at two (TPU) to
    five times (H100) the peak (docs/centers.md). On CPUs both are the same."""
    collapse_cosine: float = 0.98
    """Mean cosine between the embeddings of a batch above which the run reports a collapse."""

    def check(self) -> None:
        if self.softmax_scale * (1 + abs(self.softmax_margin)) > 87:
            raise ConfigError(
                f"centers.softmax_scale = {self.softmax_scale:g} times 1 + |{self.softmax_margin:g}| (softmax_margin) must be "
                "at most 87, or float32 overflows."
            )
