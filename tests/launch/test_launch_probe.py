"""The probe command on the smallest run: table, JSON, and sentences for what is missing."""

import json
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import BUDGET, CLASSES, GOP, RECORDS, write_set

from launch import probe


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
