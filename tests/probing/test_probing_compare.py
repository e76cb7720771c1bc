"""What is compared with what: the right weights, the right sets, and old results only where nothing has changed."""

import dataclasses
import functools
import shutil
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, SIZE_PX, T, image_record_of, record_of, write_image_set, write_set

from ove.config import EncoderConfig, ProbeConfig, SelectionConfig, VideoConfig
from ove.config.mapping import from_mapping, to_mapping
from ove.encoder import encoder, published
from ove.errors import BadShard, ConfigError
from ove.features.frozen import frozen, open_frozen
from ove.probing.compare import compare, view_of
from ove.probing.dataset import ProbeDataset
from ove.probing.features import Embeddings, Features, stored
from ove.probing.heads import heads
from ove.probing.predictions import prediction_rows
from ove.probing.score_cache import ScoreCache
from ove.probing.scores import Accuracy, Predictions, Scores
from ove.records import CODEC
from ove.shards.joined import open_shards
from ove.shards.schema import VideoRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView, to_tokens
from ove.tokens.preprocessing import OF_PUBLISHED, save_preprocessing
from ove.tokens.read import InputConfig

ENCODER = EncoderConfig(layers=1, width=64, heads=1, mlp=64)
VAL = 13
STRANGE = "grey"


@functools.cache
def params(seed: int) -> encoder.Params:
    return encoder.init(ENCODER, jax.random.key(seed))


def save(seed: int, folder: Path) -> Path:
    published.save(published.assemble(ENCODER, params(seed)), folder)
    return folder


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save(3, tmp_path_factory.mktemp("weights") / "published")


def some_strange(file: InputFile) -> VideoRecord:
    return dataclasses.replace(record_of(file), label=STRANGE if file.key in ("0005", "0008") else file.label)


