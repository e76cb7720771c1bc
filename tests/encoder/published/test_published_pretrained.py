"""Published weights: every layout is read and written back bit for bit."""

import dataclasses
import filecmp
import json
import logging
import math
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from published_files import CONFIG, Tensors, as_tower, expected, random_tensors, write_folder
from safetensors.numpy import load_file, save_file
from torch_files import TorchFile, write_state_dict

from ove.config import EncoderConfig
from ove.encoder import encoder, published
from ove.encoder.presets import PRESETS
from ove.encoder.published.layout import published_tensors
from ove.encoder.published.origin import Origin, read_origin, write_origin
from ove.errors import BadCheckpoint, ConfigError

TENSORS = random_tensors(CONFIG)
NO_HEAD = CONFIG | {"use_head": False}
TOWER_CONFIG = {
    "model_type": "llava_onevision2",
    "text_config": {"hidden_size": 8, "num_hidden_layers": 1},
    "vision_config": {key: value for key, value in NO_HEAD.items() if key != "rope_temporal_size"} | {"spatial_merge_size": 2},
}
WORDS = "model.language_model.embed_tokens.weight"


def params_of(model: encoder.Encoder) -> dict[str, np.ndarray]:
    leaves = jax.tree_util.tree_leaves_with_path(nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def assert_same(one: encoder.Encoder, other: encoder.Encoder) -> None:
    assert one.config == other.config
    ours, theirs = params_of(one), params_of(other)
    assert ours.keys() == theirs.keys()
    for name, leaf in ours.items():
        np.testing.assert_array_equal(leaf, theirs[name], name)


def assert_same_tensors(found: Tensors, expected: Tensors) -> None:
    assert found.keys() == expected.keys()
    for name, tensor in expected.items():
        assert (found[name].dtype, found[name].shape) == (tensor.dtype, tensor.shape), name
        assert found[name].tobytes() == tensor.tobytes(), name


def saved(model: encoder.Encoder, folder: Path, **options: Any) -> Tensors:
    published.save(model, folder, **options)
    assert {path.name for path in folder.iterdir()} == {"config.json", "model.safetensors"}
    return load_file(folder / "model.safetensors")


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "model", TENSORS)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {"layer_norm_type": "rms_norm", "layer_norm_eps": 1e-3, "rope_theta": 500.0},
        {"hidden_size": 96, "num_attention_heads": 1, "use_head": False, "num_hidden_layers": 1},
        {"hidden_size": 128, "num_attention_heads": 1, "patch_size": 4, "rope_temporal_size": None},
    ],
    ids=["as_published", "rms_norm", "head_width_96", "patch_4"],
)
def test_every_size_computes_what_the_format_says(tmp_path: Path, changes: Mapping[str, Any]) -> None:
    config = CONFIG | changes
    tensors = random_tensors(config, seed=1)
    rng = np.random.default_rng(2)
    patches = rng.normal(size=(2, 7, 3 * config["patch_size"] ** 2)).astype(np.float32)
    positions = rng.integers(0, 64, (2, 7, 3)).astype(np.int32)
    model = published.load(write_folder(tmp_path, tensors, config))
    seen = model(jnp.asarray(patches), jnp.asarray(positions), return_hidden_states=True)
    wanted = expected(tensors, config, patches, positions)
    for name, got in (
        ("hidden_state_1", seen.hidden.before_post_norm[0]),
        ("last_hidden_state", seen.tokens),
        ("pooler_output", seen.pooled),
    ):
        if wanted[name] is None:
            assert got is None
            continue
        error = np.linalg.norm(np.asarray(got) - wanted[name]) / np.linalg.norm(wanted[name])
        assert error <= 1e-5, f"{name}: {error:.1e}"


