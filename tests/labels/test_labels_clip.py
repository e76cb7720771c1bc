"""The CLIP tower and its preprocessing against transformers, by files that clip_golden.py made."""

import json
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import save_file

from ove.errors import BadCheckpoint, ConfigError
from ove.features.frozen import open_frozen
from ove.labels.teachers.clip_files import load_clip
from ove.labels.teachers.preprocess import cut
from ove.video.patches import all_positions, frames_to_patches

GOLDEN = np.load(Path(__file__).with_name("clip_golden.npz"))


def _tensors(case: str) -> dict[str, np.ndarray]:
    start = f"{case}/tensors/"
    return {n.removeprefix(start): GOLDEN[n].astype(np.float32) for n in GOLDEN.files if n.startswith(start)}


def _write(folder: Path, case: str, tensors: dict[str, np.ndarray] | None = None, **config: object) -> Path:
    folder.mkdir(exist_ok=True)
    values = json.loads(str(GOLDEN[f"{case}/config"]))
    (folder / "config.json").write_text(json.dumps(values | config))
    save_file(_tensors(case) if tensors is None else tensors, folder / "model.safetensors")
    return folder


@pytest.mark.parametrize("case", ["b", "l", "h"])
def test_embeddings_are_those_of_transformers(tmp_path: Path, case: str) -> None:
    tower = load_clip(_write(tmp_path / case, case))
    wanted = GOLDEN[f"{case}/image_embeds"]
    found = np.asarray(tower(jnp.asarray(GOLDEN[f"{case}/pictures"])))
    assert found.dtype == np.float32 and found.shape == wanted.shape
    np.testing.assert_allclose(found, wanted, atol=1e-5, rtol=1e-5)


def test_a_probe_opens_towers_and_gets_the_embeddings_of_transformers(tmp_path: Path) -> None:
    tower = open_frozen(_write(tmp_path / "b", "b"))
    pictures, side = GOLDEN["b/pictures"], tower.config.image_px // tower.config.patch_px
    patches = np.stack([frames_to_patches(picture[None], tower.config.patch_px) for picture in pictures])
    positions = np.stack([all_positions((1, side, side))] * len(pictures))
    np.testing.assert_allclose(_padded(tower.embeddings, patches, positions), GOLDEN["b/image_embeds"], atol=1e-5, rtol=1e-5)
    assert _padded(tower.tokens, patches, positions).shape[::2] == (len(pictures), tower.config.width)
    tower.check(("frames", "image"))
    with pytest.raises(ConfigError, match=r"a CLIP tower sees only whole frames, so there is no codec"):
        tower.check(("frames", "codec"))
    with pytest.raises(ConfigError, match="has no untrained counterpart"):
        tower.untrained(0)


