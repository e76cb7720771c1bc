"""The configuration of a published model, `config.json`, to ours and back."""

import logging
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from ove.config import EncoderConfig, read_bounded_json
from ove.errors import BadCheckpoint, ConfigError

MODEL_TYPE = "onevision_encoder"
ROPE_KEY = "rope_layout"
"""Our own key: `released` (where it is absent) or `interleaved` (once `paired`), which the PyTorch code does not know."""
PATCH_WEIGHT = "embeddings.patch_embedding.weight"
"""The tensor by which an encoder is found among others."""
_DEFAULTS: dict[str, Any] = {
    "num_channels": 3,
    "num_attention_heads": 16,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "layer_norm_type": "layer_norm",
    "rope_theta": 10000.0,
    "rope_temporal_size": 64,
    "temporal_patch_size": 1,
    ROPE_KEY: "released",
}
"""Values of missing keys, as in the PyTorch code; sizes and head are inferred from the tensors."""
_SIZES = {
    "hidden_size": "width",
    "intermediate_size": "mlp",
    "num_hidden_layers": "layers",
    "num_attention_heads": "heads",
    "patch_size": "patch_px",
}
_NUMBERS = {"layer_norm_eps": "norm_eps", "rope_theta": "rope_theta"}
_CHOICES = {
    "num_channels": (3,),
    "hidden_act": ("gelu",),
    "layer_norm_type": ("layer_norm", "rms_norm"),
    "temporal_patch_size": (1,),
    ROPE_KEY: ("released", "interleaved"),
}
"""Values that this encoder can compute."""
_MAX_LAYERS = 1000
"""More mean a damaged file, whose missing tensors would fill the memory."""

_log = logging.getLogger(__name__)

Shapes = Mapping[str, tuple[int, ...]]
"""Name of a tensor, without what stands before `embeddings` → its shape."""


def parse_config(path: Path) -> tuple[dict[str, Any], str]:
    """Reads a config.json: its JSON object and its text; BadCheckpoint if it is not one."""
    try:
        values = read_bounded_json(path)
        text = path.read_bytes().decode()
    except ValueError as error:
        raise BadCheckpoint(f"{path}: is not JSON ({error}); download it again, or correct it.") from error
    if not isinstance(values, dict):
        raise BadCheckpoint(f"{path}: must be a JSON object with the sizes of the model; download it again.")
    return values, text


def section(values: dict[str, Any]) -> dict[str, Any]:
    """Returns the part that describes the encoder: all of it, or the `vision_config` of a larger model."""
    inner = values.get("vision_config")
    return inner if isinstance(inner, dict) else values


def to_encoder_config(values: dict[str, Any], shapes: Shapes) -> tuple[EncoderConfig | None, list[str]]:
    """Converts a config.json to our configuration, and lists its problems; None if tensors cannot be compared with it.

    Sizes that are not given are inferred from `shapes`, those of the file's tensors.
    """
    given = section(values)
    problems = []
    model_type = given.get("model_type", MODEL_TYPE)
    if model_type != MODEL_TYPE:
        problems.append(f"model_type is {model_type!r}, not {MODEL_TYPE!r}: this is another model")
        return None, problems
    told = _from_shapes(shapes)
    known = told | _DEFAULTS | {key: given[key] for key in given if key in {*_DEFAULTS, *_SIZES, "use_head"}}
    known[ROPE_KEY] = "interleaved" if known[ROPE_KEY] == "paired" else known[ROPE_KEY]  # its old name
    for key, allowed in _CHOICES.items():
        if known[key] not in allowed:
            problems.append(f"{key} is {known[key]!r}; this encoder supports {' or '.join(map(repr, allowed))}")
            known[key] = _DEFAULTS[key]  # to compare the tensors all the same
    grid = known["rope_temporal_size"]
    if grid is not None and (type(grid) is not int or grid < 1):
        problems.append(f"rope_temporal_size is {grid!r}; it must be null or a positive number of frames")
    if not isinstance(known["use_head"], bool):
        problems.append(f"use_head is {known['use_head']!r}; it must be true or false")
        known["use_head"] = told["use_head"]
    unsized = [key for key in _SIZES if type(known.get(key)) is not int or known[key] < 1]
    problems += [f"{key} is {known.get(key)!r}; it must be a positive integer" for key in unsized]
    if "num_hidden_layers" not in unsized and known["num_hidden_layers"] > _MAX_LAYERS:
        unsized.append("num_hidden_layers")
        problems.append(f"num_hidden_layers is {known['num_hidden_layers']}; it exceeds the supported {_MAX_LAYERS}")
    unreal = [key for key in _NUMBERS if type(known[key]) not in (int, float) or not 0 < known[key] < float("inf")]
    problems += [f"{key} is {known[key]!r}; it must be a positive number" for key in unreal]
    if unsized or unreal:
        return None, problems
    fields: dict[str, Any] = {ours: known[theirs] for theirs, ours in _SIZES.items()}
    fields |= {ours: float(known[theirs]) for theirs, ours in _NUMBERS.items()}
    try:
        config = EncoderConfig(**fields, norm=known["layer_norm_type"], rope=known[ROPE_KEY], pooling_head=known["use_head"])
    except ConfigError as error:
        return None, [*problems, str(error)]
    return config, problems