def test_save_gives_back_the_same_files(folder: Path, tmp_path: Path) -> None:
    model = published.load(folder)
    saved(model, tmp_path / "again")
    for name in ("config.json", "model.safetensors"):
        assert filecmp.cmp(folder / name, tmp_path / "again" / name, shallow=False)
        assert (tmp_path / "again" / name).stat().st_mode == (tmp_path / "again" / "config.json").stat().st_mode
    # Also over itself, and from what split and merge make of the encoder.
    published.save(nnx.merge(*nnx.split(model)), tmp_path / "again")
    assert filecmp.cmp(folder / "model.safetensors", tmp_path / "again" / "model.safetensors", shallow=False)
    assert hash(nnx.split(model)[0]) != hash(nnx.split(published.load(folder))[0])


@pytest.mark.parametrize("dtype", ["bfloat16", "float16"])
def test_types_are_kept_tensor_for_tensor(tmp_path: Path, dtype: str) -> None:
    tensors = {name: t.astype(jnp.dtype(dtype)) if t.ndim > 1 else t for name, t in TENSORS.items()}
    model = published.load(write_folder(tmp_path / "a", tensors))
    assert {leaf.dtype.name for leaf in params_of(model).values()} == {"float32"}
    assert_same_tensors(saved(model, tmp_path / "b"), tensors)
    if dtype == "bfloat16":
        small = published.load(tmp_path / "a", jnp.bfloat16)
        assert {leaf.dtype.name for leaf in params_of(small).values()} == {"bfloat16"}
        seen = small(jnp.ones((1, 3, 588)), jnp.zeros((1, 3, 3), jnp.int32))
        assert small.config.compute == "bfloat16" and seen.tokens.dtype == seen.pooled.dtype == jnp.bfloat16


def test_another_type_can_be_asked_for(folder: Path, tmp_path: Path) -> None:
    found = saved(published.load(folder), tmp_path / "b", dtype="bfloat16")
    assert_same_tensors(found, {name: t.astype(jnp.bfloat16) for name, t in TENSORS.items()})
    assert json.loads((tmp_path / "b" / "config.json").read_text()) == CONFIG | {"dtype": "bfloat16"}
    with pytest.raises(ConfigError, match="dtype 'int8' is not supported; give one of float32"):
        published.save(published.load(folder), tmp_path / "c", "int8")
    with pytest.raises(ConfigError, match="dtype float16 is not supported; give float32 or bfloat16"):
        published.load(folder, "float16")


def test_shards_are_joined(folder: Path, tmp_path: Path) -> None:
    sharded = write_folder(tmp_path / "a", TENSORS, shards=3)
    model = published.load(sharded)
    assert_same(model, published.load(folder))
    assert_same(model, published.load(sharded / "model.safetensors.index.json"))
    saved(model, tmp_path / "b")
    assert filecmp.cmp(folder / "model.safetensors", tmp_path / "b" / "model.safetensors", shallow=False)


@pytest.mark.parametrize("prefix", ["model.visual.", "visual."])
def test_a_vision_tower_is_taken_out_of_a_larger_model(tmp_path: Path, prefix: str) -> None:
    plain = {name: t.astype(jnp.bfloat16) for name, t in random_tensors(NO_HEAD).items()}
    tower = as_tower(plain, prefix)
    larger = write_folder(
        tmp_path / "a", tower | {WORDS: np.zeros((2, 2), np.int8), "lm_head.weight": np.ones(3)}, TOWER_CONFIG
    )
    model = published.load(larger)
    separate = published.load(write_folder(tmp_path / "b", plain, NO_HEAD))
    assert_same(model, separate)
    found = saved(model, tmp_path / "c")
    assert_same_tensors(found, tower)
    assert filecmp.cmp(larger / "config.json", tmp_path / "c" / "config.json", shallow=False)
    assert_same(published.load(tmp_path / "c"), separate)
    assert_same_tensors(saved(separate, tmp_path / "d"), plain)


def test_only_files_with_tensors_of_the_encoder_are_read(tmp_path: Path) -> None:
    tower = as_tower(random_tensors(NO_HEAD))
    larger = write_folder(tmp_path, tower, TOWER_CONFIG, shards=2)
    index = larger / "model.safetensors.index.json"
    names = json.loads(index.read_text())
    (larger / "damaged.safetensors").write_bytes(b"?")
    names["weight_map"] |= {WORDS: "damaged.safetensors", "lm_head.weight": "absent.safetensors"}
    index.write_text(json.dumps(names))
    assert published.load(larger).config.layers == 2


