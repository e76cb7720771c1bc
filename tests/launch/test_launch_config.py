"""Configuration files and settings on the command line; all that is wrong with them is said in one sentence."""

import argparse
import ast
import errno
from collections.abc import Callable
from pathlib import Path

import pytest

from launch import labels, shards, train
from launch.cli import settings as cli_settings
from launch.cli.command import command_parser, run_command
from ove.config import RunConfig
from ove.config.mapping import from_mapping
from ove.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]
TOY = f"{ROOT}/configs/toy.py"


def parse(*arguments: str) -> RunConfig:
    return cli_settings.parse_with_config(argparse.ArgumentParser(), RunConfig, arguments)[1]


def test_settings_replace_what_the_file_says() -> None:
    config = parse(
        f"--config={TOY}:smoke",
        "--config.train.lr=1",
        "--config.batches.shards=some/folder",
        "--config.encoder.rope=released",
        "--config.encoder.head=False",
        "--config.batches.heads=[{'bank': 'obj', 'batch_size': 4}]",
    )
    assert (config.train.lr, config.batches.shards, config.encoder.rope) == (1.0, "some/folder", "released")
    assert config.encoder.pooling_head is False
    assert [(head.bank, head.batch_size) for head in config.batches.heads] == [("obj", 4)]
    assert config.train.steps == 6  # smoke
    assert parse("--config", TOY).train.steps > 6


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (
            ["--config=nowhere.py"],
            r"nowhere\.py: no such configuration file; give a file, or the name of one .*: labels, .*toy\.",
        ),
        ([f"--config={TOY}:smok"], r"toy\.py:smok cannot be used: .*knows no argument 'smok'"),
        ([f"--config={TOY}", "--config.train.stepz=3"], r"unknown configuration key train\.stepz; did you mean train\.steps\?"),
        ([f"--config={TOY}", "--config.train.steps=many"], r"train\.steps = 'many' is of type str; int is expected"),
        ([f"--config={TOY}", "--config.train.steps=0"], r"train\.steps = 0 must be at least 1"),
        ([f"--config={TOY}", "--config.train.save_every=0"], r"train\.save_every = 0 must be at least 1"),
        ([f"--config={TOY}", "--config.encoder=3"], r"encoder must be a section with keys, not 3"),
        ([f"--config={TOY}", "--config.train.lr.peak=3"], r"train\.lr = .*peak.* is of type dict; float is expected"),
        ([f"--config={TOY}", "--config.encoder.rope=round"], r"encoder\.rope = 'round' is none of 'interleaved', 'released'"),
        ([f"--config={TOY}", "--config.encoder.heads=5"], r"head width that 32 divides"),
        ([f"--config={TOY}", "--config.batches.share_codec=1"], r"share_codec \+ .* = 1\.5; they must sum to 1"),
        ([f"--config={TOY}", "--config.batches.heads=[{'bank': 'obj'}]"], r"lacks batches\.heads\[0\]\.batch_size"),
        (
            [f"--config={TOY}", "--config.batches.heads=[{'bank': 'obj', 'batch_size': 4}, {'bank': 'obj', 'batch_size': 8}]"],
            r"names a bank twice \(obj, obj\)",
        ),
        (
            [f"--config={TOY}", "--config.batches.heads=[{'bank': 'vid', 'batch_size': 0}]"],
            r"heads\[0\]\.batch_size = 0",
        ),
    ],
)
def test_what_is_wrong_is_said(arguments: list[str], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence) as said:
        parse(*arguments)
    assert "\n" not in str(said.value)


@pytest.mark.parametrize(
    ("text", "sentence"),
    [
        ("c = 3", r"defines no get_config\(arg\)"),
        ("def get_config(arg:", r"cannot be loaded: .*line 1"),
        ("import no_such_module_at_all", r"cannot be loaded: No module named"),
        ("def get_config(arg): return {'train': {}}", r"get_config\(''\) returned dict; a ConfigDict is expected"),
    ],
)
def test_a_file_that_is_no_configuration(tmp_path: Path, text: str, sentence: str) -> None:
    (tmp_path / "c.py").write_text(text)
    with pytest.raises(ConfigError, match=sentence):
        parse(f"--config={tmp_path}/c.py")


