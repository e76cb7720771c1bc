"""Maps each tensor of the published format to its place in our parameters, in both directions (spec §1)."""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Shaped

from ove.config import EncoderConfig
from ove.encoder.published.config import PATCH_WEIGHT

Path = tuple[str, ...]
_MATRIX = ("o i", "i o")
_VECTOR = ("d", "d")
_CONV = ("d c i j", "(i j c) d")
_PROBE = ("a b d", "(a b d)")
"""Their axes, ours. A matrix is (out, in) there and (in, out) here, a patch (channel, row, column) there."""
EXTRA = ("merger.", "video_rope.inv_freq_")
"""Prefixes of tensors that an encoder does not need: the projector to a language model, and constants that are computed."""


@dataclass(frozen=True)
class Part:
    """Rows of a published tensor, and the slice of one of our arrays that holds them."""

    rows: slice
    path: Path
    index: tuple[Any, ...]
    """Into our array: the layer, and the columns if several published tensors share the array."""


@dataclass(frozen=True)
class Published:
    """One tensor of the published format."""

    name: str
    shape: tuple[int, ...]
    axes: tuple[str, str]
    parts: tuple[Part, ...]

    def to_ours(self, tensor: Shaped[np.ndarray, "..."], part: Part) -> Shaped[np.ndarray, "..."]:
        """Returns what belongs at `part.index` of our array."""
        theirs, ours = self.axes
        return rearrange(tensor[part.rows], f"{theirs} -> {ours}")

    def to_theirs(self, arrays: list[Shaped[np.ndarray, "..."]]) -> Shaped[np.ndarray, "..."]:
        """Returns the published tensor from our arrays, one for each part."""
        theirs, ours = self.axes
        sizes = dict(zip(theirs.split(), self.shape, strict=True)) if "(" in ours else {}
        pieces = [
            rearrange(array[part.index], f"{ours} -> {theirs}", **sizes) for array, part in zip(arrays, self.parts, strict=True)
        ]
        return np.ascontiguousarray(pieces[0] if len(pieces) == 1 else np.concatenate(pieces))


def published_tensors(config: EncoderConfig, fused_qkv: bool = False) -> list[Published]:
    """Lists all tensors of an encoder in the published format, without a prefix; allocates nothing.

    `fused_qkv`: as in the vision tower of LLaVA-OneVision-2, where q, k and v are one tensor and the output projection has
    another name.
    """
    width, mlp, side = config.width, config.mlp, config.patch_px
    tensors = [
        _whole(PATCH_WEIGHT, (width, 3, side, side), _CONV, ("patch", "kernel")),
        *_norm("layernorm_pre", config.norm, width, ("pre_norm",)),
    ]
    for layer in range(config.layers):
        theirs, ours = f"encoder.layers.{layer}", ("blocks",)
        tensors += _attention(f"{theirs}.self_attn", width, fused_qkv, layer)
        for norm in ("1", "2"):
            tensors += _norm(f"{theirs}.layer_norm{norm}", config.norm, width, (*ours, f"norm{norm}"), layer)
        tensors += _mlp(f"{theirs}.mlp", width, mlp, (*ours, "mlp"), layer)
    if config.pooling_head:
        tensors += [
            *_norm("layernorm_post", config.norm, width, ("post_norm",)),
            _whole("head.probe", (1, 1, width), _PROBE, ("pool", "probe")),
            *_pool_attention(width),
            *_linear("head.attention.out_proj", width, width, ("pool", "out")),
            *_norm("head.norm", "rms_norm", width, ("pool", "norm")),
            *_mlp("head.mlp", width, mlp, ("pool", "mlp")),
        ]
    return tensors


def by_array(tensors: list[Published]) -> dict[Path, list[tuple[Published, Part]]]:
    """Groups published tensors by the array of ours that they fill."""
    filled: dict[Path, list[tuple[Published, Part]]] = {}
    for tensor in tensors:
        for part in tensor.parts:
            filled.setdefault(part.path, []).append((tensor, part))
    return filled