@pytest.mark.parametrize("ending", [".pt", ".pth", ".bin"])
@pytest.mark.parametrize("wrap", ["{}", "_orig_mod.{}", "module._orig_mod.{}", "model.{}"])
def test_files_of_torch_lose_the_names_of_wrappers(tmp_path: Path, folder: Path, ending: str, wrap: str) -> None:
    path = tmp_path / f"step{ending}"
    file = TorchFile()
    file.write(path, {"epoch": 1, "state_dict": {wrap.format(name): file.tensor(t) for name, t in TENSORS.items()}})
    (tmp_path / "config.json").write_text((folder / "config.json").read_text())
    model = published.load(path)
    assert_same(model, published.load(folder))
    assert_same(model, published.load(tmp_path))
    saved(model, tmp_path / "b")
    assert filecmp.cmp(folder / "model.safetensors", tmp_path / "b" / "model.safetensors", shallow=False)


def test_wrappers_within_names_and_computed_constants_are_no_matter(tmp_path: Path, folder: Path) -> None:
    inner = {name.replace("encoder.", "encoder._orig_mod.", 1): tensor for name, tensor in TENSORS.items()}
    inner["video_rope.inv_freq_t"] = np.ones(4, np.float32)
    assert_same(published.load(write_folder(tmp_path / "a", inner)), published.load(folder))
    with pytest.raises(BadCheckpoint, match=r"holds tensors twice.*: encoder\._orig_mod\.layers"):
        published.load(write_folder(tmp_path / "b", TENSORS | inner))


def test_several_files_of_torch_with_an_index(tmp_path: Path, folder: Path) -> None:
    names = list(TENSORS)
    weight_map = {name: f"pytorch_model-{i % 2}.bin" for i, name in enumerate(names)}
    for file in set(weight_map.values()):
        write_state_dict(tmp_path / file, {name: TENSORS[name] for name in names if weight_map[name] == file})
    (tmp_path / "pytorch_model.bin.index.json").write_text(json.dumps({"weight_map": weight_map}))
    (tmp_path / "config.json").write_text(json.dumps(CONFIG))
    assert_same(published.load(tmp_path), published.load(folder))


