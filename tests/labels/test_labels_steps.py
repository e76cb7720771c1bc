"""The steps of ove labels one at a time, shared out, with changed settings, on damaged records, and with wrong inputs."""

import itertools
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from synthetic import BUDGET, GOP, image_record_of, record_of, write_image_set, write_set

from launch import labels as command
from ove.config import BatchesConfig, EncoderConfig, HeadConfig, RunConfig, SelectionConfig, TrainConfig
from ove.errors import BadCheckpoint, BadShard, ConfigError
from ove.shards.labels import read_centers, read_labels, write_labels
from ove.shards.schema import ImageRecord
from ove.shards.shard_set import ShardSet
from ove.sources.folders import InputFile
from ove.stream.batch_pipeline import Pipeline
from ove.train.loop import train

Write = Callable[[Path, int], None]
Capture = pytest.CaptureFixture[str]
NEAR = ["--set", "labels.duplicates=near", "--set", "labels.threshold=0.9999"]


def _run(folder: Path, *more: object, task: str = "all") -> None:
    assert command.main([task, "--shards", str(folder), "--centers", "4", "--labels", "2", *map(str, more)]) == 0


def _written(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in (folder / "labels").iterdir() if path.is_file()}


def _dates(folder: Path, pattern: str) -> list[int]:
    return [path.stat().st_mtime_ns for path in sorted((folder / "labels").glob(pattern))]


def test_steps_one_at_a_time_and_embeddings_in_parts_give_what_all_gives(write_kinds: Write, tmp_path: Path) -> None:
    whole, steps = tmp_path / "whole", tmp_path / "steps"
    write_kinds(whole, 24)
    shutil.copytree(whole, steps)
    settings = ["--bank", "obj", *NEAR, "--set", "labels.chunk_records=5"]
    _run(whole, *settings)
    for part in ("1/2", "0/2"):
        _run(steps, *settings, "--part", part, task="embed")
    for task in ("dedup", "kmeans", "assign"):
        _run(steps, *settings, task=task)
    assert _written(steps) == _written(whole) and len(_written(whole)) == 3
    _run(steps, *settings, task="assign")  # again
    assert _written(steps) == _written(whole)