def _padded(make, patches: np.ndarray, positions: np.ndarray) -> np.ndarray:
    """What is made of samples, repeated so that all devices have as many."""
    rows = np.arange(-(-len(patches) // jax.local_device_count()) * jax.local_device_count()) % len(patches)
    return np.asarray(make(patches[rows], positions[rows]))[: len(patches)]


def test_what_no_probe_opens_is_an_error_that_lists_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "readme.txt").write_text("Nothing here.")
    for path, words in ((tmp_path, "holds no weights"), (tmp_path / "nowhere", "no such weights")):
        known = "the --workdir of a training run, the folder of a CLIP vision tower, a folder or file of published weights"
        with pytest.raises(BadCheckpoint, match=rf"{path.name}: {words}; give one of: {known}\.$"):
            open_frozen(path)


def test_a_whole_model_in_several_files_gives_the_same(tmp_path: Path) -> None:
    tensors = _tensors("h") | {"text_model.embeddings.token_embedding.weight": np.ones((3, 4), np.float32)}
    tensors |= {"logit_scale": np.ones((), np.float32), "vision_model.embeddings.position_ids": np.arange(10)[None]}
    folder = _write(tmp_path / "h", "h")
    (folder / "model.safetensors").unlink()
    names = {name: f"model-{number % 2 + 1:05d}-of-00002.safetensors" for number, name in enumerate(sorted(tensors))}
    for file in set(names.values()):
        save_file({name: tensors[name] for name in names if names[name] == file}, folder / file)
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": names}))
    pictures = jnp.asarray(GOLDEN["h/pictures"])
    np.testing.assert_allclose(load_clip(folder)(pictures), GOLDEN["h/image_embeds"], atol=1e-5, rtol=1e-5)


def test_bfloat16_is_near(tmp_path: Path) -> None:
    tower = load_clip(_write(tmp_path / "l", "l"), "bfloat16")
    found = np.asarray(jax.jit(lambda tower, pictures: tower(pictures, jnp.bfloat16))(tower, jnp.asarray(GOLDEN["l/pictures"])))
    cosine = np.sum(found * GOLDEN["l/image_embeds"], 1) / np.linalg.norm(found, axis=1)
    assert (cosine / np.linalg.norm(GOLDEN["l/image_embeds"], axis=1) > 0.999).all()


def test_everything_that_is_wrong_is_said_at_once(tmp_path: Path) -> None:
    tensors = _tensors("b")
    del tensors["visual_projection.weight"]
    tensors["vision_model.embeddings.class_embedding"] = np.zeros(7, np.float32)
    tensors["vision_model.encoder.layers.1.mlp.fc1.bias"][3] = np.nan
    tensors["vision_model.extra"] = np.zeros((2, 3), np.float32)
    with pytest.raises(BadCheckpoint) as error:
        load_clip(_write(tmp_path / "b", "b", tensors))
    for line in (
        "missing: visual_projection.weight [16, 32]",
        "unexpected: vision_model.extra [2, 3]",
        "wrong shape: vision_model.embeddings.class_embedding is [7], not [32]",
        "not finite: vision_model.encoder.layers.1.mlp.fc1.bias",
    ):
        assert line in str(error.value)


@pytest.mark.parametrize(
    ("config", "sentence"),
    [
        ({"model_type": "siglip"}, "this is another model"),
        ({"hidden_act": "relu"}, "computes quick_gelu or gelu"),
        ({"num_attention_heads": 0, "patch_size": "16"}, "patch_size is '16'"),
        ({"num_attention_heads": 3}, "cannot be divided among 3 heads"),
        ({"num_hidden_layers": 3}, "missing: vision_model.encoder.layers.2"),
    ],
)
def test_a_configuration_that_cannot_be_is_refused(tmp_path: Path, config: dict, sentence: str) -> None:
    with pytest.raises(BadCheckpoint, match=sentence):
        load_clip(_write(tmp_path / "b", "b", **config))


def test_other_folders_are_refused(tmp_path: Path) -> None:
    folder = _write(tmp_path / "b", "b", {"other": np.zeros(3, np.float32)})
    with pytest.raises(BadCheckpoint, match=r"no tensor is called vision_model\.…"):
        load_clip(folder)
    (folder / "config.json").unlink()
    with pytest.raises(BadCheckpoint, match=r"holds no config\.json"):
        load_clip(folder)


@pytest.mark.parametrize("case", ["wide", "tall", "small", "exact", "odd"])
def test_pictures_are_cut_as_transformers_does(case: str) -> None:
    wanted = GOLDEN[f"processor/{case}/cut"]
    np.testing.assert_array_equal(cut(GOLDEN[f"processor/{case}/picture"], len(wanted)), wanted)


@pytest.mark.parametrize("shape", [(3, 100), (100, 3), (40, 1000), (700, 41), (1, 40)])
def test_the_middle_of_a_long_picture_is_that_of_the_whole(shape: tuple[int, int]) -> None:
    waves = np.sin(np.arange(shape[0])[:, None, None] / 9 + np.arange(shape[1])[:, None] / 7 + np.arange(3))
    picture = (127 + 120 * waves).astype(np.uint8)
    height, width = (28 if side == min(shape) else int(28 * side / min(shape)) for side in shape)
    assert max(height, width) > 16 * 28
    whole = np.asarray(Image.fromarray(picture).resize((width, height), Image.Resampling.BICUBIC)).astype(int)
    top, left = (height - 28) // 2, (width - 28) // 2
    assert np.abs(cut(picture, 28) - whole[top : top + 28, left : left + 28]).max() <= 1


@pytest.mark.parametrize("shape", [(1, 16384), (16384, 1)])
def test_long_pictures_are_never_blown_up_as_a_whole(shape: tuple[int, int], monkeypatch: pytest.MonkeyPatch) -> None:
    sizes: list[tuple[tuple[int, int], tuple[int, int]]] = []
    resize = Image.Image.resize

    def noted(self: Image.Image, size: tuple[int, int], *more: object, **named: object) -> Image.Image:
        sizes.append((self.size, size))
        return resize(self, size, *more, **named)

    monkeypatch.setattr(Image.Image, "resize", noted)
    assert cut(np.full((*shape, 3), 77, np.uint8), 224).tolist() == [[[77] * 3] * 224] * 224
    assert [size for _, size in sizes] == [(224, 224)] and max(sizes[0][0]) < 12