def test_sizes_are_told_by_the_tensors_alone(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = CONFIG | {"hidden_size": 128, "patch_size": 7, "layer_norm_type": "rms_norm", "use_head": False}
    path = write_folder(tmp_path / "a", random_tensors(config), None) / "model.safetensors"
    with caplog.at_level(logging.WARNING):
        model = published.load(path)
    assert "no config.json beside it" in caplog.text and "2 heads of width 64, layer_norm_eps 1e-06" in caplog.text
    assert model.config == EncoderConfig(2, 128, 2, 96, 7, "rms_norm", rope="released", pooling_head=False)
    saved(model, tmp_path / "b")
    assert_same(published.load(tmp_path / "b"), model)


def test_a_larger_model_s_config_may_leave_out_what_is_usual(tmp_path: Path) -> None:
    shapes = {"hidden_size": 512, "num_hidden_layers": 1, "intermediate_size": 32}
    config = {"model_type": "llava_onevision2", "vision_config": {"model_type": "onevision_encoder"}}
    found = published.load(write_folder(tmp_path, as_tower(random_tensors(NO_HEAD | shapes)), config)).config
    assert (found.width, found.heads, found.layers, found.mlp, found.pooling_head) == (512, 16, 1, 32, False)


def test_the_origin_is_written_and_read_also_by_the_field_s_former_name(tmp_path: Path) -> None:
    """Runs that were converted before keep `fused` in their file."""
    origin = Origin("{}", "model.visual.", True, {"a": "float16"}, {"merger.b": np.arange(3)}, {"format": "pt"})
    write_origin(origin, tmp_path / "now")
    fields = vars(origin) | {"fused": True}
    del fields["fused_qkv"], fields["extra_tensors"]
    save_file({"merger.b": np.arange(3)}, tmp_path / "before", {"origin": json.dumps(fields)})
    for name in ("now", "before"):
        found, expected = vars(read_origin(tmp_path / name)), vars(origin)
        np.testing.assert_array_equal(found.pop("extra_tensors")["merger.b"], np.arange(3))
        assert found == {key: value for key, value in expected.items() if key != "extra_tensors"}
    save_file({}, tmp_path / "other", {"origin": "[]"})
    with pytest.raises(BadCheckpoint, match="other: does not say where weights came from"):
        read_origin(tmp_path / "other")


def test_an_encoder_of_ours_is_written_and_read(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    config = EncoderConfig(layers=1, width=64, heads=2, mlp=96, rope="released", norm="rms_norm", norm_eps=1e-5)
    shapes = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    rng = np.random.default_rng(0)
    params = jax.tree.map(lambda leaf: jnp.asarray(rng.normal(size=leaf.shape), leaf.dtype), shapes)
    model = published.assemble(config, params)
    theirs = random_tensors(CONFIG | {"layer_norm_type": "rms_norm", "num_hidden_layers": 1})
    assert saved(model, tmp_path / "a").keys() == theirs.keys()
    assert "rope_layout" not in (tmp_path / "a" / "config.json").read_text() and not caplog.text
    assert_same(published.load(tmp_path / "a"), model)
    paired = dataclasses.replace(config, rope="interleaved")
    saved(published.assemble(paired, params), tmp_path / "b")
    assert "trained with RoPE 'interleaved', which the PyTorch code does not know" in caplog.text
    assert published.load(tmp_path / "b").config == paired

    projecting = dataclasses.replace(config, embedding=16)
    caplog.clear()
    saved(published.assemble(projecting, encoder.init(projecting, jax.random.key(1))), tmp_path / "c")
    assert "projection of the embedding from 64 to 16 numbers has no place in the published layout" in caplog.text
    assert published.load(tmp_path / "c").config == config


def test_what_changed_since_is_written(tmp_path: Path, folder: Path) -> None:
    model = published.load(folder)
    model.pool.probe[...] = model.pool.probe[...] + 1
    model.config = dataclasses.replace(model.config, rope="interleaved", norm_eps=1e-5)
    found = saved(model, tmp_path)
    np.testing.assert_array_equal(found["head.probe"], TENSORS["head.probe"] + 1)
    changed = CONFIG | {"layer_norm_eps": 1e-5, "rope_layout": "interleaved"}
    assert json.loads((tmp_path / "config.json").read_text()) == changed


def test_large_has_the_published_number_of_parameters() -> None:
    tensors = published_tensors(PRESETS["large"])
    assert (len(tensors), sum(math.prod(t.shape) for t in tensors)) == (399, 315_509_760)
    shapes = jax.eval_shape(lambda: encoder.init(PRESETS["large"], jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 315_509_760


def test_damage_is_never_taken_for_weights_of_another_shape(tmp_path: Path) -> None:
    """Whatever becomes of a header, the file is refused or its tensors are those that it names."""
    whole = (write_folder(tmp_path, TENSORS) / "model.safetensors").read_bytes()
    header = int.from_bytes(whole[:8], "little")
    rng = np.random.default_rng(0)
    refused = 0
    for _ in range(60):
        content = bytearray(whole)
        content[rng.integers(8 + header)] ^= 1 << rng.integers(8)
        (tmp_path / "model.safetensors").write_bytes(content)
        try:
            model = published.load(tmp_path)
        except BadCheckpoint:
            refused += 1
        else:
            assert_same_tensors(saved(model, tmp_path / "b"), load_file(tmp_path / "model.safetensors"))
    assert refused > 40


def test_a_failed_write_leaves_what_was_there(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    published.save(published.load(folder), tmp_path)
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    monkeypatch.setattr("os.replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space")))
    with pytest.raises(OSError, match="No space"):
        published.save(published.load(folder), tmp_path, "bfloat16")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