@pytest.fixture(scope="module")
def labelled(write_kinds: Write, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """24 clips with all that the command makes of the bank obj."""
    folder = tmp_path_factory.mktemp("labelled")
    write_kinds(folder, 24)
    _run(folder, "--bank", "obj", *NEAR)
    return folder


def test_what_was_made_with_other_settings_is_not_used(write_kinds: Write, tmp_path: Path, capsys: Capture) -> None:
    write_kinds(tmp_path, 24)
    one = ["--bank", "obj"]
    for task in ("embed", "kmeans", "assign"):
        _run(tmp_path, *one, task=task)
    before, embedded = read_labels(tmp_path, "obj"), _dates(tmp_path, "steps/obj/chunk*")
    with pytest.raises(BadShard, match="no centers made with these settings; run the task kmeans first"):
        _run(tmp_path, *one, "--centers", 3, "--replace", task="assign")
    with pytest.raises(BadShard, match="duplicates have not been looked for with these settings; run the task dedup first"):
        _run(tmp_path, *one, *NEAR, "--replace", task="kmeans")
    for task in ("dedup", "kmeans", "assign"):
        with pytest.raises(BadShard, match=r"holds embeddings made with .*; run `ove labels embed"):
            _run(tmp_path, *one, *NEAR, "--set", "labels.store=float16", "--replace", task=task)
    _run(tmp_path, *one, "--centers", 3, "--replace")
    after = read_labels(tmp_path, "obj")
    assert (before.n_centers, after.n_centers) == (4, 3) and _dates(tmp_path, "steps/obj/chunk*") == embedded
    _run(tmp_path, *one, "--centers", 3, "--labels", 3, "--replace")  # the same centers
    assert read_labels(tmp_path, "obj").info["centers"] == after.info["centers"]
    _run(tmp_path, *one, "--set", "labels.store=float16", "--replace")
    assert _dates(tmp_path, "steps/obj/chunk*") != embedded
    capsys.readouterr()
    _run(tmp_path, *one, "--set", "labels.store=float16", "--set", "labels.threads=1")
    assert "has these labels already" in capsys.readouterr().out


def _all(folder: Path) -> dict[str, bytes]:
    files = (path for path in (folder / "labels").rglob("*") if path.is_file())
    return {str(path): path.read_bytes() for path in files}


@pytest.mark.parametrize(
    ("task", "settings", "sentence"),
    [
        (
            "kmeans",
            ["--centers", 3],
            r"centers\.json: was made with labels\.n_centers = 4, not 3; .* another --work, or give --rep",
        ),
        ("kmeans", ["--iterations", 3], r"centers\.json: was made with labels\.iterations = 20, not 3"),
        ("dedup", ["--set", "labels.threshold=0.5"], r"duplicates\.json: was made with labels\.threshold = 0\.9999, not 0\.5"),
        (
            "embed",
            ["--set", "labels.store=float16"],
            r"embeddings\.json: was made with labels\.store = 'float32', not 'float16'",
        ),
        (
            "assign",
            ["--labels", 3],
            r"labels/obj\.json: was made with labels\.n_labels = 2, not 3; .* destroy it: give --replace",
        ),
        ("all", ["--labels", 3], r"labels/obj\.json: was made with labels\.n_labels = 2, not 3"),
        ("all", ["--centers", 3], r"centers\.json: was made with labels\.n_centers = 4, not 3"),
    ],
)
def test_finished_results_of_other_settings_are_destroyed_only_if_asked_for(
    labelled: Path, tmp_path: Path, task: str, settings: list[object], sentence: str
) -> None:
    folder = tmp_path / "set"
    shutil.copytree(labelled, folder)
    before = _all(folder)
    with pytest.raises(ConfigError, match=sentence):
        _run(folder, "--bank", "obj", *NEAR, *settings, task=task)
    assert _all(folder) == before
    _run(folder, "--bank", "obj", *NEAR, *settings, "--replace", task=task)
    assert _all(folder) != before
    _run(folder, "--bank", "obj", *NEAR, *settings, task=task)  # they are its own settings now


def test_labels_that_the_command_has_not_made_are_kept(labelled: Path, tmp_path: Path) -> None:
    shutil.copytree(labelled, tmp_path / "set")
    write_labels(tmp_path / "set", "obj", np.zeros((24, 1), np.int32), np.ones((1, 2), np.float32), {"by": "hand"})
    with pytest.raises(ConfigError, match=r"labels/obj\.json: was made with labels\.teacher.* = None, not"):
        _run(tmp_path / "set", "--bank", "obj", *NEAR)
    assert read_labels(tmp_path / "set", "obj").info["by"] == "hand"


def test_results_of_other_records_do_not_bar_the_way(write_kinds: Write, labelled: Path, tmp_path: Path) -> None:
    write_kinds(tmp_path / "set", 30)
    shutil.copytree(labelled / "labels", tmp_path / "set" / "labels")
    _run(tmp_path / "set", "--bank", "obj", "--centers", 3)
    assert read_labels(tmp_path / "set", "obj").n_centers == 3


def test_labels_from_before_a_setting_count_as_made_with_its_default(labelled: Path, tmp_path: Path, capsys: Capture) -> None:
    shutil.copytree(labelled, tmp_path / "set")
    path = tmp_path / "set" / "labels" / "obj.json"
    about = json.loads(path.read_text())
    del about["made_with"]["start"]
    path.write_text(json.dumps(about))
    _run(tmp_path / "set", "--bank", "obj", *NEAR)
    assert "has these labels already" in capsys.readouterr().out


def test_centers_of_another_teacher_are_not_taken_over(write_kinds: Write, tmp_path: Path) -> None:
    write_kinds(tmp_path / "train", 24)
    write_kinds(tmp_path / "val", 9)
    _run(tmp_path / "train", "--bank", "obj")
    found = read_labels(tmp_path / "train", "obj")
    about = {"made_with": {"teacher": {"teacher": "clip", "weights": "12"}}}
    write_labels(tmp_path / "train", "obj", np.array(found.labels), np.array(read_centers(tmp_path / "train", "obj")), about)
    with pytest.raises(BadShard, match="its obj centers are of another teacher"):
        command.main(["--shards", str(tmp_path / "val"), "--bank", "obj", "--from", str(tmp_path / "train"), "--labels", "1"])


def test_pictures_have_the_bank_obj(tmp_path: Path) -> None:
    def make(file: InputFile) -> ImageRecord:
        record = image_record_of(file)
        return ImageRecord(record.key, record.image, record.height_px, record.width_px, None, {})

    _run(write_image_set(tmp_path / "set", 24, make), "--set", "labels.duplicates=exact")
    found = read_labels(tmp_path / "set", "obj")
    assert found.labels.shape == (24, 2) and (found.labels >= 0).all()
    page = (tmp_path / "set" / "labels" / "steps" / "obj" / "duplicates.html").read_text()
    assert "0 of 24 samples show what others show" in page
    with pytest.raises(ConfigError, match=r"--bank vid: .* holds images: give obj"):
        _run(tmp_path / "set", "--bank", "vid")


@pytest.fixture(scope="module")
def damaged(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """40 clips, of which 2 are damaged and 2 show the same; labelled."""

    def make(file: InputFile) -> object:
        return record_of(InputFile(file.path, "0017" if file.key == "0030" else file.key, None))

    folder = write_set(tmp_path_factory.mktemp("labels") / "set", 40, make)
    shutil.rmtree(folder / "labels")
    shards = ShardSet.open(folder)
    for number in (3, 20):
        path = folder / shards.manifest.shards[number // 8].file
        data = bytearray(path.read_bytes())
        frame = shards.video(number).frames[4]
        data[data.index(frame) + len(frame) // 2] ^= 1
        path.write_bytes(data)
    _run(folder, "--set", "labels.duplicates=exact")
    return folder


def test_bad_records_and_duplicates_have_no_label_and_are_counted(damaged: Path, capsys: Capture) -> None:
    for bank in ("vid", "obj"):
        found = read_labels(damaged, bank)
        assert np.flatnonzero((found.labels < 0).all(1)).tolist() == [3, 20, 30]
        assert ((found.labels >= 0).all(1) | (found.labels < 0).all(1)).all() and found.info["unreadable"] == 2
    _run(damaged, "--set", "labels.duplicates=exact", task="assign")
    assert "3 records have none (2 cannot be read)" in capsys.readouterr().out
    dropped = [json.loads(line) for line in (damaged / "labels/steps/vid/dropped.jsonl").read_text().splitlines()]
    assert [(line["record"], line["kept"]) for line in dropped] == [(30, "0017")]


def _batches(folder: Path) -> BatchesConfig:
    heads = tuple(HeadConfig(bank, 8, negatives=0.5, labels_per_step=2) for bank in ("vid", "obj"))
    return BatchesConfig(shards=str(folder), budget_tokens=BUDGET, selection=SelectionConfig(gop_frames=GOP), heads=heads)


def test_records_without_labels_are_never_drawn(damaged: Path) -> None:
    pipeline = Pipeline(_batches(damaged))
    drawn = [batch["vid"] for batch in itertools.islice(pipeline, 10)]
    pipeline.close()
    records = np.concatenate([batch.record for batch in drawn])
    assert sorted(set(records.tolist())) == sorted(set(range(40)) - {3, 20, 30})
    assert not any(batch.replaced.any() for batch in drawn) and all((batch.labels >= 0).all() for batch in drawn)
    assert pipeline.progress.replaced == 0


@pytest.mark.slow
def test_a_set_with_records_without_labels_trains(damaged: Path, tmp_path: Path) -> None:
    config = RunConfig(
        _batches(damaged),
        EncoderConfig(layers=1, width=64, heads=2, mlp=64),
        train=TrainConfig(steps=6, warmup_steps=1, log_every=1, save_every=6),
    )
    lines: list[str] = []
    train(config, tmp_path / "run", lines.append)
    assert any("6" in line for line in lines) and (tmp_path / "run").is_dir()


@pytest.mark.parametrize(
    ("arguments", "error", "sentence"),
    [
        (["--part", "0/2"], ConfigError, r"--part shares out the tasks embed and assign, not all; name one"),
        (["dedup"], ConfigError, r"labels\.duplicates = 'keep': nothing to do; give --set labels\.duplicates=near"),
        (["kmeans"], BadShard, r"holds no embeddings of the bank vid; run `ove labels embed --shards"),
        (["kmeans", "--from", "other"], ConfigError, "nothing to do for kmeans"),
        (["--from", "other"], BadShard, "other"),
        (["--config", "configs/none.py"], ConfigError, "no such configuration file"),
        (["--set", "labels.thread=3"], ConfigError, r"did you mean labels\.threads\?"),
        (["--set", "labels.teacher=clip"], ConfigError, "need a folder of weights"),
        (["--set", "labels.teacher=clip", "--set", "labels.weights=nowhere"], BadCheckpoint, "nowhere"),
        (["--set", "labels.teacher=ove", "--set", "labels.weights=nowhere"], BadCheckpoint, "nowhere"),
        (["--shards", "s3://bucket/set"], BadShard, "is remote, and labels are written beside the shards"),
        (["--set", "labels.max_bad_share=2"], ConfigError, "within 0…1"),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, list) else "",
)
def test_wrong_inputs_are_told_in_a_sentence(
    write_kinds: Write, tmp_path: Path, arguments: list[str], error: type[Exception], sentence: str
) -> None:
    write_kinds(tmp_path, 9)
    with pytest.raises(error, match=sentence) as raised:
        command.main(
            ["--shards", str(tmp_path), *arguments, "--labels", "2", *(["--centers", "3"] if "--from" not in arguments else [])]
        )
    assert "\n" not in str(raised.value)
