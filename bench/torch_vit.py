"""The encoder as one would write it in PyTorch, plainly: what bench/encoder.py compares with."""

import re
from collections.abc import Iterable

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from ove.config import EncoderConfig

MEAN_RGB, STD_RGB = (0.48145466, 0.4578275, 0.40821073), (0.26862954, 0.26130258, 0.27577711)
SPLIT_TYX = (4, 6, 6)
"""Sixteenths of the frequencies for time, rows and columns."""


class Attention(nn.Module):
    """Self-attention with RoPE: `eager` makes the whole matrix of scores, `sdpa` leaves it to torch's fused kernel."""

    def __init__(self, config: EncoderConfig, kind: str):
        super().__init__()
        self.heads, self.kind = config.heads, kind
        self.qkv = nn.Linear(config.width, 3 * config.width)
        self.out = nn.Linear(config.width, config.width)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        b, n, d = x.shape
        q, k, v = self.qkv(x).view(b, n, 3, self.heads, d // self.heads).permute(2, 0, 3, 1, 4)
        q, k = (y * cos + _partner(y) * sin for y in (q, k))
        if self.kind == "sdpa":
            mixed = F.scaled_dot_product_attention(q, k, v)
        else:
            mixed = torch.softmax(q @ k.transpose(-1, -2) * q.shape[-1] ** -0.5, dim=-1) @ v
        return self.out(mixed.transpose(1, 2).reshape(b, n, d))


class Mlp(nn.Module):
    """Linear, exact GELU, linear."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp)
        self.fc2 = nn.Linear(config.mlp, config.width)

    def forward(self, x: Tensor) -> Tensor:
        """(…, D) to (…, D)."""
        return self.fc2(F.gelu(self.fc1(x)))


class Block(nn.Module):
    """A pre-norm transformer block."""

    def __init__(self, config: EncoderConfig, kind: str):
        super().__init__()
        self.norm1 = nn.LayerNorm(config.width, config.norm_eps)
        self.attention = Attention(config, kind)
        self.norm2 = nn.LayerNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
        """(B, N, D) to (B, N, D)."""
        x = x + self.attention(self.norm1(x), cos, sin)
        return x + self.mlp(self.norm2(x))


class Pool(nn.Module):
    """A learned probe attends over the tokens; then a + MLP(RMSNorm(a))."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.heads = config.heads
        self.probe = nn.Parameter(torch.zeros(config.width))
        self.q, self.k, self.v, self.out = (nn.Linear(config.width, config.width) for _ in range(4))
        self.norm = nn.RMSNorm(config.width, config.norm_eps)
        self.mlp = Mlp(config)

    def forward(self, x: Tensor) -> Tensor:
        """(B, N, D) to (B, D)."""
        b, _, d = x.shape
        probe = self.probe.expand(b, 1, d)
        q, k, v = (
            f(y).view(b, -1, self.heads, d // self.heads).transpose(1, 2)
            for f, y in zip(self.parts, (probe, x, x), strict=True)
        )
        a = self.out(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).reshape(b, d))
        return a + self.mlp(self.norm(a))

    @property
    def parts(self) -> tuple[nn.Linear, nn.Linear, nn.Linear]:
        """The projections of queries, keys and values."""
        return self.q, self.k, self.v


class Vit(nn.Module):
    """uint8 patches (B, N, P) and positions (B, N, 3) to tokens (B, N, D) and their pooled embedding (B, D)."""

    def __init__(self, config: EncoderConfig, kind: str):
        super().__init__()
        self.patch = nn.Linear(config.patch_values, config.width, bias=False)
        self.pre_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.blocks = nn.ModuleList(Block(config, kind) for _ in range(config.layers))
        self.post_norm = nn.LayerNorm(config.width, config.norm_eps)
        self.pool = Pool(config)
        half = config.head_width // 2
        counts = [half * sixteenths // 16 for sixteenths in SPLIT_TYX]
        self.inverse = [config.rope_theta ** (-torch.arange(n, dtype=torch.float32) / n) for n in counts]
        pixels = config.patch_px**2
        self.register_buffer("mean", torch.tensor(MEAN_RGB).repeat(pixels), persistent=False)
        self.register_buffer("std", torch.tensor(STD_RGB).repeat(pixels), persistent=False)

    def forward(self, patches: Tensor, positions: Tensor) -> tuple[Tensor, Tensor]:
        """Tokens and embedding."""
        turns = torch.cat([positions[..., i, None].float() * inverse for i, inverse in enumerate(self.inverse)], dim=-1)
        turns = turns.repeat_interleave(2, dim=-1)[:, None]
        cos, sin = turns.cos(), turns.sin()
        x = self.pre_norm(self.patch((patches.float() / 255 - self.mean) / self.std))
        for block in self.blocks:
            x = block(x, cos, sin)
        x = self.post_norm(x)
        return x, self.pool(x)


def names_of(vit: Vit) -> dict[str, list[str]]:
    """For each parameter of the JAX encoder, by its path, the parameters of `vit`; several are layers, to be stacked."""
    names: dict[str, list[str]] = {}
    for name, parameter in vit.named_parameters():
        path = re.sub(r"blocks\.\d+", "blocks", name).replace(".", "/")
        if name.endswith("weight"):
            path = path.removesuffix("weight") + ("kernel" if parameter.ndim == 2 else "scale")
        names.setdefault(path, []).append(name)
    return names


def load(vit: Vit, params: Iterable[tuple[str, np.ndarray]]) -> None:
    """Copies parameters of the JAX encoder, path by path, into `vit`; all of both must be met."""
    names, parameters = names_of(vit), dict(vit.named_parameters())
    with torch.no_grad():
        for path, leaf in params:
            layers = leaf if path.startswith("blocks/") else [leaf]
            for name, layer in zip(names.pop(path), layers, strict=True):
                parameters[name].copy_(torch.from_numpy(layer.T))
    if names:
        raise ValueError(f"no values for {sorted(names)}")


def gradients(vit: Vit) -> dict[str, np.ndarray]:
    """Gradients of `vit` by the paths and in the layout of the JAX encoder."""
    parameters = dict(vit.named_parameters())
    found = {}
    for path, names in names_of(vit).items():
        layers = [parameters[name].grad.t().numpy() for name in names]
        found[path] = np.stack(layers) if path.startswith("blocks/") else layers[0]
    return found


def _partner(x: Tensor) -> Tensor:
    even, odd = x[..., 0::2], x[..., 1::2]
    return torch.stack((-odd, even), dim=-1).flatten(-2)
