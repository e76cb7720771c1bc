"""Parity with the published PyTorch encoder on folders in its format with random weights.

`golden.npz` beside this file is what of one such folder fits into a repository: the patch embedding, the first norm and the
first block of the folder without a head, and the first sample of its case with explicit positions. It was made by

    tensors = read_safetensors(folder / "model.safetensors")
    io = np.load(folder / "io.npz")
    keep = {name: t for name, t in tensors.items() if not name.startswith("encoder.layers.1.")}
    patches, positions = case_inputs(io, "video_positions")
    np.savez_compressed("golden.npz", patches=patches[:1].astype(np.float16), positions=positions[:1].astype(np.int32),
        hidden_state_1=io["video_positions/hidden_state_1"][:1], **keep)

(pixels are exact in float16, which the test of the whole folders checks).
"""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
from einops import rearrange
from flax import nnx

from ove.config import EncoderConfig
from ove.encoder import encoder

TOLERANCE = 1e-5
"""Largest error relative to the largest value of the reference, all in float32."""


def read_safetensors(path: Path) -> dict[str, np.ndarray]:
    """All tensors of a file in the safetensors format, as float32."""
    data = path.read_bytes()
    start = 8 + int.from_bytes(data[:8], "little")
    header = json.loads(data[8:start])
    header.pop("__metadata__", None)
    dtypes = {"F32": np.float32, "BF16": ml_dtypes.bfloat16}
    return {
        name: np.frombuffer(data[start + spec["data_offsets"][0] : start + spec["data_offsets"][1]], dtypes[spec["dtype"]])
        .reshape(spec["shape"])
        .astype(np.float32)
        for name, spec in header.items()
    }


def config_of(published: Mapping[str, Any]) -> EncoderConfig:
    return EncoderConfig(
        layers=published["num_hidden_layers"],
        width=published["hidden_size"],
        heads=published["num_attention_heads"],
        mlp=published["intermediate_size"],
        norm=published["layer_norm_type"],
        norm_eps=published["layer_norm_eps"],
        rope="released",
        rope_theta=published["rope_theta"],
        head=published["use_head"],
    )


def params_of(t: Mapping[str, np.ndarray], config: EncoderConfig) -> encoder.Params:
    """Our parameters from the published tensors (spec §1, "Published checkpoint")."""

    def norm(name: str) -> dict[str, np.ndarray]:
        return {
            ours: t[f"{name}.{theirs}"] for ours, theirs in (("scale", "weight"), ("bias", "bias")) if f"{name}.{theirs}" in t
        }

    def linear(*names: str) -> dict[str, np.ndarray]:
        weight, bias = (np.concatenate([t[f"{name}.{part}"] for name in names]) for part in ("weight", "bias"))
        return {"kernel": weight.T, "bias": bias}

    def mlp(name: str) -> dict[str, Any]:
        return {fc: linear(f"{name}.{fc}") for fc in ("fc1", "fc2")}

    def block(name: str) -> dict[str, Any]:
        qkv = linear(*(f"{name}.self_attn.{part}_proj" for part in "qkv"))
        attention = {"qkv": qkv, "out": linear(f"{name}.self_attn.out_proj")}
        norms = {f"norm{i}": norm(f"{name}.layer_norm{i}") for i in (1, 2)}
        return {"attention": attention, "mlp": mlp(f"{name}.mlp"), **norms}

    blocks = [block(f"encoder.layers.{i}") for i in range(config.layers)]
    params = {
        "patch": {"kernel": rearrange(t["embeddings.patch_embedding.weight"], "d c i j -> (i j c) d")},
        "pre_norm": norm("layernorm_pre"),
        "blocks": jax.tree.map(lambda *layers: np.stack(layers), *blocks),
    }
    if config.head:
        weights = np.split(t["head.attention.in_proj_weight"], 3)
        biases = np.split(t["head.attention.in_proj_bias"], 3)
        params["post_norm"] = norm("layernorm_post")
        params["pool"] = {
            "probe": t["head.probe"].ravel(),
            **{part: {"kernel": w.T, "bias": b} for part, w, b in zip("qkv", weights, biases, strict=True)},
            "out": linear("head.attention.out_proj"),
            "norm": norm("head.norm"),
            "mlp": mlp("head.mlp"),
        }
    return jax.tree.map(jnp.asarray, params)


def case_inputs(io: Mapping[str, np.ndarray], case: str) -> tuple[np.ndarray, np.ndarray]:
    """Normalised patches (B, N, P) and positions (B, N, 3) of a case, gathered where the case asks for it."""
    pixels = io[f"{case}/pixel_values"]
    if pixels.ndim == 4:
        pixels = pixels[:, :, None]
    patches = rearrange(pixels, "b c t (y i) (x j) -> b (t y x) (i j c)", i=14, j=14)
    rows, columns = pixels.shape[3] // 14, pixels.shape[4] // 14
    flat = np.arange(patches.shape[1])[None].repeat(len(patches), 0)
    if f"{case}/visible_indices" in io:
        flat = io[f"{case}/visible_indices"]
        if flat.shape[1] < patches.shape[1]:
            patches = np.take_along_axis(patches, flat[..., None], axis=1)
    positions = np.stack([flat // (rows * columns), flat // columns % rows, flat % columns], axis=-1)
    return patches, io.get(f"{case}/patch_positions", positions)


def encode(config: EncoderConfig, params: encoder.Params, patches: np.ndarray, positions: np.ndarray) -> encoder.Encoded:
    model = nnx.merge(encoder._graphdef(config), params)
    return model(jnp.asarray(patches, jnp.float32), jnp.asarray(positions, jnp.int32), hidden=True)


def assert_near(got: jax.Array, expected: np.ndarray, what: str) -> None:
    error = np.abs(np.asarray(got) - expected).max() / np.abs(expected).max()
    assert error <= TOLERANCE, f"{what}: relative error {error:.2e}"


def test_first_block_equals_the_published_one() -> None:
    golden = dict(np.load(Path(__file__).with_name("golden.npz")))
    width = golden["layernorm_pre.weight"].size
    config = EncoderConfig(layers=1, width=width, heads=1, mlp=4 * width, rope="released", head=False)
    seen = encode(config, params_of(golden, config), golden["patches"], golden["positions"])
    assert_near(seen.hidden.before_post_norm[0], golden["hidden_state_1"], "hidden_state_1")


def test_whole_folders_equal_the_published_encoder(golden_folders: list[Path]) -> None:
    for folder in golden_folders:
        config = config_of(json.loads((folder / "config.json").read_text()))
        params = params_of(read_safetensors(folder / "model.safetensors"), config)
        io = dict(np.load(folder / "io.npz"))
        cases = sorted({name.split("/")[0] for name in io})
        assert len(cases) == 5
        for case in cases:
            patches, positions = case_inputs(io, case)
            np.testing.assert_array_equal(patches, patches.astype(np.float16))
            seen = encode(config, params, patches, positions)
            where = f"{folder.name}/{case}"
            assert_near(seen.hidden.before_post_norm[0], io[f"{case}/hidden_state_1"], f"{where}/hidden_state_1")
            assert_near(seen.tokens, io[f"{case}/last_hidden_state"], f"{where}/last_hidden_state")
            if config.head:
                assert_near(seen.pooled, io[f"{case}/pooler_output"], f"{where}/pooler_output")
