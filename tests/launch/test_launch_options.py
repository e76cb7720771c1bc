"""Options of all commands: each is explained, and a number out of its range is one sentence."""

import argparse
import importlib
from collections.abc import Callable, Iterator

import pytest

from launch.__main__ import GROUPS
from launch.cli.command import CommandParser
from launch.cli.numbers import number, number_of, share_or_count
from ove.config import ShardsConfig, VideoConfig

COMMANDS = [*(name for group in GROUPS.values() for name in group), "labels ocr"]
ZERO = {
    "toy": {"--train", "--probe", "--val", "--seed"},
    "quickstart": {"--seed"},
    "extract": {"--workers"},
    "shards": {"--max-side", "--workers", "--label-folder", "--crf"},
    "verify": {"--workers"},
    "show": {"--index"},
    "labels": {"--iterations", "--seed", "--process-id"},
    "labels ocr": {"--workers"},
    "centers export": {"--step"},
    "centers report": {"--step", "--ids"},
    "train": {"--process-id"},
    "encode": {"--min-tokens", "--hidden", "--workers", "--threads"},
    "compile": {"--top"},
    "convert": {"--step"},
    "probe": {"--process-id", "--workers"},
}
"""Options that take 0."""


class Made(Exception):
    """A parser that has all its options."""


def parsers(command: str) -> Iterator[tuple[str, list[str], argparse.ArgumentParser]]:
    """(name, words before its options, parser) of a command and its subcommands, as the command makes them."""
    name, *words = command.split()
    main = importlib.import_module(f"launch.{name}").main

    def parse(parser: argparse.ArgumentParser, args: object = None, namespace: object = None) -> None:
        raise Made(parser)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(CommandParser, "parse_known_args", parse)
        with pytest.raises(Made) as made:
            main(words)
    (parser,) = made.value.args
    yield command, words, parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            yield from ((f"{command} {sub}", [sub], inner) for sub, inner in action.choices.items())


def is_number(action: argparse.Action) -> bool:
    if not callable(action.type):
        return False
    for text in ("1", "0.5"):
        try:
            if isinstance(action.type(text), (int, float)):
                return True
        except (ValueError, argparse.ArgumentTypeError):
            continue
    return False


@pytest.mark.parametrize("command", COMMANDS)
def test_every_option_is_explained(command: str) -> None:
    for name, _, parser in parsers(command):
        bare = [action.option_strings or action.dest for action in parser._actions if not (action.help or "").strip()]
        assert not bare, f"{name}: {bare}"


@pytest.mark.parametrize("command", COMMANDS)
def test_a_number_out_of_range_is_one_sentence(command: str, ask: Callable) -> None:
    main = importlib.import_module(f"launch.{command.split()[0]}").main
    for name, words, parser in parsers(command):
        zero = ZERO.get(name, set())
        numbers = [action.option_strings[0] for action in parser._actions if is_number(action)]
        assert zero <= set(numbers), name
        for option in numbers:
            for wrong in ["-1", "many"] if option in zero else ["-1", "many", "0"]:
                answer = ask(main, *words, option, wrong)
                assert (answer.code, answer.out, answer.err.count("\n")) == (2, "", 1), (name, option, wrong, answer)
                assert answer.err.startswith("error: ") and option in answer.err and wrong in answer.err
        for option in zero:
            assert f"{option} 0 must" not in ask(main, *words, option, "0", "--no-such-option").err


def test_there_are_as_many_numbers_as_expected() -> None:
    found = [action for command in COMMANDS for *_, parser in parsers(command) for action in parser._actions]
    assert sum(map(is_number, found)) > 50


@pytest.mark.parametrize(
    ("parse", "text", "sentence"),
    [
        (number(1), "0", "0 must be a whole number, at least 1"),
        (number(0, 9), "10", "10 must be a whole number, within 0…9"),
        (number(0, 1, above=True, of=float), "0", "0 must be above 0 and at most 1"),
        (number(0, of=float), "nan", "nan must be at least 0"),
        (number_of(VideoConfig, "selection.gop_frames"), "0", "0 must be a whole number, at least 1"),
        (number_of(ShardsConfig, "h264_crf"), "52", "52 must be a whole number, within 0…51"),
        (number_of(ShardsConfig, "workers"), "-2", "-2 must be a whole number, at least 0"),
        (share_or_count, "1.5", "1.5 must be a number of patches such as 2048, or a share such as 0.125"),
        (share_or_count, "all", "all must be a number of patches"),
    ],
)
def test_ranges_are_named(parse: Callable[[str], object], text: str, sentence: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError) as said:
        parse(text)
    assert str(said.value).startswith(sentence)


def test_numbers_within_their_range_are_taken() -> None:
    assert [number(0, 9)(text) for text in ("0", "9")] == [0, 9]
    assert [share_or_count(text) for text in ("1", "2048", "0.125", "1.0")] == [1, 2048, 0.125, 1.0]
    assert number_of(ShardsConfig, "h264_crf")("51") == 51
