"""Configuration files and settings on the command line; all that is wrong with them is said in one sentence."""

import argparse
import errno
from pathlib import Path

import pytest

from launch import shards
from launch.cli import settings as cli_settings
from launch.cli.command import command_parser, run_command
from ove.config import RunConfig
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
