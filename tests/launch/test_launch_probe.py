"""The probe command on the smallest run: table, JSON, and sentences for what is missing."""

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, write_set

import ove
from launch import probe
from launch.cli.settings import load_config
from ove.config import ProbeConfig
from ove.config.mapping import from_mapping


@pytest.fixture(scope="module")
def arguments(trained_run: Path, shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = tmp_path_factory.mktemp("probe") / "probe.py"
    values = {"weights": str(trained_run), "train_shards": str(shard_folder), "val_shards": str(shard_folder)}
    values |= {"budgets": [BUDGET], "gop_frames": GOP, "epochs": 4, "batch_size": 8, "lr": 3e-3}
    config.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n    return ConfigDict({values})\n")
    return [f"--config={config}"]


def test_the_table_is_printed_and_written(ask: Callable, arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "probe.json"
    said = tmp_path / "deep" / "said.jsonl"
    answer = ask(probe.main, *arguments, f"--out={out}", f"--predictions={said}")
    assert answer.code == 0 and answer.err == ""
    scores = json.loads(out.read_text())
    assert scores["table"] in answer.out
    assert re.match(r"config \S+/probe\.py; shards \S+; weights \S+\n", answer.out)
    assert scores["probe"].keys() == {"codec", "frames", "untrained_codec", "untrained_frames"}
    assert scores["probe"]["codec"] == 1.0  # one class is darker than the other
    assert (scores["budget_tokens"], scores["classes"], scores["val_samples"]) == (BUDGET, len(CLASSES), RECORDS)
    assert "encoder of step 14" in answer.out
    lines = [json.loads(line) for line in said.read_text().splitlines()]
    assert len(lines) == 4 * RECORDS and all(line["classes"][0] == line["label"] for line in lines[:RECORDS])


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        (
            "--config.weights=/no/such",
            "/no/such: no such weights; give one of: the --workdir of a training run, the folder of a CLIP",
        ),
        ("--config.val_shards=/no/such", "/no/such: no such shard folder"),
        (
            "--config.modes=['codec', 'thumbs']",
            "modes[1] = 'thumbs' is none of 'codec', 'frames', 'tiling', 'image'.",
        ),
        ("--config.budgets=(18,)", "budget_tokens = 18 is not 1 to 8 times"),
        ("--config.interventions=['blur']", "interventions[0] = 'blur' is none of 'none', 'non_motion'"),
        ("--config.features=disk", "probe.features = disk needs a folder: set probe.cache"),
        ("--config.epocs=3", "unknown configuration key epocs; did you mean epochs?"),
        ("--config.epochs=0", "epochs = 0 must be at least 1"),
        ("--predictions=said.parquet", "said.parquet: predictions are written as .jsonl or .csv"),
    ],
)
def test_what_is_missing_is_said(ask: Callable, arguments: list[str], option: str, sentence: str) -> None:
    answer = ask(probe.main, *arguments, option)
    assert answer.code == 2
    assert sentence in answer.err and answer.err.count("\n") == 1


def test_shards_without_labels_are_refused(ask: Callable, arguments: list[str], tmp_path: Path) -> None:
    bare = write_set(tmp_path / "bare", 8, labelled=False)
    answer = ask(probe.main, *arguments, f"--config.train_shards={bare}")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"{bare}: a probe needs labels of at least two classes, found 0; give the files labels" in answer.err
    answer = ask(probe.main, *arguments, f"--config.val_shards={bare}")
    assert answer.code == 2 and "0000 has no label; give the files labels" in answer.err


def test_the_configuration_for_own_shards(ask: Callable, trained_run: Path, shard_folder: Path, tmp_path: Path) -> None:
    plain = from_mapping(ProbeConfig, load_config("probe"))
    smoke = from_mapping(ProbeConfig, load_config("probe:smoke"))
    assert (plain.budgets, plain.modes, smoke.modes) == ((2048,), ("codec", "frames"), ("codec",))
    assert smoke.epochs < plain.epochs and smoke.budgets < plain.budgets
    words = ["--config=probe:smoke", "--config.budgets=[16]", "--config.gop_frames=4", f"--config.weights={trained_run}"]
    answer = ask(probe.main, *words)
    assert answer.code == 2 and "probe.train_shards is not set; name it in the configuration" in answer.err
    other = write_set(tmp_path / "other", 3)
    words += [f"--config.train_shards=['{shard_folder}','{other}']", f"--config.val_shards={other}"]
    answer = ask(probe.main, *words, f"--predictions={tmp_path / 'said.csv'}")
    assert answer.code == 0 and f"{RECORDS + 3} videos to train the probe, 3 to score it" in answer.out
    said = (tmp_path / "said.csv").read_text().splitlines()[1:]
    assert len(said) == 3 and all(",000" in line for line in said)  # one folder to score on: keys are those of its records
    assert "knows no argument 'large'" in ask(probe.main, "--config=probe:large").err


