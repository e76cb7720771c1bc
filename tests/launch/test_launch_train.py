"""The training command, asked for what it cannot do: one sentence and exit code 2, before anything is changed."""

import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import write_set
from tiny_run import config_of

from launch import bench_data, train
from ove.config.mapping import to_mapping

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def config(shard_folder: Path, tmp_path: Path) -> Path:
    """A configuration file of the run that `trained_run` is of."""
    path = tmp_path / "tiny.py"
    values = repr(to_mapping(config_of(shard_folder)))
    path.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n    return ConfigDict({values})\n")
    return path


@pytest.fixture
def run(trained_run: Path, tmp_path: Path) -> Path:
    """A copy of a finished run."""
    return shutil.copytree(trained_run, tmp_path / "run")


def contents(folder: Path) -> dict[str, bytes]:
    """All files but the lock, which names the process that held the folder last."""
    files = (path for path in folder.rglob("*") if path.is_file() and path.name != ".lock")
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


CASES: list[tuple[list[str], str]] = [
    (["--config.encoder.layers=3"], "was trained with another configuration (encoder.layers 2 → 3); use that one or another"),
    (["--config.encoder.width=128", "--config.encoder.mlp=256"], "(encoder.mlp 128 → 256, encoder.width 64 → 128)"),
    (["--config.centers.loss=raw"], "(centers.loss 'sigmoid' → 'raw')"),
    (["--config.batches.seed=5"], "(batches.seed 0 → 5)"),
    (["--config.train.stepz=5"], "unknown configuration key train.stepz; did you mean train.steps?"),
    (["--config.batches.shards=/no/such"], "/no/such: no such shard folder; write one with `ove shards"),
    (["--config.batches.budget_tokens=18"], "budget_tokens = 18 is not 1 to 8 times the 4 patches of a frame"),
    (["--config.encoder.head=False"], "encoder.pooling_head is False; training needs the pooling head"),
    (["--config.batches.heads=[]"], "batches.heads is empty; name at least one bank"),
    (
        ["--config.batches.heads=[{'bank': 'vid', 'batch_size': 12}]"],
        "batch_size 12 of head vid cannot be split over 8 devices",
    ),
]


@pytest.mark.parametrize(("options", "sentence"), CASES, ids=[case[0][0].removeprefix("--config.") for case in CASES])
def test_what_does_not_fit_is_said(ask: Callable, config: Path, run: Path, options: list[str], sentence: str) -> None:
    before = contents(run)
    answer = ask(train.main, f"--config={config}", f"--workdir={run}", *options)
    assert answer.code == 2
    assert sentence in answer.err
    assert answer.err.startswith("error: ") and answer.err.count("\n") == 1
    assert contents(run) == before


def test_missing_labels_say_what_to_run(ask: Callable, config: Path, tmp_path: Path) -> None:
    shards = write_set(tmp_path / "shards")
    (shards / "labels" / "obj.json").unlink()
    answer = ask(train.main, f"--config={config}", f"--workdir={tmp_path}/new", f"--config.batches.shards={shards}")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"no labels of the bank obj; run `ove labels --shards {shards}`" in answer.err
    assert not (tmp_path / "new").exists()


def test_other_data_are_refused_the_same_data_elsewhere_are_not(
    ask: Callable, config: Path, run: Path, shard_folder: Path, tmp_path: Path
) -> None:
    fewer = write_set(tmp_path / "fewer", 16)
    answer = ask(train.main, f"--config={config}", f"--workdir={run}", f"--config.batches.shards={fewer}")
    assert answer.code == 2 and answer.err.count("\n") == 1
    assert f"was trained on other records or labels than {fewer} holds now (heads.obj.sources[0].labels: " in answer.err
    assert "heads.vid.sources[0].shards: " in answer.err
    moved = shutil.copytree(shard_folder, tmp_path / "moved")
    answer = ask(train.main, f"--config={config}", f"--workdir={run}", f"--config.batches.shards={moved}")
    assert answer.code == 0
    assert "resumed from step 14" in answer.out and "nothing to do: train.steps = 14, and 14 are done." in answer.out


