"""Loads vision towers in the Hugging Face layout of CLIP: config.json and weights (spec §5)."""

import os
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, get_args

import jax.numpy as jnp
import numpy as np
from flax import nnx
from jaxtyping import Shaped

from ove.encoder.published.config import parse_config
from ove.encoder.published.layout import Part, Published, params_of
from ove.encoder.published.tensors import differences
from ove.encoder.published.weight_files import WeightFiles, find_weights
from ove.errors import BadCheckpoint
from ove.labels.teachers.clip import Activation, ClipConfig, ClipTower, tower_skeleton

_TYPES = ("clip", "clip_vision_model")
"""model_type of a whole model, and of its vision tower by itself."""
_DEFAULTS: dict[str, Any] = {
    "hidden_size": 768,
    "intermediate_size": 3072,
    "projection_dim": 512,
    "num_hidden_layers": 12,
    "num_attention_heads": 12,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 32,
    "hidden_act": "quick_gelu",
    "layer_norm_eps": 1e-5,
}
"""Defaults of missing keys, as in the PyTorch code: those of B/32."""
_SIZES = {
    "hidden_size": "width",
    "intermediate_size": "mlp",
    "projection_dim": "projection",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "image_size": "image_px",
    "patch_size": "patch_px",
}
_PROJECTION = "visual_projection.weight"
_TOWER = "vision_model."
_NOT_USED = ("vision_model.embeddings.position_ids",)
"""Constants in files of older versions."""
_MOST_LAYERS = 1000
_MATRIX = ("o i", "i o")
_VECTOR = ("d", "d")
_CONV = ("d c i j", "(i j c) d")
_POSITIONS = ("n d", "n d")
"""Their axes, ours."""


def load_clip(path: str | os.PathLike[str], dtype: str = "float32") -> ClipTower:
    """Loads the vision tower of a folder with config.json and weights (safetensors, one file or several; or torch's format).

    Of a whole CLIP model only the vision tower is read. `dtype` of the parameters: float32 or bfloat16. One BadCheckpoint lists
    everything that is missing, unexpected, of another shape, or not supported.
    """
    path = Path(path)
    files = find_weights(path, lambda name: name.startswith(_TOWER))
    folder = path if path.is_dir() else path.parent
    if not (folder / "config.json").is_file():
        raise BadCheckpoint(f"{folder}: holds no config.json, which tells the sizes of the model; put it there.")
    config, problems = _config(parse_config(folder / "config.json")[0])
    if config is not None:
        wanted = _published(config)
        tensors = _tensors(files)
        problems += differences(wanted, tensors)
    if config is None or problems:
        raise BadCheckpoint(f"{path}: does not hold a CLIP vision tower that can be used here:\n  " + "\n  ".join(problems))
    graphdef, shapes = tower_skeleton(config)
    return nnx.merge(graphdef, params_of(wanted, tensors, shapes, np.dtype(jnp.dtype(dtype))))


def is_clip(folder: Path) -> bool:
    """Returns whether a folder's config.json is that of a CLIP model."""
    return (folder / "config.json").is_file() and parse_config(folder / "config.json")[0].get("model_type") in _TYPES


def _config(values: Mapping[str, Any]) -> tuple[ClipConfig | None, list[str]]:
    """Returns sizes and problems; None for sizes that tensors cannot be compared with."""
    kind = values.get("model_type")
    if kind not in _TYPES:
        return None, [f"model_type is {kind!r}, not {' or '.join(map(repr, _TYPES))}: this is another model"]
    given = values.get("vision_config", {}) if kind == "clip" else values
    if not isinstance(given, Mapping):
        return None, [f"vision_config is {given!r}; it must be a JSON object"]
    known = _DEFAULTS | {key: given[key] for key in _DEFAULTS if key in given}
    if kind == "clip":  # the whole model's counts; the tower's is unused
        known["projection_dim"] = values.get("projection_dim", _DEFAULTS["projection_dim"])
    wrong = [key for key in _SIZES if type(known[key]) is not int or known[key] < 1]
    problems = [f"{key} is {known[key]!r}; it must be a positive integer" for key in wrong]
    if known["hidden_act"] not in get_args(Activation):
        problems.append(f"hidden_act is {known['hidden_act']!r}; this tower computes {' or '.join(get_args(Activation))}")
    if known["num_channels"] != 3:
        problems.append(f"num_channels is {known['num_channels']!r}; this tower sees RGB, 3")
    if type(known["layer_norm_eps"]) not in (int, float) or not known["layer_norm_eps"] > 0:
        problems.append(f"layer_norm_eps is {known['layer_norm_eps']!r}; it must be a positive number")
    if not problems and known["hidden_size"] % known["num_attention_heads"]:
        problems.append(f"hidden_size {known['hidden_size']} cannot be divided among {known['num_attention_heads']} heads")
    if not problems and (known["num_hidden_layers"] > _MOST_LAYERS or known["image_size"] < known["patch_size"]):
        problems.append(
            f"num_hidden_layers is {known['num_hidden_layers']}, image_size {known['image_size']}; supported are up to "
            f"{_MOST_LAYERS} layers, and pictures of at least one patch ({known['patch_size']} px)"
        )
    if problems:
        return None, problems
    sizes = {ours: known[theirs] for theirs, ours in _SIZES.items()}
    return ClipConfig(**sizes, activation=known["hidden_act"], norm_eps=float(known["layer_norm_eps"])), []


