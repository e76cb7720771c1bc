"""The published weights, in the layout of the Hugging Face folder, to an encoder and back (spec §1, "Published checkpoint")."""

import json
import logging
import os
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
from flax import nnx

from ove.config import EncoderConfig
from ove.encoder.encoder import Encoder, Params, skeleton
from ove.encoder.published import config as published_config
from ove.encoder.published.config import PATCH_WEIGHT
from ove.encoder.published.layout import EXTRA, Published, by_array, leaf_at, params_of, published_tensors
from ove.encoder.published.origin import Origin, write_tensors
from ove.encoder.published.tensors import FLOATS, differences
from ove.encoder.published.weight_files import METADATA, SAFETENSORS, WeightFiles, find_weights
from ove.errors import BadCheckpoint, ConfigError
from ove.files import write_text

CONFIG = "config.json"
DTYPES = ("float32", "bfloat16", "float16")
"""Number types to which `save` converts."""
_WRAPPERS = {"_orig_mod", "module"}
"""Parts of names that torch.compile and data-parallel training leave behind, anywhere in the name."""
_log = logging.getLogger(__name__)


def load(path: str | os.PathLike[str], dtype: Any = "float32") -> Encoder:
    """Loads the encoder in a folder (config.json and weights), or in a file of weights with config.json beside it.

    Weights: safetensors, one file or several with an index, or what `torch.save` wrote; also those inside a larger model, such
    as LLaVA-OneVision-2, of which only files with tensors of the encoder are read. Without a config.json beside a file, sizes
    are inferred from the tensors; what these do not determine is logged as assumed. `dtype`, float32 or bfloat16, is that of
    parameters and activations. BadCheckpoint lists all that is missing, unexpected, misshapen, not finite or not supported.
    Spec §1, "Published checkpoint".
    """
    compute = jnp.dtype(dtype).name
    if compute not in ("float32", "bfloat16"):
        raise ConfigError(f"dtype {compute} is not supported; give float32 or bfloat16.")
    path = Path(path)
    files = find_weights(path, lambda name: _is_patch_weight(_plain(name)))
    names, prefix = _names(files)
    values, text = _read_config(files)
    by_raw_name = files.read(names.values())
    tensors = {name: by_raw_name[raw] for name, raw in names.items()}
    shapes = {name: tensor.shape for name, tensor in tensors.items()}
    if values is None:
        values = published_config.infer(path, shapes) | {"dtype": tensors[PATCH_WEIGHT].dtype.name}
        text = _dump(values)
    config, problems = published_config.to_encoder_config(values, shapes)
    fused_qkv = any(name.endswith(".self_attn.qkv.weight") for name in tensors)
    extra_tensors = {name: tensor for name, tensor in tensors.items() if name.startswith(EXTRA)}
    if config is not None:
        wanted = published_tensors(config, fused_qkv)
        problems += differences(wanted, {name: tensors[name] for name in tensors.keys() - extra_tensors.keys()})
    if config is None or problems:
        raise BadCheckpoint(f"{path}: does not hold an encoder that can be used here:\n  " + "\n  ".join(problems))
    # The prefix of a wrapper around the saved module would be in the way of those who load it.
    keeps_prefix = not files.pickled or fused_qkv or "vision_config" in values
    origin = Origin(
        config=text,
        prefix=prefix if keeps_prefix else "",
        fused_qkv=fused_qkv,
        dtypes={tensor.name: tensors[tensor.name].dtype.name for tensor in wanted},
        # Copies, for the file may be changed while the encoder lives.
        extra_tensors={name: np.array(tensor) for name, tensor in extra_tensors.items()},
        metadata=files.metadata,
    )
    config = replace(config, compute=compute)
    return assemble(config, params_of(wanted, tensors, skeleton(config)[1], np.dtype(compute)), origin)