def test_a_damaged_checkpoint_is_named_and_the_one_before_is_taken(ask: Callable, config: Path, run: Path) -> None:
    files = [path for path in (run / "checkpoints" / "14").rglob("*") if path.is_file()]
    largest = max(files, key=lambda path: path.stat().st_size)
    data = bytearray(largest.read_bytes())
    data[len(data) // 2] ^= 1
    largest.write_bytes(data)
    answer = ask(train.main, f"--config={config}", f"--workdir={run}", "--config.train.steps=7")
    assert answer.code == 0
    assert "checkpoints/14: cannot be read (1 of its arrays are not what was saved: " in answer.out
    assert "/kernel)" in answer.out and "resumed from step 7" in answer.out
    assert (run / "checkpoints_damaged" / "14").is_dir()


def test_a_file_as_workdir_is_refused(ask: Callable, config: Path) -> None:
    answer = ask(train.main, f"--config={config}", f"--workdir={config}")
    assert answer.code == 2 and f"{config}: is a file, and a folder is needed" in answer.err


def from_the_shell(config: Path, workdir: Path, *options: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launch.train", f"--config={config}", f"--workdir={workdir}", *options]
    environment = os.environ | {"XLA_FLAGS": ""}
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=800)


def test_from_the_shell(config: Path, tmp_path: Path) -> None:
    done = from_the_shell(config, tmp_path / "new", "--config.batches.shards=/no/such")
    assert done.returncode == 2
    assert done.stderr.startswith("error: /no/such: no such shard folder") and done.stderr.count("\n") == 1
    assert done.stdout == f"config {config}; shards /no/such; weights random\n"


@pytest.mark.parametrize("folder", ["ocdbt.process_0/d", "d"], ids=["arrays", "index"])
def test_files_that_are_cut_off_are_refused_quietly(config: Path, run: Path, folder: str) -> None:
    """From the shell, for orbax leaves tasks behind over lost files that complain when a process ends."""
    for step in ("7", "14"):
        path = max((run / "checkpoints" / step / "state" / folder).iterdir(), key=lambda path: path.stat().st_size)
        path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    done = from_the_shell(config, run)
    assert done.returncode == 2
    assert "checkpoints/7: cannot be read (" in done.stderr and done.stderr.count("\n") == 1
    assert "No other checkpoint is left" in done.stderr and done.stdout.count("DAMAGED CHECKPOINT: ") == 2


def test_a_folder_that_no_head_reads_is_refused(ask: Callable, config: Path, shard_folder: Path, tmp_path: Path) -> None:
    heads = [{"bank": bank, "batch_size": 8, "shards": [str(shard_folder)]} for bank in ("vid", "obj")]
    words = [f"--config={config}", f"--config.batches.heads={heads}"]
    for main, more in ((train.main, [f"--workdir={tmp_path}/new"]), (bench_data.main, [])):
        answer = ask(main, *words, *more, "--config.batches.shards=/my/shards")
        assert answer.code == 2 and answer.err.count("\n") == 1
        assert "batches.shards = '/my/shards' is not read: every head names shards of its own (vid: " in answer.err
    assert not (tmp_path / "new").exists()
    del heads[1]["shards"]
    answer = ask(bench_data.main, f"--config={config}", f"--config.batches.heads={heads}", "--steps=1", "--samples=1")
    assert answer.code == 0, answer.err


def test_inputs_are_said_at_the_start(ask: Callable, config: Path, shard_folder: Path, tmp_path: Path) -> None:
    answer = ask(bench_data.main, f"--config={config}", "--steps=1", "--samples=1")
    assert answer.out.splitlines()[0] == f"config {config}; shards {shard_folder}; weights random"
    heads = "[{'bank': 'vid', 'batch_size': 8, 'shards': ['/a', '/b']}, {'bank': 'obj', 'batch_size': 8}]"
    more = ["--config.train.eval_every=5", "--config.evaluation.train_shards=['/c', '/d']", "--config.evaluation.val_shards=/e"]
    words = ["--config=toy:smoke", f"--config.batches.heads={heads}", "--config.train.init_from=runs/a", *more]
    answer = ask(train.main, *words, f"--workdir={tmp_path}/new")
    assert answer.code == 2, "there are no such shards"
    assert answer.out.splitlines()[0] == (
        "config toy:smoke; shards /a, /b, runs/quickstart/shards/train, /c, /d, /e; weights runs/a"
    )
