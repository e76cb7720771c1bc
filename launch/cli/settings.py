"""`--config=FILE[:ARG]`, `--config.section.key=VALUE` and `--set section.key=VALUE` → the dataclasses of `ove.config`."""

import argparse
import ast
import copy
import importlib.util
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

from ove.config import RunConfig
from ove.config.described import lines_of
from ove.config.mapping import from_mapping, merged, renamed
from ove.errors import ConfigError

from .command import SETTING, CommandParser

_T = TypeVar("_T")
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
"""Beside this package, in the repository and in a wheel."""


def parse_with_config(
    parser: argparse.ArgumentParser, cls: type[_T], argv: Sequence[str] | None = None, unless: str = ""
) -> tuple[argparse.Namespace, _T]:
    """Adds `--config` to the parser, parses, and returns the arguments with the configuration of type `cls`.

    With the option `unless`, no file needs to be given: settings then begin with the defaults.

    Numbers, lists, True and False are read as Python literals, anything else as a string; ConfigError for a missing
    file, a file without `get_config` or that refuses ARG, an unknown key or a wrong type.
    """
    parser.add_argument(
        "--config", required=not unless, metavar="FILE[:ARG]", help="a file of configs/; ARG is for example `smoke`"
    )
    parser.epilog = "Any key can be set with --config.section.key=VALUE or --set section.key=VALUE; --help-config lists them."
    add_settings_help(parser, {"": cls})
    arguments, rest = parser.parse_known_args(argv)
    if arguments.config is None and getattr(arguments, unless) is None:
        parser.error(f"the following arguments are required: --config, or --{unless}")
    for option in rest:
        if not option.startswith(SETTING) or "=" not in option:
            parser.error(f"unknown argument {option}; settings are given as --config.section.key=VALUE")
    return arguments, _config(cls, arguments.config, rest)


def _config(cls: type[_T], file: str | None, settings: Sequence[str]) -> _T:
    """Returns the configuration of a file, if there is one, with the settings of the command line."""
    values = {} if file is None else renamed(cls, load_config(file))
    for option in settings:
        key, _, text = option.removeprefix(SETTING).partition("=")
        values = merged(values, renamed(cls, {key: _literal(text)}))
    return from_mapping(cls, values)


def add_settings_help(parser: argparse.ArgumentParser, sections: Mapping[str, type]) -> None:
    """Adds `--help-config`: all keys of the dataclasses with value, type and meaning; "": no section.

    Values are those of the other arguments: a file of `--config`, `--set`, options that set a key.
    """

    class Listing(argparse.Action):
        def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
            print("\n".join(_listing(parser, sections)))
            parser.exit()

    parser.add_argument(
        "--help-config", action=Listing, nargs=0, help="list all settings with their values, as given here, and their meaning"
    )


def _listing(parser: argparse.ArgumentParser, sections: Mapping[str, type]) -> Iterator[str]:
    options, rest = _settings_alone(parser)
    if "" in sections:
        settings = [word for word in rest if word.startswith(SETTING) and "=" in word]
        yield from lines_of(_config(sections[""], getattr(options, "config", None), settings))
        return
    values = read_sections(options, *sections)
    for section, cls in sections.items():
        yield from lines_of(from_mapping(cls, values[section], f"{section}."), f"{section}.")


def _settings_alone(parser: argparse.ArgumentParser) -> tuple[argparse.Namespace, list[str]]:
    """Parses nothing but `--config`, `--set` and options that set a key, none of which must be there."""
    reader = argparse.ArgumentParser(add_help=False, allow_abbrev=False)
    for action in parser._actions:
        if action.dest in ("config", "set") or "." in action.dest:
            optional = copy.copy(action)
            optional.required = False
            reader._add_action(optional)
    return reader.parse_known_args(parser.words if isinstance(parser, CommandParser) else None)


def load_config(file_and_argument: str) -> dict[str, Any]:
    """Returns the nested dictionary of `get_config(arg)` in a configuration file; ConfigError if it cannot be used."""
    name, _, argument = file_and_argument.partition(":")
    path = Path(name)
    if not path.is_file() and (found := re.fullmatch(r"(?:configs/)?(\w+?)(?:\.py)?", name)):
        path = CONFIGS / f"{found[1]}.py"  # configs/toy.py too, outside a clone
    if not path.is_file():
        known = ", ".join(sorted(found.stem for found in CONFIGS.glob("[a-z]*.py")))
        raise ConfigError(f"{name}: no such configuration file; give a file, or the name of one that comes with ove: {known}.")
    spec = importlib.util.spec_from_file_location(f"config_{path.stem}", path)
    if spec is None or spec.loader is None:
        raise ConfigError(f"{name}: not a Python file; a configuration file ends in .py and defines get_config(arg).")
    module = importlib.util.module_from_spec(spec)
    try:
        spec.loader.exec_module(module)
    except (SyntaxError, ImportError) as error:
        raise ConfigError(f"{name}: cannot be loaded: {error}.") from error
    if not hasattr(module, "get_config"):
        raise ConfigError(f"{name}: defines no get_config(arg); see configs/toy.py for an example.")
    try:
        config = module.get_config(argument)
    except ValueError as error:  # what get_config raises for an ARG that it does not know
        raise ConfigError(f"{file_and_argument} cannot be used: {error}.") from error
    if not isinstance(config, ConfigDict):
        raise ConfigError(f"{name}: get_config({argument!r}) returned {type(config).__name__}; a ConfigDict is expected.")
    return config.to_dict()


def read_sections(options: argparse.Namespace, *sections: str) -> dict[str, dict[str, Any]]:
    """Returns the settings of each section: from the file of `--config`, from `--set`, from options with `dest="section.key"`.

    Later ones replace earlier ones.
    ConfigError for an assignment of another form or section, or a file with none of the sections.
    """
    values: dict[str, dict[str, Any]] = {section: {} for section in sections}
    if getattr(options, "config", None) is not None:
        given = load_config(options.config)
        if not given.keys() & values.keys():
            raise ConfigError(f"{options.config}: has no section {' or '.join(sections)}, which is what this command reads.")
        values = {section: dict(given.get(section, {})) for section in sections}
    for assignment in options.set:
        name, equals, text = assignment.partition("=")
        section, _, key = name.partition(".")
        if not equals or section not in values or not key:
            raise ConfigError(f"--set {assignment}: expected {' or '.join(f'{section}.KEY=VALUE' for section in sections)}.")
        values[section][key] = _literal(text)
    for name, value in vars(options).items():
        section, _, key = name.partition(".")
        if section in values and key and value is not None:
            values[section][key] = value
    return values


def inputs_line(config: str, shards: Sequence[str | Sequence[str]], weights: str) -> str:
    """Returns `config X; shards Y; weights Z`: what a command works on, whether it was named or is the file's default."""
    folders = [folder for one in shards for folder in ([one] if isinstance(one, str) else one) if folder]
    return f"config {config}; shards {', '.join(dict.fromkeys(folders)) or 'none'}; weights {weights or 'none'}"


def training_inputs(config: str, run: RunConfig) -> str:
    """Returns `inputs_line` of a training run."""
    shards = [folder for head in run.batches.heads for folder in head.shards or (run.batches.shards,)]
    evaluated = [run.evaluation.train_shards, run.evaluation.val_shards] if run.train.eval_every else []
    return inputs_line(config, [*shards, *evaluated], run.train.init_from or "random")


def word_list(text: str) -> tuple[str, ...]:
    """Parses words separated by commas."""
    return tuple(word.strip() for word in text.split(","))


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