def save(encoder: Encoder, folder: str | os.PathLike[str], dtype: str | None = None) -> None:
    """Writes config.json and model.safetensors, which the PyTorch code and `load` read, into `folder`.

    An encoder that `load` made is written as it was read: the same names, types and numbers, unknown keys of config.json, extra
    tensors; of a larger model, its vision tower alone. Others are written in float32. `dtype`, one of `DTYPES`,
    overrides the type of all tensors. Weights trained with RoPE `paired` give other numbers in the PyTorch code: config.json
    records it in a key of ours, and a warning is logged, as where a projection of the embedding is left out. Each file is
    replaced at once; others in the folder stay.
    """
    if dtype is not None and dtype not in DTYPES:
        raise ConfigError(f"dtype {dtype!r} is not supported; give one of {', '.join(DTYPES)}.")
    folder, config, origin = Path(folder), encoder.config, encoder.origin
    if not isinstance(origin, Origin):
        origin = Origin(_dump(published_config.new_config(config)), "", False, {}, {}, METADATA)
        dtype = dtype or "float32"
    wanted = published_tensors(config, origin.fused_qkv)
    params = nnx.to_pure_dict(nnx.state(encoder, nnx.Param))
    arrays = {path: np.asarray(leaf_at(params, path)) for path in by_array(wanted)}
    tensors = dict(origin.extra_tensors)
    if dtype is not None:
        tensors = {name: tensor.astype(dtype) if tensor.dtype.name in FLOATS else tensor for name, tensor in tensors.items()}
    for tensor in wanted:
        theirs = tensor.to_theirs([arrays[part.path] for part in tensor.parts])
        tensors[tensor.name] = theirs.astype(dtype or origin.dtypes[tensor.name])
    text = _config_text(origin, config, wanted, dtype)
    if config.rope != "released":
        _log.warning(
            "%s: these weights were trained with RoPE %r, which the PyTorch code does not know: there they give other numbers. "
            "%s says so in the key %r, and `load` honours it.",
            folder,
            config.rope,
            CONFIG,
            published_config.ROPE_KEY,
        )
    if config.embedding:
        _log.warning(
            "%s: the projection of the embedding from %d to %d numbers has no place in the published layout and is left out: "
            "what `load` pools is as long as the encoder is wide. The run's checkpoints keep it.",
            folder,
            config.width,
            config.embedding,
        )
    folder.mkdir(parents=True, exist_ok=True)
    write_tensors(folder / SAFETENSORS, {origin.prefix + name: tensor for name, tensor in tensors.items()}, origin.metadata)
    write_text(folder / CONFIG, text)


def assemble(config: EncoderConfig, params: Params, origin: Origin | None = None) -> Encoder:
    """Returns an encoder with these parameters, nested as by `init` and in a checkpoint; computes no fresh ones."""
    encoder = nnx.merge(skeleton(config)[0], params)
    encoder.origin = origin
    return encoder


def _names(files: WeightFiles) -> tuple[dict[str, str], str]:
    """Maps names of the encoder's tensors, without wrappers and prefix, to those in the file; and returns the prefix."""
    plain = {raw: _plain(raw) for raw in files.holds}
    prefixes = sorted({name.removesuffix(PATCH_WEIGHT) for name in plain.values() if _is_patch_weight(name)})
    if len(prefixes) != 1:
        found = f"several encoders ({', '.join(prefixes)})" if prefixes else f"no encoder: no tensor is called {PATCH_WEIGHT}"
        some = ", ".join(list(plain)[:3])
        raise BadCheckpoint(f"{files.given}: holds {found}; its {len(plain)} tensors are called {some}, … Give another file.")
    ours = {raw: name.removeprefix(prefixes[0]) for raw, name in plain.items() if name.startswith(prefixes[0])}
    names = {name: raw for raw, name in ours.items()}
    if len(names) < len(ours):
        twice = sorted(set(ours) - set(names.values()))
        raise BadCheckpoint(f"{files.given}: holds tensors twice, with and without a wrapper's name: {', '.join(twice)}.")
    return names, prefixes[0]


def _plain(name: str) -> str:
    return ".".join(part for part in name.split(".") if part not in _WRAPPERS)


def _is_patch_weight(name: str) -> bool:
    return f".{name}".endswith(f".{PATCH_WEIGHT}")


def _read_config(files: WeightFiles) -> tuple[dict[str, Any] | None, str]:
    """Reads config.json beside the weights; None and an empty text for a file without one."""
    path = (files.given if files.given.is_dir() else files.given.parent) / CONFIG
    if path.is_file():
        return published_config.parse_config(path)
    if files.given.is_dir():
        raise BadCheckpoint(
            f"{files.given}: holds weights but no {CONFIG}; put it there, or give the file of weights itself: sizes are then "
            "taken from its tensors."
        )
    return None, ""


def _config_text(origin: Origin, config: EncoderConfig, wanted: list[Published], dtype: str | None) -> str:
    """Returns the text of config.json as it was read, but for what has changed."""
    values = json.loads(origin.config)
    changed = published_config.updated(values, config, {tensor.name: tensor.shape for tensor in wanted})
    for part in (values, published_config.section(values)) if dtype is not None else ():
        key = "torch_dtype" if "torch_dtype" in part else "dtype"
        changed |= part.get(key) != dtype
        part[key] = dtype
    return _dump(values) if changed else origin.config


def _dump(values: Mapping[str, Any]) -> str:
    return json.dumps(values, indent=2, ensure_ascii=False) + "\n"