def infer(path: Path, shapes: Shapes) -> dict[str, Any]:
    """Makes a config.json for tensors that came without one; logs as assumed what they do not determine."""
    values: dict[str, Any] = {"model_type": MODEL_TYPE, **_from_shapes(shapes)}
    values["num_attention_heads"] = max(1, values.get("hidden_size", 64) // 64)
    values["layer_norm_type"] = "layer_norm" if "layernorm_pre.bias" in shapes else "rms_norm"
    values |= {key: _DEFAULTS[key] for key in ("layer_norm_eps", "rope_theta", "hidden_act")}
    _log.warning(
        "%s: there is no config.json beside it. Sizes are inferred from the tensors; assumed are %d heads of "
        "width 64, layer_norm_eps %g, rope_theta %g, the activation gelu and the RoPE layout `released`.",
        path,
        values["num_attention_heads"],
        values["layer_norm_eps"],
        values["rope_theta"],
    )
    return values


def to_published(config: EncoderConfig) -> dict[str, Any]:
    """Returns the entries of a config.json for this encoder, by the keys that the PyTorch code reads."""
    values: dict[str, Any] = {theirs: getattr(config, ours) for theirs, ours in (_SIZES | _NUMBERS).items()}
    values |= {"layer_norm_type": config.norm, "use_head": config.pooling_head, "num_channels": 3, "hidden_act": "gelu"}
    return values | {ROPE_KEY: config.rope}


def new_config(config: EncoderConfig) -> dict[str, Any]:
    """Makes a complete config.json for an encoder that was not loaded from one."""
    ours = to_published(config)
    rope = ours.pop(ROPE_KEY)
    values = {
        "architectures": ["OneVisionEncoderModel"],
        "attention_dropout": 0.0,
        "image_size": 224,
        "initializer_range": config.init_std,
        "model_type": MODEL_TYPE,
        "rope_temporal_size": _DEFAULTS["rope_temporal_size"],
        **ours,
    }
    return dict(sorted(values.items())) | ({ROPE_KEY: rope} if rope != "released" else {})


def updated(values: dict[str, Any], config: EncoderConfig, shapes: Shapes) -> bool:
    """Updates `values`, those of a config.json, where the encoder has changed since; returns whether it has."""
    before = to_encoder_config(values, shapes)[0]
    ours = to_published(config)
    theirs = to_published(before) if before else {}
    changed = {key: value for key, value in ours.items() if theirs.get(key) != value}
    section(values).update(changed)
    return bool(changed)


def _from_shapes(shapes: Shapes) -> dict[str, Any]:
    """Infers sizes from tensors, leaving out those whose tensors are missing or of another rank."""
    patch = shapes.get(PATCH_WEIGHT, ())
    hidden = shapes.get("encoder.layers.0.mlp.fc1.weight", ())
    told: dict[str, Any] = {"num_hidden_layers": len(set(_layer_numbers(shapes))), "use_head": "head.probe" in shapes}
    if len(patch) == 4:
        told |= {"hidden_size": patch[0], "num_channels": patch[1], "patch_size": patch[2]}
    if len(hidden) == 2:
        told["intermediate_size"] = hidden[0]
    return told


def _layer_numbers(shapes: Shapes) -> Iterator[int]:
    for name in shapes:
        parts = name.split(".")
        if parts[:2] == ["encoder", "layers"] and len(parts) > 3 and parts[2].isdigit():
            yield int(parts[2])
