"""The command of the studies on the smallest run: files, report, what is kept, and sentences for what is missing."""

import csv
from collections.abc import Callable
from pathlib import Path

import pytest
from synthetic import BUDGET, GOP, RECORDS

from launch import shards, study
from ove.config import ProbeConfig, StudyConfig
from ove.config.probe import parse_option
from ove.errors import ConfigError
from ove.shards.shard_set import ShardSet
from ove.studies import probes
from ove.studies.sets import Bench
from ove.toy import write_video


@pytest.fixture(scope="module")
def arguments(trained_run: Path, shard_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    config = tmp_path_factory.mktemp("study") / "study.py"
    probe = {"weights": str(trained_run), "train_shards": str(shard_folder), "val_shards": str(shard_folder)}
    probe |= {"budgets": [8, BUDGET], "gop_frames": GOP, "epochs": 1, "batch_size": 8, "lr": 3e-3, "seeds": [0, 1]}
    values = {"probe": probe, "budget_tokens": BUDGET, "maps": ["", "iframe_policy=score"]}
    config.write_text(f"from ml_collections import ConfigDict\n\n\ndef get_config(arg):\n    return ConfigDict({values})\n")
    return [f"--config={config}"]


def rows(path: Path) -> list[dict[str, str]]:
    return list(csv.DictReader(path.read_text().splitlines()))


@pytest.mark.slow
def test_studies_are_written_and_kept(ask: Callable, arguments: list[str], tmp_path: Path) -> None:
    out = tmp_path / "deep" / "studies"
    for name in ("budget", "bias", "allocation"):
        answer = ask(study.main, name, *arguments, f"--out={out}")
        assert answer.code == 0 and answer.err == "", answer.err
        assert (out / f"{name}.md").read_text().splitlines()[-1] in answer.out
    found = rows(out / "budget.csv")
    assert [(row["input"], row["tokens"]) for row in found] == [(m, str(b)) for m in ("codec", "frames") for b in (8, BUDGET)]
    assert {row["scored"] for row in found} == {str(RECORDS)} and {row["of all patches"] for row in found} == {"0.25", "0.5"}
    assert [row["choice"] for row in rows(out / "bias.csv")] == ["as configured", "iframe policy: score"]
    last = rows(out / "allocation.csv")[-1]
    assert last["input"] == "frames, uniform" and float(last["frames seen"]) == BUDGET / 4
    page = (out / "report.html").read_text()
    assert [page.count(f'<section id="{name}">') for name in study.STUDIES] == [1, 0, 0, 1, 1, 0]

    before = {path: path.read_bytes() for path in out.iterdir() if path.is_file()}
    answer = ask(study.main, "budget", *arguments, f"--out={out}")
    assert answer.out.count("cached") == 4
    assert {path: path.read_bytes() for path in out.iterdir() if path.is_file()} == before


@pytest.mark.slow
def test_all_studies_at_once(ask: Callable, arguments: list[str], tmp_path: Path) -> None:
    answer = ask(study.main, "all", *arguments, f"--out={tmp_path}", "--config.options=('iframe_policy=score',)")
    assert answer.code == 0
    page = (tmp_path / "report.html").read_text()
    assert all(f'<section id="{name}">' in page for name in study.STUDIES)
    assert [row["option"] for row in rows(tmp_path / "ablation.csv")] == ["as configured", "iframe policy: score"]
    assert len({row["content of the chosen patches"] for row in rows(tmp_path / "interventions.csv")}) == 4
    retrieval = rows(tmp_path / "retrieval.csv")
    assert len(retrieval) == 4 and {row["queries"] for row in retrieval} == {str(2 * RECORDS)}


def test_an_option_that_changes_the_signals_writes_shards_once(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for index in range(2):
        write_video(tmp_path / "videos", 7, index)
    words = ["--size", "28", "--frames", "8", "--set", "shards.workers=0", "--set", "shards.jpeg_quality=80"]
    shards.main(["--videos", str(tmp_path / "videos"), "--out", str(tmp_path / "base"), *words])
    config = StudyConfig(ProbeConfig(train_shards=str(tmp_path / "base"), val_shards=str(tmp_path / "base")), 16)
    bench = Bench(config, tmp_path / "out", print)
    with pytest.raises(ConfigError, match="name the videos of the probe's in val_videos"):
        bench.choices("sampling=consecutive")
    assert bench.with_option("buckets=2, percentile_scope=frame").selection.buckets == 2  # frame is what it is already
    bench = Bench(StudyConfig(config.probe, 16, val_videos=str(tmp_path / "videos")), tmp_path / "out", print)
    found, view = bench.choices("sampling=consecutive, iframe_policy=first")
    base, made = ShardSet.open(tmp_path / "base"), found.manifest.made_with
    assert view.selection.iframe_policy == "first" and made["video"] == base.manifest.made_with["video"] | {
        "sampling": "consecutive"
    }
    assert made["shards"] == base.manifest.made_with["shards"] and found.grid_tyx == (8, 2, 2) and len(found) == 2
    assert found.fingerprint != base.fingerprint and found.classes == base.classes
    again, _ = bench.choices("sampling=consecutive")  # the choice changes no byte of the shards
    assert again.folder == found.folder and "2 files were done already" in capsys.readouterr().out


def test_folders_that_are_joined_must_be_written_alike(tmp_path: Path) -> None:
    quality = {"a": "80", "b": "80", "c": "81"}
    for index, name in enumerate(quality):
        write_video(tmp_path / "videos" / name, 7, index)
        words = ["--size", "28", "--frames", "8", "--set", "shards.workers=0", "--set", f"shards.jpeg_quality={quality[name]}"]
        shards.main(["--videos", str(tmp_path / "videos" / name), "--out", str(tmp_path / name), *words])
    a, b, c = (str(tmp_path / name) for name in quality)

    def bench(*val: str) -> Bench:
        return Bench(StudyConfig(ProbeConfig(val_shards=val), 16, val_videos=str(tmp_path / "videos")), tmp_path, print)

    assert len(bench(a, b).choices("")[0]) == 2
    found, _ = bench(a, b).choices("sampling=consecutive")
    assert len(found) == 3 and found.grid_tyx == (8, 2, 2)  # of all videos of val_videos
    with pytest.raises(ConfigError, match=f"{a} and {c} were written with other settings"):
        bench(a, b, c).choices("sampling=consecutive")


@pytest.mark.parametrize(
    ("option", "sentence"),
    [
        ("--config.probe.weights=/no/such", "/no/such: no such weights"),
        ("--config.probe.val_shards=/no/such", "/no/such: no such shard folder"),
        ("--config.options=('compensation',)", "the option 'compensation' is not of the form KEY=VALUE"),
        ("--config.maps=('size_px=448',)", "size_px cannot be an option, for it makes other clips"),
        ("--config.budget_policy=all", "budget_policy = 'all' is none of 'keep', 'first', 'score', 'drop'"),
        ("--config.budget_tokens=0", "budget_tokens = 0 must be at least 1"),
        ("--config.buget_tokens=1", "unknown configuration key buget_tokens; did you mean budget_tokens?"),
    ],
)
def test_what_is_missing_is_said(ask: Callable, arguments: list[str], tmp_path: Path, option: str, sentence: str) -> None:
    answer = ask(study.main, "budget", *arguments, option, f"--out={tmp_path}")
    assert answer.code == 2 and sentence in answer.err and answer.err.count("\n") == 1


def test_shards_that_do_not_tell_their_settings_take_no_option(ask: Callable, arguments: list[str], tmp_path: Path) -> None:
    answer = ask(study.main, "bias", *arguments, "--config.maps=('sampling=pool',)", f"--out={tmp_path}")
    assert answer.code == 2 and "does not tell how it was made, so no option can be tried" in answer.err


def test_equal_scores_are_called_equal() -> None:
    assert probes._order({"intact": 0.5, "half": 0.25, "other": 0.5, "shuffled": 0.25}) == "intact = other > half = shuffled"


def test_options_are_read_as_the_video_section_has_them() -> None:
    assert parse_option(" fusion=max, w_motion=0.5 ,static_fallback=True") == {
        "fusion": "max",
        "w_motion": 0.5,
        "selection": {"static_fallback": True},
    }
    assert parse_option("") == {}
