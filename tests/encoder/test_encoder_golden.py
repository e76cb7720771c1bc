"""Parity with the published PyTorch encoder on folders in its format with random weights, read by `published.load`.

`golden.npz` beside this file is what of one such folder fits into a repository: the patch embedding, the first norm and the
first block of the folder without a head, and the first sample of its case with explicit positions. It was made by

    tensors = safetensors.numpy.load_file(folder / "model.safetensors")
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

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from safetensors.numpy import save_file

from ove.encoder import published
from ove.encoder.encoder import Encoded, Encoder

TOLERANCE = 1e-5
"""Norm of the error relative to the norm of the reference, and largest error relative to its largest value, all in float32."""
TOLERANCE_BF16 = 1e-2
"""Norm of the error, in bfloat16 (parameters and activations); measured: at most 7.3e-3."""


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


def encode(model: Encoder, patches: np.ndarray, positions: np.ndarray) -> Encoded:
    return model(jnp.asarray(patches, jnp.float32), jnp.asarray(positions, jnp.int32), return_hidden_states=True)


def outputs(seen: Encoded, io: Mapping[str, np.ndarray], case: str) -> dict[str, tuple[jax.Array | None, np.ndarray]]:
    """Ours and theirs by the published names."""
    assert seen.hidden is not None
    ours = {
        "hidden_state_1": seen.hidden.before_post_norm[0],
        "last_hidden_state": seen.tokens,
        "pooler_output": seen.pooled,
    }
    assert (seen.pooled is not None) == (f"{case}/pooler_output" in io)
    return {name: (got, io[f"{case}/{name}"]) for name, got in ours.items() if f"{case}/{name}" in io}


def errors(got: jax.Array, expected: np.ndarray) -> tuple[float, float]:
    """Of norms, and of the largest values."""
    off = np.asarray(got, np.float32) - expected
    return float(np.linalg.norm(off) / np.linalg.norm(expected)), float(np.abs(off).max() / np.abs(expected).max())


def test_first_block_equals_the_published_one(tmp_path: Path) -> None:
    golden = dict(np.load(Path(__file__).with_name("golden.npz")))
    patches, positions, expected = (golden.pop(name) for name in ("patches", "positions", "hidden_state_1"))
    config = {"model_type": "onevision_encoder", "num_hidden_layers": 1, "num_attention_heads": 1, "use_head": False}
    (tmp_path / "config.json").write_text(json.dumps(config))
    save_file(golden, tmp_path / "model.safetensors")
    seen = encode(published.load(tmp_path), patches, positions)
    assert seen.hidden is not None
    assert max(errors(seen.hidden.before_post_norm[0], expected)) <= TOLERANCE


def test_whole_folders_equal_the_published_encoder(golden_folders: list[Path]) -> None:
    for folder in golden_folders:
        model = published.load(folder)
        io = dict(np.load(folder / "io.npz"))
        cases = sorted({name.split("/")[0] for name in io})
        assert len(cases) == 5
        for case in cases:
            patches, positions = case_inputs(io, case)
            np.testing.assert_array_equal(patches, patches.astype(np.float16))
            for name, (got, expected) in outputs(encode(model, patches, positions), io, case).items():
                assert got is not None
                worst = max(errors(got, expected))
                assert worst <= TOLERANCE, f"{folder.name}/{case}/{name}: relative error {worst:.2e}"


def test_bfloat16_is_as_near_as_its_digits_allow(golden_folders: list[Path]) -> None:
    (folder,) = (folder for folder in golden_folders if folder.name == "tiny")
    model = published.load(folder, "bfloat16")
    io = dict(np.load(folder / "io.npz"))
    for name, (got, expected) in outputs(encode(model, *case_inputs(io, "video_positions")), io, "video_positions").items():
        assert got is not None
        assert errors(got, expected)[0] <= TOLERANCE_BF16, f"{name}: relative error {errors(got, expected)[0]:.2e}"
