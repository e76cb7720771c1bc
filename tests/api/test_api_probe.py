"""`ove.probe` on files, shards and features, whose classes a frozen encoder of random weights can tell by their brightness."""

from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

import ove
from ove.api.probe import probe
from ove.errors import BadInput, ConfigError

CLASSES = ("dark", "light", "medium")


@pytest.fixture(scope="module")
def model(weights: Path) -> ove.Model:
    return ove.load(weights)


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[str, str]]:
    """8 pictures of each class, of 4 patches."""
    folder, rng, pairs = tmp_path_factory.mktemp("pictures"), np.random.default_rng(0), []
    for label, level in zip(CLASSES, (20, 220, 120), strict=True):
        for number in range(8):
            path = folder / label / f"{number}.png"
            path.parent.mkdir(exist_ok=True)
            cv2.imwrite(str(path), rng.integers(level - 15, level + 15, (28, 28, 3)).astype(np.uint8))
            pairs.append((str(path), label))
    return pairs


@pytest.mark.parametrize(
    ("head", "settings"),
    [("knn", {"neighbours": 1}), ("linear", {}), ("attentive", {"epochs": 8, "lr": 1e-2, "batch_size": 12})],
)
def test_a_probe_on_files_learns_what_can_be_seen(
    model: ove.Model, pictures: list[tuple[str, str]], head: Any, settings: dict[str, Any]
) -> None:
    train, val = ove.split(pictures, val_share=0.25)
    result = probe(model, train, val, head=head, **settings)
    assert result.classes == CLASSES and result.n_train == 18 and result.names == tuple(path for path, _ in val)
    assert [CLASSES[index] for index in result.labels] == [label for _, label in val]
    right = np.mean(result.predictions.classes[:, 0] == result.labels)
    assert result.top1 == right >= 5 / 6 and f"top-1 {right:.1%}" in str(result)
    wrong_labels = [(path, CLASSES[(number + number // 3) % 3]) for number, (path, _) in enumerate(train)]
    assert probe(model, wrong_labels, val, head=head, **settings).top1 < right


def test_a_folder_is_split_class_by_class(model: ove.Model, pictures: list[tuple[str, str]]) -> None:
    result = probe(model, Path(pictures[0][0]).parents[1], head="knn", neighbours=1, val_share=0.25)
    assert (result.n_train, len(result.names)) == (18, 6) and result.top1 == 1


def test_files_that_cannot_be_read_are_set_aside_and_named(
    model: ove.Model, pictures: list[tuple[str, str]], tmp_path: Path
) -> None:
    broken = tmp_path / "broken.png"
    broken.write_bytes(Path(pictures[0][0]).read_bytes()[:60])
    result = probe(model, [*pictures[::2], (str(broken), "dark")], pictures[1::2], head="knn", neighbours=1)
    assert result.n_train == 12 and result.top1 == 1
    assert len(result.set_aside) == 1 and "broken.png" in result.set_aside[0] and "1 files set aside" in str(result)


def test_classes_without_training_samples_count_as_wrong(model: ove.Model, pictures: list[tuple[str, str]]) -> None:
    train = [pair for pair in pictures[::2] if pair[1] != "medium"]
    result = probe(model, train, pictures[1::2], head="knn", neighbours=1)
    assert result.classes == ("dark", "light") and result.top1 == pytest.approx(8 / 12)
    assert sorted(result.labels.tolist()) == [-1] * 4 + [0] * 4 + [1] * 4


def test_shards_give_what_the_probe_of_shards_gives(model: ove.Model, shard_folder: Path) -> None:
    result = probe(model, shard_folder, shard_folder, head="knn", neighbours=1, budget=16, selection={"gop_frames": 4})
    assert result.classes == ("dark", "light") and result.n_train == len(result.names) == 24
    assert result.top1 == np.mean(result.predictions.classes[:, 0] == result.labels) == 1  # each sample is its own neighbour


def test_features_are_not_encoded_again(model: ove.Model, pictures: list[tuple[str, str]], tmp_path: Path) -> None:
    names = [path for path, _ in pictures]
    vectors = np.stack([one.pooled for one in model(names)])  # type: ignore[arg-type]
    np.savez(tmp_path / "features.npz", files=np.array(names), pooled=vectors)
    result = probe(None, tmp_path / "features.npz", labels=dict(pictures), head="linear", val_share=0.25)
    assert result.n_train == 18 and result.top1 == 1
    with pytest.raises(BadInput, match=r"features\.npz: 1 of 24 files have no label, the first .*dark/0\.png"):
        probe(None, tmp_path / "features.npz", labels=dict(pictures[1:]))
    with pytest.raises(ConfigError, match="needs labels="):
        probe(None, tmp_path / "features.npz")
    (tmp_path / "other.npz").write_bytes(b"nothing")
    with pytest.raises(BadInput, match=r"other\.npz: is no feature file"):
        probe(None, tmp_path / "other.npz", labels=dict(pictures))


def test_what_does_not_go_together_is_refused(model: ove.Model, pictures: list[tuple[str, str]], shard_folder: Path) -> None:
    with pytest.raises(ConfigError, match="give two folders of shards"):
        probe(model, shard_folder, pictures)
    with pytest.raises(ConfigError, match="model = None"):
        probe(None, pictures, pictures)
    with pytest.raises(BadInput, match=r"at least two classes, found dark \(8\)"):
        probe(model, pictures[:8], pictures)
    with pytest.raises(ConfigError, match=r"probe\.epoch"):
        probe(model, pictures, pictures, epoch=3)
