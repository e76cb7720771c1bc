"""Teachers with weights: small folders of CLIP and of a published encoder, through the command."""

import json
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import published_files
import pytest
from safetensors.numpy import save_file

from launch import labels as command
from ove.config import LabelsConfig
from ove.encoder.published import load
from ove.errors import BadCheckpoint, ConfigError
from ove.labels.embed import open_embeddings
from ove.labels.teachers.clip_files import load_clip
from ove.labels.teachers.preprocess import cut
from ove.labels.teachers.teacher import make_teacher, teacher_identity
from ove.shards.labels import read_centers, read_labels
from ove.shards.schema import decode_frames
from ove.shards.shard_set import ShardSet

Write = Callable[[Path, int], None]
GOLDEN = np.load(Path(__file__).with_name("clip_golden.npz"))
OVE = published_files.CONFIG | {"hidden_size": 64, "num_hidden_layers": 1}


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tower of two layers that sees 48 px."""
    folder = tmp_path_factory.mktemp("clip")
    start = "b/tensors/"
    (folder / "config.json").write_text(str(GOLDEN["b/config"]))
    tensors = {n.removeprefix(start): GOLDEN[n].astype(np.float32) for n in GOLDEN.files if n.startswith(start)}
    save_file(tensors, folder / "model.safetensors")
    return folder


@pytest.fixture(scope="module")
def ove(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """An encoder of one layer in the published layout."""
    return published_files.write_folder(tmp_path_factory.mktemp("ove"), published_files.random_tensors(OVE), OVE)


def _unit(rows: np.ndarray) -> np.ndarray:
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


@pytest.mark.parametrize("kind", ["clip", pytest.param("ove", marks=pytest.mark.slow)])
def test_the_command_labels_with_weights(write_kinds: Write, tmp_path: Path, request: pytest.FixtureRequest, kind: str) -> None:
    weights = request.getfixturevalue(kind)
    write_kinds(tmp_path, 12)
    settings = {"teacher": kind, "weights": str(weights), "size_px": 28, "batch_size": 1}
    options = [word for key, value in settings.items() for word in ("--set", f"labels.{key}={value}")]
    assert command.main(["--shards", str(tmp_path), "--centers", "4", "--labels", "2", *options]) == 0
    shards, config = ShardSet.open(tmp_path), LabelsConfig(**settings)
    identity = teacher_identity(config)
    if kind == "clip":
        tower = load_clip(weights)
        embed = jax.jit(lambda pictures: tower(pictures))
        side_px = 48
    else:
        encoder = load(weights)
        embed = jax.jit(lambda pictures: encoder.from_pixels(pictures).pooled)
        side_px = 28
    for bank, which in (("obj", [4]), ("vid", range(8))):
        found = open_embeddings(tmp_path / "labels" / "steps" / bank, shards, bank, identity, "float32")
        for index in (0, 11):
            pictures = [cut(picture, side_px) for picture in decode_frames(shards.video(index), which)]
            each = _unit(np.concatenate([np.asarray(embed(jnp.asarray(picture[None]))) for picture in pictures]))
            np.testing.assert_allclose(found.points.rows(np.array([index]))[0], _unit(each.ravel()), atol=2e-5)
        nearest = read_labels(tmp_path, bank).labels[:, 0]
        assert all(len(set(nearest[n::4].tolist())) == 1 for n in range(4)) and len(set(nearest.tolist())) == 4


def test_a_tower_of_bfloat16_is_another_teacher_and_near(clip: Path) -> None:
    config = LabelsConfig(teacher="clip", weights=str(clip), batch_size=1)
    half = LabelsConfig(teacher="clip", weights=str(clip), batch_size=1, compute="bfloat16")
    assert teacher_identity(config) != teacher_identity(half)
    teachers = [make_teacher(c) for c in (config, half)]
    pictures = np.random.default_rng(0).integers(0, 256, (10, 8, 70, 50, 3), dtype=np.uint8)
    found = [teacher.embed([teacher.prepare(clip, True) for clip in pictures]) for teacher in teachers]
    assert found[0].shape == (10, 8 * 16) and (np.sum(found[0] * found[1], axis=1) > 0.999).all()


def test_other_weights_are_another_teacher_wherever_they_lie(clip: Path, tmp_path: Path) -> None:
    def identity(folder: Path) -> dict[str, object]:
        return teacher_identity(LabelsConfig(teacher="clip", weights=str(folder)))

    moved = tmp_path / "moved"
    moved.mkdir()
    for path in clip.iterdir():
        (moved / path.name).write_bytes(path.read_bytes())
    assert identity(moved) == identity(clip)
    config = json.loads((moved / "config.json").read_text())
    (moved / "config.json").write_text(json.dumps(config | {"hidden_act": "gelu"}))
    assert identity(moved) != identity(clip)


def test_weights_that_cannot_be_a_teacher_are_refused(clip: Path, ove: Path, tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"labels\.size_px = 30 is not a multiple of the patches of 14 px"):
        make_teacher(LabelsConfig(teacher="ove", weights=str(ove), size_px=30))
    headless = OVE | {"use_head": False}
    folder = published_files.write_folder(tmp_path / "headless", published_files.random_tensors(headless), headless)
    with pytest.raises(ConfigError, match="has no pooling head, so it has no embedding"):
        make_teacher(LabelsConfig(teacher="ove", weights=str(folder)))
    for teacher, weights in (("ove", clip), ("clip", ove)):
        with pytest.raises(BadCheckpoint, match=f"{weights}: "):
            make_teacher(LabelsConfig(teacher=teacher, weights=str(weights)))


def test_ones_own_teacher_labels_through_the_command(
    write_kinds: Write, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_kinds(tmp_path, 17)
    settings = {"teacher": "own_functions:EndColors", "weights": "2"}
    options = [word for key, value in settings.items() for word in ("--set", f"labels.{key}={value!r}")]
    words = ["--shards", str(tmp_path), "--centers", "4", "--labels", "2", *options]
    assert command.main(words) == 0
    shards, identity = ShardSet.open(tmp_path), teacher_identity(LabelsConfig(**settings))
    for bank, which in (("obj", [4]), ("vid", [0, 7])):
        found = open_embeddings(tmp_path / "labels" / "steps" / bank, shards, bank, identity, "float32")
        colors = [decode_frames(shards.video(n), which).mean(axis=(1, 2)).ravel() ** 2 for n in range(17)]
        np.testing.assert_allclose(found.points.rows(np.arange(17)), colors, rtol=1e-6)
        centers = np.asarray(read_centers(tmp_path, bank))
        np.testing.assert_array_equal(read_labels(tmp_path, bank).labels[:, 0], (_unit(np.array(colors)) @ centers.T).argmax(1))
    capsys.readouterr()
    assert command.main(words) == 0 and "has these labels already" in capsys.readouterr().out


def test_ones_own_teacher_is_another_when_its_source_or_its_weights_change(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.syspath_prepend(tmp_path)
    source, weights = tmp_path / "edited_teacher.py", tmp_path / "weights"
    weights.mkdir()
    config = LabelsConfig(teacher="edited_teacher:EndColors", weights=str(weights))
    identities = []
    for version, content in ((1, "a"), (2, "a"), (2, "b")):
        source.write_text(f"from own_functions import EndColors\n\nVERSION = {version}\n")
        (weights / "any.bin").write_text(content)
        identities.append(str(teacher_identity(config)))
    assert len(set(identities)) == 3 and identities[-1] == str(teacher_identity(config))


def test_what_cannot_teach_is_refused(write_kinds: Write, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ConfigError, match=r"^labels\.teacher = 'own_functions:EndColor': the module 'own_functions' has no"):
        teacher_identity(LabelsConfig(teacher="own_functions:EndColor"))
    with pytest.raises(ConfigError, match=r"^labels\.teacher = 'builtins:str' returned str, not a Teacher \(docs/ext"):
        make_teacher(LabelsConfig(teacher="builtins:str"))
    write_kinds(tmp_path, 6)
    monkeypatch.setattr("own_functions.EndColors.embed", lambda self, prepared: np.concatenate(prepared))
    with pytest.raises(ConfigError, match=r"own_functions:EndColors gives shape \(18,\) for 6 samples"):
        command.main(["embed", "--shards", str(tmp_path), "--bank", "obj", "--set", "labels.teacher=own_functions:EndColors"])
