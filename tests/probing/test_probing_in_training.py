"""The probe of a training run learns from the training shards alone and is scored on the validation shards alone."""

import dataclasses
import functools
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, record_of, write_set

from launch.train import _hooks
from ove.config import BatchesConfig, EncoderConfig, EvaluationConfig, ProbeConfig, RunConfig, SelectionConfig, TrainConfig
from ove.encoder import encoder
from ove.errors import BadShard, ConfigError
from ove.features.frozen import frozen
from ove.probing import online as in_training
from ove.probing.heads import heads
from ove.probing.online import OnlineProbe
from ove.probing.scores import Accuracy, Predictions, Scores
from ove.shards.schema import VideoRecord
from ove.sources.folders import InputFile
from ove.stream.modes import TokenView

ENCODER = EncoderConfig(layers=1, width=64, heads=1, mlp=64, init_std=0.125)
TRAIN, VAL = 16, 12
DARK, LIGHT = CLASSES


@functools.cache
def params(seed: int) -> encoder.Params:
    return jax.device_get(encoder.init(ENCODER, jax.random.key(seed)))


def said_wrongly(wrong: Iterable[int]):
    """Records whose class is plain to see (one is lighter), some of them under the name of the other class."""

    def make(file: InputFile) -> VideoRecord:
        record = record_of(file)
        return dataclasses.replace(record, label=LIGHT if (int(file.key) % 2 == 1) != (int(file.key) in wrong) else DARK)

    return make


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """`train`; validation sets all of whose names are right, a third of them wrong, and all wrong."""
    root = tmp_path_factory.mktemp("evaluation")
    found = {"train": write_set(root / "train", TRAIN, said_wrongly(()))}
    for name, wrong in (("right", ()), ("third", (0, 1, 6, 7)), ("wrong", range(VAL))):
        found[name] = write_set(root / name, VAL, said_wrongly(wrong))
    return found


def config_of(folders: dict[str, Path], val: str, probe: str = "knn", **evaluation: Any) -> RunConfig:
    values = {"neighbours": 3, "epochs": 20, "probe": probe} | evaluation
    return RunConfig(
        BatchesConfig(budget_tokens=BUDGET, selection=SelectionConfig(gop_frames=GOP)),
        ENCODER,
        train=TrainConfig(eval_every=5),
        evaluation=EvaluationConfig(**{"train_shards": str(folders["train"]), "val_shards": str(folders[val])} | values),
    )