@pytest.fixture(scope="module")
def val(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_set(tmp_path_factory.mktemp("val") / "shards", VAL, some_strange)


@pytest.fixture(scope="module")
def config(weights: Path, shard_folder: Path, val: Path) -> ProbeConfig:
    return ProbeConfig(
        str(weights), str(shard_folder), str(val), probe="knn", modes=("codec",), budgets=(BUDGET,),
        selection=SelectionConfig(gop_frames=GOP),
        neighbours=1, seeds=(7, 8),
    )  # fmt: skip


def test_untrained_means_fresh_weights_of_the_first_seed(config: ProbeConfig, monkeypatch: pytest.MonkeyPatch) -> None:
    embedded: list[tuple[str, np.ndarray]] = []

    def embed(*arguments: Any) -> Embeddings:
        found = of_module(*arguments)
        embedded.append((arguments[0].name, found.vectors))
        return found

    of_module = heads.embed
    monkeypatch.setattr(heads, "embed", embed)
    found = compare(config, lambda line: None)
    assert [row.untrained for row in found.rows] == [False, True]
    names, vectors = zip(*embedded, strict=True)
    assert names[2:] == ("untrained, seed 7",) * 2 and str(config.weights) in names[0] and names[0] == names[1]
    assert [len(each) for each in vectors] == [RECORDS, VAL] * 2
    tokens = [to_tokens(ShardSet.open(config.train_shards).record(n), CODEC, view_of(config, BUDGET), None) for n in range(4)]
    patches, positions = (np.stack(each) for each in zip(*tokens, strict=True))
    for seed, of_train in ((3, vectors[0]), (7, vectors[2])):  # 3: as saved; 7: fresh
        pooled = np.asarray(encoder.apply(ENCODER, params(seed), patches, positions).pooled)
        pooled = pooled / np.linalg.norm(pooled, axis=1, keepdims=True)
        np.testing.assert_allclose(of_train[:4], pooled, atol=1e-5)
    assert np.abs(vectors[0] - vectors[2]).max() > 0.1


def test_fresh_weights_are_of_the_same_network_and_another_seed_gives_others(weights: Path) -> None:
    given = open_frozen(weights, "bfloat16")
    fresh = given.untrained(7)
    assert (fresh.config, fresh.compute, fresh.part, fresh.config.width) == (given.config, "bfloat16", (0, 1), 64)
    expected = jax.tree.leaves(params(7))
    assert all(np.array_equal(a, b) for a, b in zip(jax.tree.leaves(fresh.params), expected, strict=True))
    assert len({each.fingerprint for each in (given, fresh, given.untrained(8))}) == 3


def test_probes_learn_from_the_training_set_and_are_scored_on_the_other(config: ProbeConfig, weights: Path) -> None:
    lines: list[str] = []
    found = compare(dataclasses.replace(config, untrained=False), lines.append)
    (row,) = found.rows
    (scores,) = row.scores
    assert (found.n_train, found.n_val, found.n_unknown, found.classes) == (RECORDS, VAL, 2, CLASSES)
    assert (scores.last.samples, scores.train.samples, scores.best_epoch) == (VAL, RECORDS, 0)
    (predictions,) = row.predictions
    assert predictions.classes.shape == (VAL, 2)
    names = [name for _, name in ShardSet.open(config.val_shards).names]
    right = [found.classes[best] == name for best, name in zip(predictions.classes[:, 0], names, strict=True)]
    assert scores.last.top1 == sum(right) / VAL and sum(right) <= VAL - 2
    assert lines[0] == f"encoder of {weights}; {RECORDS} videos to train the probe, {VAL} to score it"
    top1 = scores.last.top1
    assert lines[-2] == f"codec {BUDGET} tokens: top-1 {top1:.1%} (best epoch {top1:.1%})" and scores.best.top1 == top1
    assert lines[-1] == f"2 of {VAL} videos are of classes that {config.train_shards} lacks; they count as wrong"


HALF = RECORDS // 2


def later(file: InputFile) -> VideoRecord:
    """The record that stands `HALF` later in the whole set."""
    return dataclasses.replace(record_of(dataclasses.replace(file, key=f"{int(file.key) + HALF:04d}")), key=file.key)


def test_two_folders_are_probed_as_the_one_that_they_were_cut_from(config: ProbeConfig, tmp_path: Path) -> None:
    parts = tuple(str(write_set(tmp_path / name, HALF, make)) for name, make in (("1", record_of), ("2", later)))
    once = dataclasses.replace(config, probe="linear", untrained=False)
    cut = dataclasses.replace(once, train_shards=parts, val_shards=(config.val_shards, parts[1]))
    lines: list[str] = []
    whole, found = compare(once, print), compare(cut, lines.append, ScoreCache(tmp_path / "scores"))
    assert (found.n_train, found.n_val, found.n_unknown, found.classes) == (RECORDS, VAL + HALF, 2, CLASSES)
    ((expected,), (predictions,)) = whole.rows[0].predictions, found.rows[0].predictions
    np.testing.assert_array_equal(predictions.classes[:VAL], expected.classes)
    np.testing.assert_allclose(predictions.probabilities[:VAL], expected.probabilities, atol=1e-6)
    rows = list(prediction_rows(found, open_shards(cut.val_shards).names))
    assert [row["key"] for row in rows] == [
        *(f"{config.val_shards}/{n:04d}" for n in range(VAL)),
        *(f"{parts[1]}/{n:04d}" for n in range(HALF)),
    ]
    assert lines[-1].endswith(f"of classes that {parts[0]}, {parts[1]} lacks; they count as wrong")
    for again, is_known in ((cut, True), (dataclasses.replace(cut, train_shards=parts[::-1]), False), (once, False)):
        lines.clear()
        compare(again, lines.append, ScoreCache(tmp_path / "scores"))
        assert any(line.endswith(", cached") for line in lines) == is_known


@pytest.mark.parametrize(
    ("changes", "error", "sentence"),
    [
        ({"train_shards": ()}, ConfigError, r"probe.train_shards = \[\] must be a folder, or several, each once"),
        ({"val_shards": ("a", "b", "a")}, ConfigError, r"probe.val_shards = \['a', 'b', 'a'\] must be a folder, or several"),
        ({"train_shards": ""}, ConfigError, "probe.train_shards is not set; name it in the configuration, or with --config"),
        ({"weights": ""}, ConfigError, "probe.weights is not set"),
        ({"val_shards": 3}, ConfigError, "val_shards = 3 is of type int; str is expected"),
        ({"val_shards": ("a", 3)}, ConfigError, r"val_shards\[1\] = 3 is of type int; str is expected"),
    ],
)
def test_folders_that_cannot_be_meant_are_refused(
    config: ProbeConfig, changes: dict[str, Any], error: type[Exception], sentence: str
) -> None:
    with pytest.raises(error, match=sentence):
        compare(dataclasses.replace(config, **changes), print)


def test_a_folder_or_a_list_of_them_is_read_from_a_mapping(config: ProbeConfig) -> None:
    for given, kept in (("a", "a"), (["a", "b"], ("a", "b")), (("a",), ("a",))):
        read = from_mapping(ProbeConfig, {"train_shards": given})
        assert read.train_shards == kept
        assert from_mapping(ProbeConfig, to_mapping(read)) == read


def test_what_differs_from_training_is_said(config: ProbeConfig, weights: Path, tmp_path: Path) -> None:
    shutil.copytree(weights, tmp_path / "weights")
    trained = InputConfig("codec", VideoConfig(n_frames=T, size_px=SIZE_PX, selection=SelectionConfig(gop_frames=GOP)), BUDGET)
    once = dataclasses.replace(config, weights=str(tmp_path / "weights"), untrained=False)
    for difference, config_now in ((None, once), ("budget = 12 (trained: 16)", dataclasses.replace(once, budgets=(12,)))):
        save_preprocessing(tmp_path / "weights" / OF_PUBLISHED, trained)
        lines: list[str] = []
        compare(config_now, lines.append)
        notes = [line for line in lines if line.startswith("note: ")]
        assert notes == ([f"note: the encoder was trained on other inputs: {difference}"] if difference else [])


SCORES = Scores(Accuracy(0.5, 1.0, 0.25, VAL), Accuracy(0.75, 1.0, 0.5, VAL), 3, Accuracy(1.0, 1.0, 1.0, RECORDS))


class Known(ScoreCache):
    """Has all scores already, and remembers by what they were asked for."""

    def __init__(self) -> None:
        self.asked: list[Mapping[str, Any]] = []

    def find(self, about: Mapping[str, Any]) -> tuple[tuple[Scores, ...], int] | None:
        self.asked.append(about)
        return (SCORES,), 0

    def add(self, about: Mapping[str, Any], scores: Sequence[Scores], n_unknown: int) -> None:
        raise AssertionError("nothing is new")


def asked_for(config: ProbeConfig) -> list[Mapping[str, Any]]:
    known = Known()
    compare(config, lambda line: None, known)
    return known.asked


def selections() -> list[SelectionConfig]:
    """With another value for each setting, one at a time."""
    changes = {
        "rule": "frames",
        "gop_frames": 2,
        "iframe_policy": "first",
        "buckets": 2,
        "static_fallback": True,
        "outside": "zero",
    }
    assert changes.keys() == {field.name for field in dataclasses.fields(SelectionConfig)}
    return [dataclasses.replace(SelectionConfig(gop_frames=GOP), **{key: value}) for key, value in changes.items()]


CHANGES: dict[str, Any] = {
    "probe": "linear", "modes": ("frames",), "budgets": (BUDGET // 2,), "interventions": ("shuffle",),
    "jitter": True, "flip": 0.5,
    "compute": "bfloat16", "epochs": 3, "batch_size": 5, "lr": 1e-2, "lr_end": 1e-8, "label_smoothing": 0.2, "clip_norm": 1.0,
    "neighbours": 2, "l2": 2.0, "seeds": (7,),
}  # fmt: skip
"""Another value for each setting on which scores depend."""


def test_scores_are_kept_by_every_setting_that_decides_them(config: ProbeConfig, shard_folder: Path, tmp_path: Path) -> None:
    # Features are made anew, for augmentation is refused otherwise; how they are kept does not matter.
    plain = dataclasses.replace(config, untrained=False, features="encode")
    (before,) = asked_for(plain)
    assert asked_for(plain) == [before]
    changes = CHANGES | {"weights": str(save(4, tmp_path / "other"))}
    changes |= {"train_shards": config.val_shards, "val_shards": config.train_shards}
    for name, value in changes.items():
        assert getattr(plain, name) != value
        (after,) = asked_for(dataclasses.replace(plain, **{name: value}))
        assert after != before, name
    for each in selections():
        (after,) = asked_for(dataclasses.replace(plain, selection=each))
        assert after != before, each
    for name, value in {"features": "memory", "cache": "elsewhere"}.items():
        assert asked_for(dataclasses.replace(plain, **{name: value})) == [before], name
    both = asked_for(dataclasses.replace(plain, untrained=True))
    assert both[0] == before and both[1] != before
    assert {field.name for field in dataclasses.fields(ProbeConfig)} == {
        *changes,
        "selection",
        "features",
        "cache",
        "untrained",
        "image_px",
    }


def test_pictures_are_kept_by_their_size(config: ProbeConfig, tmp_path: Path) -> None:
    def labelled(file: InputFile) -> Any:
        return dataclasses.replace(image_record_of(file), label=CLASSES[int(file.key) % 2])

    pictures = str(write_image_set(tmp_path / "pictures", 8, labelled))
    of_pictures = dataclasses.replace(
        config, train_shards=pictures, val_shards=pictures, modes=("image",), untrained=False, image_px=28
    )
    small, large = asked_for(of_pictures), asked_for(dataclasses.replace(of_pictures, image_px=56))
    assert len(small) == len(large) == 1 and small != large
    twice = dataclasses.replace(of_pictures, budgets=(BUDGET, 2 * BUDGET))
    assert len(asked_for(twice)) == 1  # a picture has one size


def test_a_row_for_every_mode_budget_and_intervention_that_there_is(config: ProbeConfig) -> None:
    many = dataclasses.replace(
        config, modes=("codec", "frames"), budgets=(8, 16), interventions=("none", "shuffle"), untrained=True
    )
    rows = compare(many, lambda line: None, Known()).rows
    ways = [("codec", 8, "none"), ("codec", 8, "shuffle"), ("codec", 16, "none"), ("codec", 16, "shuffle")]
    ways += [("frames", 8, "none"), ("frames", 16, "none")]
    assert [(row.mode, row.budget, row.intervention) for row in rows] == ways * 2
    assert [row.untrained for row in rows] == [False] * 6 + [True] * 6
    assert {row.name for row in rows} == {"codec", "frames", "untrained_codec", "untrained_frames"}
    with pytest.raises(ConfigError, match="add codec to modes"):
        compare(dataclasses.replace(config, modes=("frames",), interventions=("shuffle",)), print)


def test_one_class_is_not_enough(config: ProbeConfig, tmp_path: Path) -> None:
    dark = write_set(tmp_path / "dark", 4, lambda file: dataclasses.replace(record_of(file), label="dark"))
    with pytest.raises(BadShard, match="needs labels of at least two classes, found 1"):
        compare(dataclasses.replace(config, train_shards=str(dark)), print)
    compare(dataclasses.replace(config, val_shards=str(dark)), lambda line: None, Known())


@pytest.mark.parametrize("features", ["memory", "disk", "encode"])
def test_tokens_are_of_their_set_and_only_training_is_augmented(
    config: ProbeConfig, features: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    made: list[tuple[str, ProbeDataset]] = []
    fits: list[tuple[Any, ...]] = []

    def remember(kind: str):
        def make(encoder: Any, dataset: ProbeDataset, *rest: Any) -> Features:
            made.append((kind, dataset))
            return Features(np.zeros((len(dataset), 1, 4), np.float16), dataset.labels())

        return make

    def fit_seeds(encoder: Any, config: ProbeConfig, n_classes: int, train: Any, val: Any, seeds: Any) -> list[Any]:
        fits.append((n_classes, len(train.labels), len(val.labels), tuple(seeds)))
        return [(SCORES, Predictions(np.zeros((VAL, 2), np.int32), np.zeros((VAL, 2), np.float32))) for _ in seeds]

    for name, kind in (("stored", "disk"), ("EncodedOnDemand", "encode"), ("extract", "memory")):
        monkeypatch.setattr(heads, name, remember(kind))
    monkeypatch.setattr(heads, "fit_seeds", fit_seeds)
    augmentation = {"jitter": True, "flip": 0.5} if features == "encode" else {}
    probed = dataclasses.replace(
        config, probe="attentive", features=features, cache=str(tmp_path), untrained=False, **augmentation
    )
    found = compare(probed, lambda line: None)
    assert fits == [(2, RECORDS, VAL, (7, 8))] and found.n_unknown == 2
    assert [(kind, str(dataset.shards.folder)) for kind, dataset in made] == [
        (features, config.train_shards),
        (features, config.val_shards),
    ]
    expected = (True, 0.5) if features == "encode" else (False, 0.0)
    assert [(dataset.jitter, dataset.flip) for _, dataset in made] == [expected, (False, 0.0)]


def test_features_on_disk_are_found_again_only_if_nothing_has_changed(shard_folder: Path, tmp_path: Path) -> None:
    model = frozen(ENCODER, params(3))
    plain = ProbeDataset(ShardSet.open(shard_folder), CLASSES, "codec", TokenView(BUDGET, SelectionConfig(gop_frames=GOP)))
    views = {"budget_tokens": 12, "patch_px": 7, "size_px": 28, "augment": "none"}
    assert {*views, "selection"} == {field.name for field in dataclasses.fields(TokenView)}
    others = [dataclasses.replace(plain, view=dataclasses.replace(plain.view, selection=each)) for each in selections()[1:]]
    others += [dataclasses.replace(plain, view=dataclasses.replace(plain.view, **{k: v})) for k, v in views.items()]
    others += [dataclasses.replace(plain, classes=("light", "dark")), dataclasses.replace(plain, mode="frames")]
    shuffled = dataclasses.replace(plain, intervention="shuffle")
    others += [shuffled, dataclasses.replace(shuffled, intervention="non_motion"), dataclasses.replace(shuffled, seed=1)]
    others += [dataclasses.replace(plain, shards=ShardSet.open(write_set(tmp_path / "few", 16)))]
    abouts = [str(each.cache_key()) for each in (plain, *others)]
    assert len(set(abouts)) == len(abouts)
    same = dataclasses.replace(plain, seed=1, jitter=True, flip=1.0)  # decide nothing without an epoch
    assert same.cache_key() == plain.cache_key()
    changed = {"compute": "bfloat16", "norm_eps": 1e-3}
    encoders = [frozen(dataclasses.replace(ENCODER, **{name: value}), params(3)) for name, value in changed.items()]
    encoders.append(frozen(ENCODER, params(4)))
    assert len({each.fingerprint for each in (model, *encoders)}) == 4
    folder = tmp_path / "cache"
    kinds = [(model, plain), (model, others[0]), (model, shuffled), (encoders[0], plain), (encoders[2], plain)]
    found = [np.array(stored(*kind, folder).tokens) for kind in kinds]
    assert len(list(folder.iterdir())) == len(kinds)
    for n, tokens in enumerate(found[1:], 1):
        assert np.abs(tokens.astype(np.float32) - found[0]).max() > 1e-3, n


@pytest.mark.parametrize(
    "changes",
    [
        {"probe": "edited:head"},
        {"interventions": ("edited:change",)},
        {"selection": SelectionConfig("edited:rule", GOP)},
        {"selection": SelectionConfig(gop_frames=GOP, iframe_policy="edited:policy")},
    ],
    ids=["probe", "intervention", "rule", "iframe_policy"],
)
def test_an_edited_function_of_ones_own_does_not_find_its_former_scores(
    config: ProbeConfig, changes: dict[str, Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    own = dataclasses.replace(config, untrained=False, **changes)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.delitem(sys.modules, "edited", raising=False)
    names = "best as rule, darker as change, knn_of_tokens as head, last as policy"
    cached = []
    for version in (1, 1, 2):
        (tmp_path / "edited.py").write_text(f"from own_functions import {names}\n\nVERSION = {version}\n")
        lines: list[str] = []
        compare(own, lines.append, ScoreCache(tmp_path / "scores"))
        cached.append(any("cached" in line for line in lines))
    assert cached == [False, True, False]
