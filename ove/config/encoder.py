"""The network."""

from dataclasses import dataclass
from typing import Literal

from ove.errors import ConfigError


@dataclass(frozen=True)
class EncoderConfig:
    """A vision transformer with 3D RoPE (spec §1)."""

    layers: int = 24
    width: int = 1024
    heads: int = 16
    mlp: int = 4096
    patch_px: int = 14
    norm: Literal["layer_norm", "rms_norm"] = "layer_norm"
    norm_eps: float = 1e-6
    rope: Literal["paired", "released"] = "paired"
    """`paired` is a true rotation; `released` is what the published weights were trained with."""
    rope_theta: float = 10000.0
    head: bool = True
    """Whether the pooling head (and the norm before it) exist."""
    embedding: int = 0
    """Length to which the pooled vector is projected, without bias (the paper's W, eq. 6); 0: no projection, E = D."""
    init_std: float = 0.02
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

    def __post_init__(self) -> None:
        if self.embedding < 0 or (self.embedding and not self.head):
            raise ConfigError(
                f"encoder.embedding = {self.embedding} must not be negative, and be 0 without the pooling head (encoder.head)."
            )
        if self.width % self.heads or (self.width // self.heads) % 32:
            raise ConfigError(
                f"encoder.width = {self.width} over encoder.heads = {self.heads} must give a head width that 32 divides "
                "(RoPE splits half of it 4:6:6 over time, rows and columns)."
            )
