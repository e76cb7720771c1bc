"""The convert command: published weights to the folder of a run and back, without loss."""

import dataclasses
import filecmp
import json
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from flax import nnx
from published_files import CONFIG, as_tower, random_tensors, write_folder
from safetensors.numpy import load_file

from launch import convert
from ove.config import EncoderConfig
from ove.encoder import encoder, published
from ove.train.checkpoints.checkpoint import restore_encoder

NO_HEAD = CONFIG | {"use_head": False, "num_hidden_layers": 1}
TOWER_CONFIG = {"model_type": "llava_onevision2", "vision_config": NO_HEAD}


@pytest.fixture
def source(tmp_path: Path) -> Path:
    tensors = {name: tensor.astype(np.float16) for name, tensor in as_tower(random_tensors(NO_HEAD)).items()}
    return write_folder(tmp_path / "source", tensors, TOWER_CONFIG)


def test_there_and_back_again_is_the_same_file(ask: Callable, source: Path, tmp_path: Path) -> None:
    run, back = tmp_path / "deep" / "run", tmp_path / "back"
    answer = ask(convert.main, source, run)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.splitlines() == [
        f"{source}: published weights",
        "encoder (of no preset): 1 layers, width 64, 2 heads of 32, MLP 96, patch 14, layer_norm eps 1e-06, "
        "RoPE released theta 10000, no pooling head",
        "15 tensors, 67,104 parameters (published in float16), q, k, v in one tensor, names begin with model.visual.; 2 other "
        "tensors beside them",
        f"{run}: written (checkpoints, published.safetensors)",
    ]
    config, params, step = restore_encoder(run)
    model = published.load(source)
    assert (config, step) == (model.config, 0)
    jax.tree.map(np.testing.assert_array_equal, params, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    answer = ask(convert.main, run, back)
    assert (answer.code, answer.err) == (0, "") and f"{run}: a run at step 0" in answer.out
    listed = answer.out.splitlines()[-1].removeprefix(f"{back}: written (").removesuffix(")").split(", ")
    assert sorted(listed) == sorted(path.name for path in back.iterdir()) and "README.md" in listed
    (back / "README.md").write_text("mine")
    again = ask(convert.main, run, back, "--force")
    assert again.code == 0 and "README.md" not in again.out and (back / "README.md").read_text() == "mine"
    for name in ("config.json", "model.safetensors"):
        assert filecmp.cmp(source / name, back / name, shallow=False)


def test_a_trained_encoder_is_published(
    ask: Callable, trained_run: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask(convert.main, trained_run, tmp_path / "a")
    assert answer.code == 0 and f"{trained_run}: a run at step 14" in answer.out
    assert "RoPE interleaved" in answer.out and "trained with RoPE 'interleaved'" in caplog.text
    config, params, _ = restore_encoder(trained_run)
    model = published.load(tmp_path / "a")
    assert model.config == dataclasses.replace(config, init_std=model.config.init_std, remat=model.config.remat)
    jax.tree.map(np.testing.assert_array_equal, params, nnx.to_pure_dict(nnx.state(model, nnx.Param)))
    assert ask(convert.main, trained_run, tmp_path / "b", "--step", 7, "--dtype", "bfloat16").code == 0
    assert {tensor.dtype.name for tensor in load_file(tmp_path / "b" / "model.safetensors").values()} == {"bfloat16"}
    assert (published.load(tmp_path / "b").pool.probe[...] != model.pool.probe[...]).any()
    answer = ask(convert.main, trained_run, tmp_path / "c", "--step", 8)
    assert answer.code == 2 and f"{trained_run}: holds no checkpoint of step 8; there are 7, 14." in answer.err


def test_nothing_is_replaced_unasked(ask: Callable, source: Path, tmp_path: Path) -> None:
    run = tmp_path / "run"
    assert ask(convert.main, source, run).code == 0
    other = write_folder(tmp_path / "other", random_tensors(CONFIG))
    answer = ask(convert.main, other, run)
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"{run}: is not empty; give another folder, or --force, which replaces checkpoints and" in answer.err
    assert not restore_encoder(run)[0].pooling_head
    assert ask(convert.main, other, run, "--force").code == 0
    assert restore_encoder(run)[0].pooling_head and sorted(path.name for path in run.iterdir()) == [
        "checkpoints",
        "published.safetensors",
    ]
    answer = ask(convert.main, other, run, "--force", "--to", "published")
    assert answer.code == 2 and f"{run}: holds checkpoints and published.safetensors, which is the other format" in answer.err


def test_the_format_can_be_kept(ask: Callable, source: Path, tmp_path: Path) -> None:
    assert ask(convert.main, source, tmp_path / "a", "--to", "published", "--dtype", "float32").code == 0
    found = json.loads((tmp_path / "a" / "config.json").read_text())
    assert found["vision_config"] == NO_HEAD | {"dtype": "float32"}
    assert load_file(tmp_path / "a" / "model.safetensors")["model.visual.merger.mlp.0.weight"].dtype == np.float32


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["{source}", "{source}"], "source: DEST is where SOURCE lies"),
        (["{source}/model.safetensors", "{source}", "--force"], "source: DEST is where SOURCE lies"),
        (["{source}", "{source}/config.json"], "config.json: is a file, and a folder is needed"),
        (["{source}", "{tmp}/b", "--step", "3"], "is not the folder of a run, which alone has steps"),
        (["{source}", "{tmp}/b", "--dtype", "bfloat16"], "runs hold float32; leave --dtype out, or add --to published."),
        (["{tmp}/none", "{tmp}/b"], "none: no such file or folder"),
    ],
)
def test_bad_arguments_are_one_sentence(
    ask: Callable, source: Path, tmp_path: Path, arguments: list[str], sentence: str
) -> None:
    answer = ask(convert.main, *(argument.format(source=source, tmp=tmp_path) for argument in arguments))
    assert answer.code == 2 and sentence in answer.err and answer.err.count("\n") == 1
    assert not (tmp_path / "b").exists()


def test_presets_are_called_by_name() -> None:
    config = EncoderConfig(layers=4, width=192, heads=3, mlp=768)
    shapes = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    text = convert.describe_encoder(published.assemble(config, shapes))
    assert text.startswith("encoder (tiny): 4 layers, width 192") and text.endswith("79 tensors, 2,337,600 parameters")