def _tensors(files: WeightFiles) -> dict[str, Shaped[np.ndarray, "..."]]:
    """Reads the tensors of the vision tower and its projection, by their names in CLIPVisionModelWithProjection."""
    mine = [n for n in files.holds if (n.startswith(_TOWER) or n == _PROJECTION) and n not in _NOT_USED]
    if not mine:
        some = ", ".join(list(files.holds)[:3])
        raise BadCheckpoint(f"{files.given}: no tensor is called {_TOWER}…; its {len(files.holds)} are called {some}, …")
    return files.read(mine)


def _published(config: ClipConfig) -> list[Published]:
    """Lists each tensor of the file with its place in our parameters."""
    d, p, e = config.width, config.patch_px, f"{_TOWER}embeddings"
    tensors = [
        _one(f"{e}.class_embedding", (d,), _VECTOR, ("class_token",)),
        _one(f"{e}.patch_embedding.weight", (d, 3, p, p), _CONV, ("patch", "kernel")),
        _one(f"{e}.position_embedding.weight", (config.patches + 1, d), _POSITIONS, ("positions",)),
        *_norm(f"{_TOWER}pre_layrnorm", d, ("pre_norm",)),
        *_norm(f"{_TOWER}post_layernorm", d, ("post_norm",)),
        _one(_PROJECTION, (config.projection, d), _MATRIX, ("projection", "kernel")),
    ]
    for layer in range(config.layers):
        theirs = f"{_TOWER}encoder.layers.{layer}"
        for number, letter in enumerate("qkv"):
            columns = (layer, ..., slice(number * d, (number + 1) * d))
            tensors += _linear(f"{theirs}.self_attn.{letter}_proj", d, d, ("blocks", "qkv"), columns)
        tensors += _linear(f"{theirs}.self_attn.out_proj", d, d, ("blocks", "out"), (layer,))
        tensors += _linear(f"{theirs}.mlp.fc1", d, config.mlp, ("blocks", "fc1"), (layer,))
        tensors += _linear(f"{theirs}.mlp.fc2", config.mlp, d, ("blocks", "fc2"), (layer,))
        for n in ("1", "2"):
            tensors += _norm(f"{theirs}.layer_norm{n}", d, ("blocks", f"norm{n}"), (layer,))
    return tensors


def _one(
    name: str, shape: tuple[int, ...], axes: tuple[str, str], path: tuple[str, ...], index: tuple[Any, ...] = (...,)
) -> Published:
    return Published(name, shape, axes, (Part(slice(None), path, index),))


def _norm(name: str, width: int, path: tuple[str, ...], index: tuple[Any, ...] = (...,)) -> Iterator[Published]:
    yield _one(f"{name}.weight", (width,), _VECTOR, (*path, "scale"), index)
    yield _one(f"{name}.bias", (width,), _VECTOR, (*path, "bias"), index)


def _linear(name: str, n_in: int, n_out: int, path: tuple[str, ...], index: tuple[Any, ...]) -> Iterator[Published]:
    yield _one(f"{name}.weight", (n_out, n_in), _MATRIX, (*path, "kernel"), index)
    yield _one(f"{name}.bias", (n_out,), _VECTOR, (*path, "bias"), index)