def params_of(
    wanted: list[Published], tensors: Mapping[str, Shaped[np.ndarray, "..."]], shapes: Mapping[str, Any], dtype: np.dtype
) -> dict[str, Any]:
    """Fills our parameters, of `dtype`, one array at a time from the file; `shapes` is a tree of arrays or their shapes."""
    params: dict[str, Any] = {}
    for path, sources in by_array(wanted).items():
        array = np.empty(leaf_at(shapes, path).shape, dtype)
        for tensor, part in sources:
            array[part.index] = tensor.to_ours(tensors[tensor.name], part)
        branch = params
        for key in path[:-1]:
            branch = branch.setdefault(key, {})
        branch[path[-1]] = jnp.asarray(array)
    return params


def leaf_at(tree: Mapping[str, Any], path: Path) -> Any:
    """Returns the leaf at a path of nested mappings."""
    for key in path:
        tree = tree[key]
    return tree


def _whole(name: str, shape: tuple[int, ...], axes: tuple[str, str], path: Path, layer: int | None = None) -> Published:
    return Published(name, shape, axes, (Part(slice(None), path, _at(layer)),))


def _at(layer: int | None) -> tuple[Any, ...]:
    return (...,) if layer is None else (layer,)


def _norm(name: str, kind: str, width: int, path: Path, layer: int | None = None) -> Iterator[Published]:
    yield _whole(f"{name}.weight", (width,), _VECTOR, (*path, "scale"), layer)
    if kind == "layer_norm":
        yield _whole(f"{name}.bias", (width,), _VECTOR, (*path, "bias"), layer)


def _linear(name: str, n_in: int, n_out: int, path: Path, layer: int | None = None) -> Iterator[Published]:
    yield _whole(f"{name}.weight", (n_out, n_in), _MATRIX, (*path, "kernel"), layer)
    yield _whole(f"{name}.bias", (n_out,), _VECTOR, (*path, "bias"), layer)


def _mlp(name: str, width: int, hidden: int, path: Path, layer: int | None = None) -> Iterator[Published]:
    yield from _linear(f"{name}.fc1", width, hidden, (*path, "fc1"), layer)
    yield from _linear(f"{name}.fc2", hidden, width, (*path, "fc2"), layer)


def _attention(name: str, width: int, fused_qkv: bool, layer: int) -> Iterator[Published]:
    ours = ("blocks", "attention")
    if fused_qkv:
        yield from _linear(f"{name}.qkv", width, 3 * width, (*ours, "qkv"), layer)
        yield from _linear(f"{name}.proj", width, width, (*ours, "out"), layer)
        return
    for number, letter in enumerate("qkv"):
        columns = (layer, ..., slice(number * width, (number + 1) * width))
        for part, leaf, shape, axes in (("weight", "kernel", (width, width), _MATRIX), ("bias", "bias", (width,), _VECTOR)):
            parts = (Part(slice(None), (*ours, "qkv", leaf), columns),)
            yield Published(f"{name}.{letter}_proj.{part}", shape, axes, parts)
    yield from _linear(f"{name}.out_proj", width, width, (*ours, "out"), layer)


def _pool_attention(width: int) -> Iterator[Published]:
    """Splits or joins q, k and v of the pooling head: one tensor there, three here."""
    for part, leaf, shape, axes in (
        ("in_proj_weight", "kernel", (3 * width, width), _MATRIX),
        ("in_proj_bias", "bias", (3 * width,), _VECTOR),
    ):
        rows = [slice(number * width, (number + 1) * width) for number in range(3)]
        parts = tuple(Part(row, ("pool", letter, leaf), (...,)) for row, letter in zip(rows, "qkv", strict=True))
        yield Published(f"head.attention.{part}", shape, axes, parts)