@pytest.mark.parametrize("option", ["--confg.train.steps=3", "--config.train.steps", "stray"])
def test_an_unknown_argument_is_refused(option: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        parse(f"--config={TOY}", option)
    assert exit_.value.code == 2
    assert f"unknown argument {option}" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("error", "code", "said"),
    [
        (ConfigError("that is wrong."), 2, "error: that is wrong.\n"),
        (PermissionError(errno.EACCES, "Permission denied", "/x"), 2, "error: /x: Permission denied.\n"),
        (OSError(errno.ENOSPC, "No space left on device"), 2, "error: the system: No space left on device.\n"),
        (KeyboardInterrupt(), 130, "interrupted.\n"),
    ],
)
def test_errors_become_a_sentence_and_an_exit_code(
    error: BaseException, code: int, said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    def main() -> None:
        raise error

    with pytest.raises(SystemExit) as exit_:
        run_command(main)
    assert exit_.value.code == code
    assert capsys.readouterr().err == said


def test_errors_of_the_program_itself_keep_their_traceback() -> None:
    def main() -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_command(main)


@pytest.mark.parametrize("spelling", ["--set video.fusion=max", "--set=video.fusion=max", "--config.video.fusion=max"])
def test_settings_are_given_in_either_way_where_a_command_reads_sections(spelling: str) -> None:
    options = shards._parser().parse_args(["--out", "x", *spelling.split()])
    assert cli_settings.read_sections(options, "video") == {"video": {"fusion": "max"}}


@pytest.mark.parametrize("spelling", ["--set train.steps=7", "--set=train.steps=7", "--config.train.steps=7"])
def test_settings_are_given_in_either_way_where_a_command_reads_a_file(spelling: str) -> None:
    _, config = cli_settings.parse_with_config(command_parser("train", ""), RunConfig, ["--config=toy", *spelling.split()])
    assert config.train.steps == 7


def test_all_settings_are_listed(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as exit_:
        cli_settings.parse_with_config(command_parser("train", ""), RunConfig, ["--help-config"])
    lines = capsys.readouterr().out.splitlines()
    assert exit_.value.code == 0
    at = lines.index("batches.selection.rule = 'patches'  (patches|frames|module:name)")
    assert lines[at + 1] == "    `patches`: I-frames and top-K; `frames`: whole frames, evenly spaced, for comparison."


def listed(capsys: pytest.CaptureFixture[str], main: Callable[[list[str]], object], *words: str) -> dict[str, str]:
    """Key → value, type and default, as `--help-config` prints them."""
    with pytest.raises(SystemExit) as exit_:
        main([*words])
    assert exit_.value.code == 0
    lines = [line for line in capsys.readouterr().out.splitlines() if not line.startswith(" ")]
    return dict(line.split(" = ", 1) for line in lines if " = " in line)


def test_settings_are_listed_with_the_values_of_the_file_and_the_command_line(capsys: pytest.CaptureFixture[str]) -> None:
    found = listed(capsys, train.main, "--help-config")
    assert found["train.steps"] == "1000  (int (at least 1))" and found["batches.heads"] == "()  (list of HeadConfig)"
    found = listed(capsys, train.main, "--config=toy:smoke", "--help-config", "--set", "train.lr=0.5", "--config.mesh.fsdp=2")
    assert found["train.steps"] == "6  (int (at least 1); default 1000)"
    assert found["train.lr"] == "0.5  (float (at least 0); default 0.001)"
    assert found["mesh.fsdp"] == "2  (int (at least 1); default 1)"
    assert found["train.b1"] == "0.9  (float)"
    assert found["batches.heads"].startswith(
        "[{'bank': 'vid', 'batch_size': 16, 'negatives': 0.5, 'labels_per_step': 2}, {'bank': 'obj', "
    )
    config = cli_settings.parse_with_config(command_parser("train", ""), RunConfig, ["--config=toy:smoke"])[1]
    heads = listed(capsys, train.main, "--help-config", "--config=toy:smoke")["batches.heads"].rpartition("  (")[0]
    assert from_mapping(RunConfig, {"batches": {"heads": ast.literal_eval(heads.partition("  (")[0])}}).batches.heads == (
        config.batches.heads
    )


def test_sections_are_listed_with_the_options_that_set_them(capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--help-config", "--size", "112", "--set", "shards.jpeg_quality=80", "--config.video.preset=probe"]
    found = listed(capsys, shards.main, *words)
    assert found["video.size_px"] == "112  (int (at least 1); default 224)"
    assert found["shards.jpeg_quality"] == "80  (int (within 1…100); default 92)"
    assert found["video.selection.static_fallback"] == "True  (bool; default False)"
    assert listed(capsys, labels.main, "--config=labels:vid", "--help-config")["labels.n_centers"].startswith("400000  (")
    assert listed(capsys, labels.main, "ocr", "--help-config", "--workers=7")["engines.workers"].startswith("7  (")


@pytest.mark.parametrize(
    ("setting", "hint"),
    [
        ("train.stepz=3", "key train.stepz; did you mean train.steps?"),
        ("stepz=3", "key stepz; did you mean train.steps?"),
        ("trian.steps=3", "key trian.steps; did you mean train.steps?"),
        (
            "train.budget_tokens=3",
            "key train.budget_tokens; did you mean batches.budget_tokens or batches.heads[i].budget_tokens?",
        ),
        ("encoder.lr=3", "key encoder.lr; did you mean train.lr?"),
        ("batches.gop=3", "key batches.gop; did you mean batches.selection.gop_frames?"),
        ("train.acumulate=3", "key train.acumulate; did you mean train.grad_accum_steps?"),
        (
            "batches.heads=[{'bank': 'vid', 'batch_size': 1}, {'bank': 'obj', 'batchsize': 1}]",
            "key batches.heads[1].batchsize; did you mean batches.heads[1].batch_size?",
        ),
        ("mesh.zzz=3", "key mesh.zzz; known keys: data, fsdp, bank."),
        ("zzz.qqq=3", "key zzz.qqq; known keys: batches, encoder, centers, train, evaluation, mesh."),
    ],
)
def test_a_misspelt_key_suggests_the_nearest_of_the_whole_configuration(setting: str, hint: str) -> None:
    with pytest.raises(ConfigError) as said:
        parse("--config=toy", f"--config.{setting}")
    assert str(said.value) == f"unknown configuration {hint}"
