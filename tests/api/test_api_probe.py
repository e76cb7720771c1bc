"""`ove.probe` on files, shards and features, whose classes a frozen encoder of random weights can tell by their brightness."""

import dataclasses
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from synthetic import RECORDS, record_of, write_set

import ove
from ove.api.probe import probe
from ove.config import ProbeConfig, SelectionConfig
from ove.errors import BadInput, ConfigError
from ove.probing.compare import compare
from ove.shards.schema import VideoRecord
from ove.sources.folders import InputFile

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
    result = probe(model.name, Path(pictures[0][0]).parents[1], head="knn", neighbours=1, val_share=0.25)
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


def test_shards_give_what_the_probe_of_shards_gives(model: ove.Model, shard_folder: Path, tmp_path: Path) -> None:
    asked: dict[str, Any] = {"head": "knn", "neighbours": 1, "budget": 16, "selection": {"gop_frames": 4}}
    val = write_set(tmp_path / "val", 6)
    result = probe(model, shard_folder, val, **asked)
    assert result.classes == ("dark", "light") and (result.n_train, len(result.names), result.n_shared) == (24, 6, 0)
    assert result.top1 == np.mean(result.predictions.classes[:, 0] == result.labels) == 1  # each sample is its own neighbour
    config = ProbeConfig(
        weights=model.name,
        train_shards=str(shard_folder),
        val_shards=str(val),
        probe="knn",
        modes=("codec",),
        budgets=(16,),
        selection=SelectionConfig(gop_frames=4),
        untrained=False,
        neighbours=1,
    )
    assert compare(config, lambda line: None).rows[0].scores == (result.scores,)


def test_samples_that_were_trained_on_are_refused_or_counted(
    model: ove.Model, pictures: list[tuple[str, str]], shard_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    with pytest.raises(BadInput, match="hold the same 24 records"):
        probe(model, shard_folder, str(shard_folder))
    with pytest.raises(BadInput, match="train and val hold the same 24 files"):
        probe(model, pictures, reversed(pictures))
    (tmp_path / "linked").symlink_to(Path(pictures[0][0]).parents[1])
    linked = [
        (str(tmp_path / "linked" / Path(path).relative_to(Path(pictures[0][0]).parents[1])), name) for path, name in pictures
    ]
    with pytest.raises(BadInput, match="train and val hold the same 24 files"):
        probe(model, pictures, linked)
    result = probe(model, pictures[::2], pictures[:9], head="knn", neighbours=1)
    assert result.n_shared == 5 and "5 were trained on" in str(result)
    assert "5 of the 9 files to score on are also trained on" in caplog.text
    caplog.clear()
    assert probe(model, pictures[::2], pictures[1::2], head="knn", neighbours=1).n_shared == 0 and not caplog.records
    np.savez(tmp_path / "features.npz", files=np.array([path for path, _ in pictures]), pooled=np.eye(24))
    with pytest.raises(BadInput, match="hold the same 24 files"):
        probe(None, tmp_path / "features.npz", tmp_path / "features.npz", labels=dict(pictures))


def test_several_folders_of_shards_are_one_set(model: ove.Model, shard_folder: Path, tmp_path: Path) -> None:
    other = write_set(tmp_path / "other", 4, labelled_otherwise)
    result = probe(
        model, [str(shard_folder), other], (other,), head="knn", neighbours=1, budget=16, selection={"gop_frames": 4}
    )
    assert (result.classes, result.n_train, len(result.names)) == (("dark", "grey", "light"), RECORDS + 4, 4)
    assert [result.classes[index] for index in result.labels] == ["dark", "grey", "dark", "grey"] and result.top1 == 1
    assert result.n_shared == 4
    with pytest.raises(ConfigError, match="pictures: is no folder of shards, unlike others"):
        probe(model, [shard_folder, tmp_path / "pictures"], shard_folder)


def labelled_otherwise(file: InputFile) -> VideoRecord:
    """Other records than those of the other folder, whose light ones are called grey."""
    record = record_of(dataclasses.replace(file, key=str(int(file.key) + 50)))
    return dataclasses.replace(record, key=file.key, label="grey" if file.label == "light" else file.label)


def test_the_split_files_of_others_are_read(model: ove.Model, pictures: list[tuple[str, str]], tmp_path: Path) -> None:
    root = Path(pictures[0][0]).parents[1]
    lines = {"train.txt": pictures[::2], "val.txt": pictures[1::2]}
    for name, pairs in lines.items():
        (tmp_path / name).write_text("".join(f"{label}/{Path(path).name} 7\n" for path, label in pairs))
    chosen: dict[str, Any] = {"head": "knn", "neighbours": 1, "root": root}
    result = probe(model, str(tmp_path / "train.txt"), tmp_path / "val.txt", label_folder=1, **chosen)
    assert result.classes == CLASSES and result.names == tuple(path for path, _ in pictures[1::2]) and result.top1 == 1
    with pytest.raises(BadInput, match=r"at least two classes, found 7 \(12\)"):
        probe(model, tmp_path / "train.txt", tmp_path / "val.txt", **chosen)
    (tmp_path / "tabs.csv").write_text("clip,kind\n" + "".join(f"{path},{label}\n" for path, label in pictures))
    columns = {"path_column": "clip", "label_column": "kind"}
    result = probe(model, tmp_path / "tabs.csv", head="knn", neighbours=1, val_share=0.25, **columns)
    assert result.classes == CLASSES and (result.n_train, len(result.names)) == (18, 6)


def test_features_are_not_encoded_again(model: ove.Model, pictures: list[tuple[str, str]], tmp_path: Path) -> None:
    names = [path for path, _ in pictures]
    vectors = np.stack([one.pooled for one in model(names)])  # type: ignore[arg-type]
    np.savez(tmp_path / "features.npz", files=np.array(names), pooled=vectors)
    result = probe(None, tmp_path / "features.npz", labels=dict(pictures), head="linear", val_share=0.25)
    assert result.n_train == 18 and result.top1 == 1
    with pytest.raises(BadInput, match=r"features\.npz: 1 of 24 files have no label, the first .*dark/0\.png"):
        probe(None, tmp_path / "features.npz", labels=dict(pictures[1:]))
    same = probe(None, tmp_path / "features.npz", label_folder=1, head="linear", val_share=0.25)
    assert same.names == result.names and same.labels.tolist() == result.labels.tolist() and same.top1 == 1
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
    with pytest.raises(ConfigError, match=r"unexpected argument epoch; did you mean epochs\?"):
        probe(model, pictures, pictures, epoch=3)