@pytest.fixture
def features(tmp_path: Path) -> Path:
    """20 vectors of two classes that one coordinate tells apart, in folders of two names."""
    rng, levels = np.random.default_rng(0), np.arange(20) % 2
    vectors = rng.normal(size=(20, 4)).astype(np.float32)
    vectors[:, 2] = 8 * levels - 4
    names = [str(tmp_path / "clips" / CLASSES[level] / f"{n}.mp4") for n, level in enumerate(levels)]
    np.savez(tmp_path / "features.npz", files=np.array(names), pooled=vectors)
    rows = "".join(
        f"{name},{CLASSES[level]},{'ab'[n // 10]}\n" for n, (name, level) in enumerate(zip(names, levels, strict=True))
    )
    (tmp_path / "labels.csv").write_text(f"path,label,half\n{rows}")
    return tmp_path / "features.npz"


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_features_are_probed_without_a_configuration(ask: Callable, features: Path, head: str) -> None:
    labels = features.with_name("labels.csv")
    words = ["--features", features, "--labels", labels, "--head", head]
    setting = {"linear": "--set=l2=0.5", "knn": "--set=neighbours=3"}
    answer = ask(probe.main, *words, "--val-share=0.4", setting[head])
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("top-1 100.0% ") and answer.out.endswith("on 8 samples of 2 classes, 12 to train on\n")
    answer = ask(probe.main, *words)
    assert "on 4 samples of 2 classes, 16 to train on" in answer.out
    (other,) = setting.keys() - {head}
    answer = ask(probe.main, *words, setting[other])
    assert answer.code == 2 and f"has no meaning with --features and --head {head}, which has " in answer.err
    by_chance = ask(probe.main, *words, "--label-column=half", "--val-share=0.5").out
    assert by_chance.startswith("top-1 ") and not by_chance.startswith("top-1 100.0%")
    by_folder = ask(probe.main, "--features", features, "--label-folder=1", "--head", head, "--val-share=0.4")
    assert by_folder.out.startswith("top-1 100.0% ") and "12 to train on" in by_folder.out


def test_settings_of_heads_arrive(ask: Callable, features: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of l2 by another result; neighbours beyond the nearest weigh too little for that."""
    words = ["--features", features, "--labels", features.with_name("labels.csv"), "--label-column=half", "--val-share=0.5"]
    said = []
    for l2 in (1e-3, 1e6):
        asked: dict[str, Any] = {"labels": features.with_name("labels.csv"), "label_column": "half", "val_share": 0.5}
        result = ove.probe(None, features, **asked, l2=l2, seeds=(5,))
        assert ask(probe.main, *words, f"--set=l2={l2}", "--set=seeds=[5]").out == f"{result}\n"
        said.append(str(result))
    assert said[0] != said[1]
    calls: list[dict[str, Any]] = []
    monkeypatch.setattr(probe, "probe", lambda model, features, val, **settings: calls.append(settings))
    ask(probe.main, *words, "--head=knn", "--set=neighbours=9", "--config.seeds=(7,)")
    assert (calls[0]["neighbours"], calls[0]["seeds"]) == (9, (7,)) and "l2" not in calls[0]


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--features=f.npz"], "--features needs class names; give --labels LIST or --label-folder N"),
        (["--features=f.npz", "--labels=l.csv", "--out=o.json"], "--out and --predictions are written of shards only"),
        (["--features=f.npz", "--label-folder=1"], "f.npz: is no feature file of `ove encode`"),
        (
            ["--features=f.npz", "--label-folder=1", "--set=neighbors=3"],
            "unknown configuration key neighbors; did you mean neigh",
        ),
        (["--config=probe", "--val-share=0.3"], "--val-share goes with --features; name a feature file"),
        ([], "the following arguments are required: --config, or --features"),
    ],
)
def test_options_of_features_that_do_not_fit_are_said(ask: Callable, words: list[str], sentence: str) -> None:
    answer = ask(probe.main, *words)
    assert answer.code == 2 and sentence in answer.err


@pytest.mark.parametrize("head", ["linear", "knn"])
def test_another_feature_file_is_scored(ask: Callable, features: Path, tmp_path: Path, head: str) -> None:
    """Three of four validation files are of the class that the coordinate says, one bears the other name."""
    vectors = np.zeros((4, 4), np.float32)
    vectors[:, 2] = (4, -4, 4, 4)
    names = [str(tmp_path / "val" / f"{n}.mp4") for n in range(4)]
    np.savez(tmp_path / "val.npz", files=np.array(names), pooled=vectors)
    wrong = tmp_path / "val.csv"
    said = [CLASSES[1], CLASSES[0], CLASSES[1], CLASSES[0]]
    wrong.write_text("file,class\n" + "".join(f"{name},{label}\n" for name, label in zip(names, said, strict=True)))
    words = ["--features", features, "--labels", features.with_name("labels.csv"), "--head", head]
    answer = ask(probe.main, *words, "--val-features", tmp_path / "val.npz", "--val-labels", wrong)
    assert (answer.code, answer.err) == (0, "")
    assert answer.out.startswith("top-1 75.0% ") and answer.out.endswith("on 4 samples of 2 classes, 20 to train on\n")
    one = tmp_path / "all.csv"
    rows = features.with_name("labels.csv").read_text().splitlines()[1:]
    rows = [row.rpartition(",")[0] for row in rows] + [f"{n},{label}" for n, label in zip(names, said, strict=True)]
    one.write_text("path,label\n" + "".join(f"{row}\n" for row in rows))
    both = ask(probe.main, "--features", features, "--labels", one, "--head", head, "--val-features", tmp_path / "val.npz")
    assert both.out == answer.out
    wrong.write_text(f"path,label\n{rows[0].partition(',')[0]},elsewhere\n")
    answer = ask(probe.main, *words, "--val-features", tmp_path / "val.npz", "--val-labels", wrong)
    assert answer.code == 2 and f"labels.csv and elsewhere in {wrong}; correct one of them" in answer.err


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (["--labels=l.csv", "--val-labels=v.csv"], "--val-labels goes with --val-features"),
        (["--labels=l.csv", "--val-features=v.npz", "--val-share=0.5"], "--val-share has no meaning with --val-features"),
        (["--label-folder=1", "--val-features=v.npz", "--val-labels=v.csv"], "--val-labels needs --labels"),
    ],
)
def test_options_of_a_second_feature_file_go_together(ask: Callable, words: list[str], sentence: str) -> None:
    answer = ask(probe.main, "--features=f.npz", *words)
    assert answer.code == 2 and sentence in answer.err and answer.err.count("\n") == 1
