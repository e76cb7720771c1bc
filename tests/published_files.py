"""Small checkpoints in the published format with random numbers, and what the published encoder computes from them.

The names and the arithmetic are written down here once more, by spec §1 and not by our code, in float64 numpy.
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from einops import rearrange
from safetensors.numpy import save_file
from scipy.special import erf

Tensors = dict[str, np.ndarray]

CONFIG: dict[str, Any] = {
    "architectures": ["OneVisionEncoderModel"],
    "model_type": "onevision_encoder",
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_channels": 3,
    "image_size": 224,
    "patch_size": 14,
    "hidden_act": "gelu",
    "layer_norm_eps": 1e-6,
    "layer_norm_type": "layer_norm",
    "rope_theta": 10000.0,
    "rope_temporal_size": 64,
    "use_head": True,
    "a_key_of_theirs": {"ü": [1, None]},
}


def random_tensors(config: Mapping[str, Any], seed: int = 0) -> Tensors:
    """All tensors of a model of these sizes, float32."""
    width, hidden, side = config["hidden_size"], config["intermediate_size"], config["patch_size"]
    shapes: dict[str, tuple[int, ...]] = {"embeddings.patch_embedding.weight": (width, 3, side, side)}

    def norm(name: str, kind: str = config["layer_norm_type"]) -> None:
        shapes[f"{name}.weight"] = (width,)
        if kind == "layer_norm":
            shapes[f"{name}.bias"] = (width,)

    def linear(name: str, n_out: int, n_in: int) -> None:
        shapes[f"{name}.weight"], shapes[f"{name}.bias"] = (n_out, n_in), (n_out,)

    norm("layernorm_pre")
    for i in range(config["num_hidden_layers"]):
        for part in ("q_proj", "k_proj", "v_proj", "out_proj"):
            linear(f"encoder.layers.{i}.self_attn.{part}", width, width)
        norm(f"encoder.layers.{i}.layer_norm1")
        norm(f"encoder.layers.{i}.layer_norm2")
        linear(f"encoder.layers.{i}.mlp.fc1", hidden, width)
        linear(f"encoder.layers.{i}.mlp.fc2", width, hidden)
    if config["use_head"]:
        norm("layernorm_post")
        shapes["head.probe"] = (1, 1, width)
        shapes["head.attention.in_proj_weight"], shapes["head.attention.in_proj_bias"] = (3 * width, width), (3 * width,)
        linear("head.attention.out_proj", width, width)
        norm("head.norm", "rms_norm")
        linear("head.mlp.fc1", hidden, width)
        linear("head.mlp.fc2", width, hidden)
    rng = np.random.default_rng(seed)
    scale = {1: 0.3, 2: 0.15, 3: 1.0, 4: 0.05}
    return {
        name: (rng.normal(0, scale[len(shape)], shape) + (len(shape) == 1 and "norm" in name)).astype(np.float32)
        for name, shape in shapes.items()
    }


def as_tower(tensors: Tensors, prefix: str = "model.visual.") -> Tensors:
    """The same as the vision tower of LLaVA-OneVision-2, with what joins it to a language model."""
    tower = {name.replace("self_attn.out_proj", "self_attn.proj"): t for name, t in tensors.items() if "_proj." not in name}
    tower |= {n.replace("self_attn.out_proj", "self_attn.proj"): t for n, t in tensors.items() if "out_proj." in n}
    for name in [name for name in tensors if ".q_proj." in name]:
        tower[name.replace("q_proj", "qkv")] = np.concatenate(
            [tensors[name.replace("q_proj", f"{part}_proj")] for part in "qkv"]
        )
    tower["merger.ln_q.weight"] = np.arange(5, dtype=np.float32)
    tower["merger.mlp.0.weight"] = np.arange(6, dtype=np.float16).reshape(2, 3)
    return {prefix + name: tensor for name, tensor in tower.items()}


def write_folder(folder: Path, tensors: Tensors, config: Mapping[str, Any] | None = CONFIG, shards: int = 0) -> Path:
    """A folder as it is published; with `shards`, in so many files with an index."""
    folder.mkdir(parents=True, exist_ok=True)
    if config is not None:
        (folder / "config.json").write_text(json.dumps(config, indent=2, ensure_ascii=False))
    if not shards:
        save_file(tensors, folder / "model.safetensors", {"format": "pt"})
        return folder
    weight_map = {name: f"model-{i * shards // len(tensors) + 1:05d}.safetensors" for i, name in enumerate(sorted(tensors))}
    for file in set(weight_map.values()):
        save_file({name: tensors[name] for name, at in weight_map.items() if at == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"metadata": {}, "weight_map": weight_map}))
    return folder


def expected(t: Tensors, config: Mapping[str, Any], patches: np.ndarray, positions: np.ndarray) -> dict[str, np.ndarray | None]:
    """hidden_state_1, last_hidden_state and pooler_output of patches (B, N, P) flattened as (row, column, channel)."""
    t = {name: tensor.astype(np.float64) for name, tensor in t.items()}
    heads, eps = config["num_attention_heads"], config["layer_norm_eps"]

    def norm(x: np.ndarray, name: str) -> np.ndarray:
        if f"{name}.bias" in t:
            x = x - x.mean(-1, keepdims=True)
        return x / np.sqrt((x * x).mean(-1, keepdims=True) + eps) * t[f"{name}.weight"] + t.get(f"{name}.bias", 0)

    def linear(x: np.ndarray, name: str) -> np.ndarray:
        return x @ t[f"{name}.weight"].T + t[f"{name}.bias"]

    def mlp(x: np.ndarray, name: str) -> np.ndarray:
        h = linear(x, f"{name}.fc1")
        return linear(h * (1 + erf(h / np.sqrt(2))) / 2, f"{name}.fc2")

    def attention(q: np.ndarray, k: np.ndarray, v: np.ndarray) -> np.ndarray:
        scores = np.einsum("bnak,bmak->banm", q, k) / np.sqrt(q.shape[-1])
        weights = np.exp(scores - scores.max(-1, keepdims=True))
        return rearrange(np.einsum("banm,bmak->bnak", weights / weights.sum(-1, keepdims=True), v), "b n a k -> b n (a k)")

    def split(x: np.ndarray) -> np.ndarray:
        return rearrange(x, "b n (a k) -> b n a k", a=heads)

    width = config["hidden_size"]
    axes = [width // heads * sixteenths // 32 for sixteenths in (4, 6, 6)]
    turns = np.concatenate(
        [positions[..., i, None] * config["rope_theta"] ** (-np.arange(n) / n) for i, n in enumerate(axes)], axis=-1
    )
    cos, sin = (np.concatenate([f(turns)] * 2, -1)[:, :, None] for f in (np.cos, np.sin))

    def turn(x: np.ndarray) -> np.ndarray:
        return x * cos + np.stack([-x[..., 1::2], x[..., ::2]], -1).reshape(x.shape) * sin

    side = config["patch_size"]
    flat = rearrange(patches, "b n (i j c) -> b n (c i j)", i=side, j=side)
    x = norm(flat @ t["embeddings.patch_embedding.weight"].reshape(width, -1).T, "layernorm_pre")
    first = None
    for i in range(config["num_hidden_layers"]):
        layer = f"encoder.layers.{i}"
        h = norm(x, f"{layer}.layer_norm1")
        q, k, v = (split(linear(h, f"{layer}.self_attn.{part}_proj")) for part in "qkv")
        x = x + linear(attention(turn(q), turn(k), v), f"{layer}.self_attn.out_proj")
        x = x + mlp(norm(x, f"{layer}.layer_norm2"), f"{layer}.mlp")
        first = x if first is None else first
    if not config["use_head"]:
        return {"hidden_state_1": first, "last_hidden_state": x, "pooler_output": None}
    x = norm(x, "layernorm_post")
    ws, bs = np.split(t["head.attention.in_proj_weight"], 3), np.split(t["head.attention.in_proj_bias"], 3)
    probe = np.broadcast_to(t["head.probe"], (len(x), 1, width))
    q, k, v = (split(y @ w.T + b) for y, w, b in zip((probe, x, x), ws, bs, strict=True))
    a = linear(attention(q, k, v), "head.attention.out_proj")
    return {"hidden_state_1": first, "last_hidden_state": x, "pooler_output": (a + mlp(norm(a, "head.norm"), "head.mlp"))[:, 0]}