@pytest.mark.parametrize("probe", ["knn", "linear", "attentive", "own_functions:knn_of_tokens"])
def test_scores_are_those_of_the_validation_set_after_learning_from_the_other(
    folders: dict[str, Path], probe: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    # Twenty steps at the usual rate change nothing that can be seen; what is asked is which samples count.
    monkeypatch.setattr(
        in_training,
        "ProbeConfig",
        lambda epochs, neighbours: ProbeConfig(epochs=epochs, neighbours=neighbours, batch_size=16, lr=1e-2, lr_end=1e-3),
    )
    found = {val: OnlineProbe(config_of(folders, val, probe))(ENCODER, params(0)) for val in ("right", "third", "wrong")}
    assert found == {val: {f"{probe}_codec_top1": top1} for val, top1 in (("right", 1.0), ("third", 8 / 12), ("wrong", 0.0))}


class Named(str):
    """Stands for the tokens or embeddings of a set."""

    labels = np.zeros(0, np.int32)

    def batch(self, indices: Any, epoch: int | None) -> Any:
        raise AssertionError("the probes are not run")


class Seen:
    """What the heads handed to the probes, which are not run."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.dataset: list[Any] = []
        self.encoders: list[Any] = []
        self.probes: list[tuple[Any, ...]] = []
        for name in ("embed", "extract"):
            monkeypatch.setattr(heads, name, self._features)
        monkeypatch.setattr(heads, "knn", self._probe)
        monkeypatch.setattr(heads, "fit_seeds", lambda *arguments: [self._probe(*arguments)])

    def _features(self, encoder: Any, dataset: Any, progress: Any) -> Any:
        self.encoders.append(encoder)
        self.dataset.append(dataset)
        return Named(dataset.shards.folder.name)

    def _probe(self, *arguments: Any, **named: Any) -> Any:
        self.probes.append((*arguments, *named.values()))
        accuracy = Accuracy(0.25 * len(self.probes), 0.0, 0.0, 1)
        return Scores(accuracy, accuracy, 0, accuracy), Predictions(np.zeros((1, 2), np.int32), np.zeros((1, 2), np.float32))


@pytest.mark.parametrize("probe", ["knn", "attentive"])
def test_settings_reach_the_probe(folders: dict[str, Path], probe: str, monkeypatch: pytest.MonkeyPatch) -> None:
    seen = Seen(monkeypatch)
    config = config_of(folders, "third", probe, modes=("codec", "frames"), neighbours=7, epochs=9)
    batches = BatchesConfig(
        budget_tokens=BUDGET, selection=SelectionConfig("patches", 2, "first", buckets=4, static_fallback=True, outside="zero")
    )
    found = OnlineProbe(dataclasses.replace(config, batches=batches))(ENCODER, params(3))
    assert found == {f"{probe}_codec_top1": 0.25, f"{probe}_frames_top1": 0.5}
    assert [(each.shards.folder.name, each.mode) for each in seen.dataset] == [
        (name, mode) for mode in ("codec", "frames") for name in ("train", "third")
    ]
    view = TokenView(BUDGET, SelectionConfig("patches", 2, "first", buckets=4, static_fallback=True, outside="zero"))
    for each in seen.dataset:
        assert each.view == view and each.classes == CLASSES and each.intervention == "none"
    assert {each.fingerprint for each in seen.encoders} == {frozen(ENCODER, params(3)).fingerprint}
    for arguments in seen.probes:
        if probe == "knn":
            assert arguments == (2, "train", "third", 7)
        else:
            assert arguments[1:] == (ProbeConfig(epochs=9, neighbours=7), 2, "train", "third", (0,))


def test_what_does_not_fit_is_said_before_the_run_begins(folders: dict[str, Path], tmp_path: Path) -> None:
    config = config_of(folders, "right")
    assert isinstance(_hooks(config, tmp_path, None).evaluate, OnlineProbe)
    assert _hooks(dataclasses.replace(config, train=TrainConfig(eval_every=0)), tmp_path, None).evaluate is None

    def with_(**changes: Any) -> RunConfig:
        return dataclasses.replace(config, evaluation=dataclasses.replace(config.evaluation, **changes))

    with pytest.raises(ConfigError, match=r"evaluation\.modes\[1\] = 'thumbs' is none of 'codec', 'frames'"):
        OnlineProbe(with_(modes=("codec", "thumbs")))
    with pytest.raises(ConfigError, match=r"evaluation\.modes is empty; name at least one"):
        OnlineProbe(with_(modes=()))
    with pytest.raises(ConfigError, match=r"train\.eval_every = 5, but there is nothing to evaluate on"):
        OnlineProbe(with_(train_shards="", val_shards=""))
    odd = dataclasses.replace(config, batches=BatchesConfig(budget_tokens=18, selection=SelectionConfig(gop_frames=GOP)))
    OnlineProbe(odd)  # codec can
    with pytest.raises(ConfigError, match="budget_tokens = 18 is not 1 to 8 times"):
        OnlineProbe(dataclasses.replace(odd, evaluation=dataclasses.replace(odd.evaluation, modes=("frames",))))
    bare = write_set(tmp_path / "bare", 4, labelled=False)
    with pytest.raises(BadShard, match="bare: an evaluation needs labels of at least two classes, found 0"):
        OnlineProbe(with_(train_shards=str(bare)))
    single = write_set(tmp_path / "single", 1)
    with pytest.raises(BadShard, match="single: an evaluation needs labels of at least two classes, found 1"):
        OnlineProbe(with_(train_shards=str(single)))
    with pytest.raises(BadShard, match="0000 has no label"):
        OnlineProbe(with_(val_shards=str(bare)))(ENCODER, params(0))


def test_the_features_are_of_the_parameters_that_are_given(folders: dict[str, Path]) -> None:
    broken = jax.tree.map(lambda leaf: np.full_like(leaf, np.nan), params(0))
    with pytest.raises(ValueError, match="not finite"):
        OnlineProbe(config_of(folders, "right"))(ENCODER, broken)


def test_several_folders_are_one_set(folders: dict[str, Path], tmp_path: Path) -> None:
    """All labels of one half are wrong, so half of the answers are; of the two training sets neither knows both classes."""
    halves = [
        write_set(tmp_path / name, TRAIN, lambda file, level=level: dataclasses.replace(record_of(file), label=CLASSES[level]))
        for level, name in enumerate(CLASSES)
    ]
    with pytest.raises(BadShard, match="labels of at least two classes, found 1"):
        OnlineProbe(config_of(folders, "right", train_shards=str(halves[0])))
    found = OnlineProbe(config_of(folders, "right", val_shards=(str(folders["right"]), str(folders["wrong"]))))
    assert found(ENCODER, params(0)) == {"knn_codec_top1": 0.5}
    both = OnlineProbe(config_of(folders, "right", train_shards=tuple(map(str, halves))))
    assert len(both._train) == 2 * TRAIN and both._train.classes == sorted(CLASSES)


@pytest.mark.parametrize("twice", [(), ("a", "a")])
def test_folders_are_named_once(twice: tuple[str, ...]) -> None:
    with pytest.raises(ConfigError, match=r"evaluation\.val_shards = \[.*\] must be a folder, or several, each once"):
        EvaluationConfig("a", twice)
