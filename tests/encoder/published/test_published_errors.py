"""Published weights that cannot be used: one error says all that is wrong, where, and what to do."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from published_files import CONFIG, random_tensors, write_folder
from safetensors.numpy import load_file, save_file
from torch_files import write_state_dict

from ove.encoder import published
from ove.errors import BadCheckpoint

TENSORS = random_tensors(CONFIG)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_folder(tmp_path_factory.mktemp("published") / "model", TENSORS)


def test_every_mismatch_is_in_one_error(tmp_path: Path) -> None:
    wrong = dict(TENSORS)
    del wrong["layernorm_pre.bias"], wrong["encoder.layers.1.mlp.fc2.weight"]
    wrong["head.probe"] = np.zeros((1, 64), np.float32)
    wrong["layernorm_post.weight"] = np.ones(64, np.int32)
    wrong["layernorm_post.bias"] = np.full(64, np.nan, np.float32)
    wrong["head.norm.weight"] = np.full(64, -np.inf).astype(jnp.bfloat16)
    wrong["extra.weight"] = np.zeros(3)
    config = CONFIG | {"hidden_act": "quick_gelu", "num_channels": 1}
    with pytest.raises(BadCheckpoint) as error:
        published.load(write_folder(tmp_path, wrong, config))
    assert str(error.value).splitlines() == [
        f"{tmp_path}: does not hold an encoder that can be used here:",
        "  num_channels is 1; this encoder supports 3",
        "  hidden_act is 'quick_gelu'; this encoder supports 'gelu'",
        "  missing: layernorm_pre.bias [64]",
        "  missing: encoder.layers.1.mlp.fc2.weight [64, 96]",
        "  unexpected: extra.weight [3]",
        "  wrong type: layernorm_post.weight is int32, not one of float16, bfloat16, float32, float64",
        "  not finite: layernorm_post.bias has NaN or infinite values",
        "  wrong shape: head.probe is [1, 64], not [1, 1, 64]",
        "  not finite: head.norm.weight has NaN or infinite values",
    ]


@pytest.mark.parametrize(
    ("changes", "line"),
    [
        ({"model_type": "siglip_vision_model"}, "model_type is 'siglip_vision_model', not 'onevision_encoder'"),
        ({"model_type": "llava", "vision_config": {"model_type": "clip_vision_model"}}, "model_type is 'clip_vision_model'"),
        (
            {"layer_norm_type": "batch_norm"},
            "layer_norm_type is 'batch_norm'; this encoder supports 'layer_norm' or 'rms_norm'",
        ),
        ({"rope_layout": "learned"}, "rope_layout is 'learned'; this encoder supports 'released' or 'interleaved'"),
        ({"rope_temporal_size": 0}, "rope_temporal_size is 0; it must be null or a positive number of frames"),
        ({"num_hidden_layers": "2"}, "num_hidden_layers is '2'; it must be a positive integer"),
        ({"num_hidden_layers": 10**9}, "num_hidden_layers is 1000000000; it exceeds the supported 1000"),
        ({"layer_norm_eps": None}, "layer_norm_eps is None; it must be a positive number"),
        ({"num_attention_heads": 4}, "must give a head width that 32 divides"),
        ({"use_head": "yes"}, "use_head is 'yes'; it must be true or false"),
        ({"use_head": False}, "unexpected: head.probe [1, 1, 64]"),
        ({"hidden_size": 128}, "wrong shape: layernorm_pre.weight is [64], not [128]"),
        ({"num_hidden_layers": 3}, "missing: encoder.layers.2.self_attn.q_proj.weight [64, 64]"),
        ({"temporal_patch_size": 2}, "temporal_patch_size is 2; this encoder supports 1"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_what_a_config_asks_for_in_vain_is_said(tmp_path: Path, folder: Path, changes: dict[str, Any], line: str) -> None:
    (tmp_path / "config.json").write_text(json.dumps(CONFIG | changes))
    (tmp_path / "model.safetensors").symlink_to(folder / "model.safetensors")
    with pytest.raises(BadCheckpoint) as error:
        published.load(tmp_path)
    assert str(error.value).startswith(f"{tmp_path}: ") and line in str(error.value)


def cut(path: Path, n: int) -> None:
    path.write_bytes(path.read_bytes()[:n])


def overlap(path: Path) -> None:
    content = path.read_bytes()
    start = 8 + int.from_bytes(content[:8], "little")
    header = json.loads(content[8:start])
    header["layernorm_pre.bias"]["data_offsets"] = header["layernorm_pre.weight"]["data_offsets"]
    path.write_bytes(content[:8] + json.dumps(header, separators=(",", ":")).encode().ljust(start - 8) + content[start:])


def drop_from_index(folder: Path) -> None:
    first = sorted(folder.glob("model-*.safetensors"))[0]
    tensors = load_file(first)
    tensors.pop("encoder.layers.0.layer_norm1.bias")
    save_file(tensors, first)


POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1262046256\n"


@pytest.mark.parametrize(
    ("shards", "spoil", "words"),
    [
        (0, lambda d: cut(d / "model.safetensors", 5), "model.safetensors: is truncated (5 bytes); download it again."),
        (0, lambda d: cut(d / "model.safetensors", 99), "model.safetensors: is truncated within its header (99 of at least"),
        (0, lambda d: cut(d / "model.safetensors", 200_000), "model.safetensors: is truncated (200,000 of"),
        (0, lambda d: (d / "model.safetensors").write_bytes(b"<html>" * 9), "model.safetensors: is not a safetensors file"),
        (0, lambda d: (d / "model.safetensors").write_bytes(b"\x02" + bytes(7) + b"[]"), "its header is damaged"),
        (0, lambda d: overlap(d / "model.safetensors"), "its header is damaged (tensors overlap or leave gaps); download it"),
        (0, lambda d: (d / "model.safetensors").write_bytes(POINTER), "is only a pointer of Git LFS"),
        (0, lambda d: (d / "model.safetensors").unlink(), "holds no weights; put model.safetensors there"),
        (0, lambda d: (d / "config.json").unlink(), "holds weights but no config.json; put it there, or give the file"),
        (0, lambda d: (d / "config.json").write_text("{'a': 1}"), "config.json: is not JSON ("),
        (0, lambda d: (d / "config.json").write_text("[]"), "config.json: must be a JSON object"),
        (2, lambda d: (d / "model-00002.safetensors").unlink(), "index.json: says that model-00002.safetensors holds"),
        (2, drop_from_index, "model-00001.safetensors holds encoder.layers.0.layer_norm1.bias, but it does not"),
        (2, lambda d: (d / "model-00001.safetensors").write_bytes(POINTER), "run `git lfs pull` in its folder"),
        (2, lambda d: (d / "model.safetensors.index.json").write_text("{}"), "index.json: is not an index of weights"),
        (2, lambda d: (d / "model.safetensors.index.json").write_text('{"weight_map": {"a": "../a"}}'), "leads out of"),
        (2, lambda d: (d / "model.safetensors.index.json").unlink(), "holds several files that could be the weights (model-0"),
    ],
)
def test_bad_files_are_named_with_a_remedy(tmp_path: Path, shards: int, spoil: Callable[[Path], None], words: str) -> None:
    spoil(write_folder(tmp_path, TENSORS, shards=shards))
    with pytest.raises(BadCheckpoint) as error:
        published.load(tmp_path)
    assert str(tmp_path) in str(error.value) and words in str(error.value) and "\n" not in str(error.value)


def test_what_is_no_encoder_is_said(tmp_path: Path) -> None:
    with pytest.raises(BadCheckpoint, match=r"no such file or folder; give a folder with config\.json"):
        published.load(tmp_path / "none")
    (tmp_path / "notes.txt").write_text("hello")
    with pytest.raises(BadCheckpoint, match=r"notes\.txt: is not called like a file of weights"):
        published.load(tmp_path / "notes.txt")
    other = write_folder(tmp_path / "a", {"lm_head.weight": np.ones(3, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"no encoder: .*; its 1 tensors are called lm_head\.weight"):
        published.load(other)
    two = {f"{tower}.{name}": tensor for tower in ("image", "video") for name, tensor in TENSORS.items()}
    with pytest.raises(BadCheckpoint, match=r"holds several encoders \(image\., video\.\)"):
        published.load(write_folder(tmp_path / "b", two))
    write_state_dict(tmp_path / "c.pt", {"w": np.ones(3, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"c\.pt: holds no weights of this encoder"):
        published.load(tmp_path / "c.pt")
