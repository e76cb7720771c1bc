"""`--config=FILE[:ARG]`, `--config.section.key=VALUE` and `--set section.key=VALUE` → the dataclasses of `ove.config`."""

import argparse
import ast
import importlib.util
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypeVar

from ml_collections import ConfigDict

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
    if isinstance(parser, CommandParser):
        parser.add_settings_help({"": cls})
    arguments, rest = parser.parse_known_args(argv)
    if arguments.config is None and getattr(arguments, unless) is None:
        parser.error(f"the following arguments are required: --config, or --{unless}")
    values = {} if arguments.config is None else renamed(cls, load_config(arguments.config))
    for option in rest:
        if not option.startswith(SETTING) or "=" not in option:
            parser.error(f"unknown argument {option}; settings are given as --config.section.key=VALUE")
        key, _, text = option.removeprefix(SETTING).partition("=")
        values = merged(values, renamed(cls, {key: _literal(text)}))
    return arguments, from_mapping(cls, values)


def load_config(file_and_argument: str) -> dict[str, Any]:
    """Returns the nested dictionary of `get_config(arg)` in a configuration file; ConfigError if it cannot be used."""
    name, _, argument = file_and_argument.partition(":")
    path = Path(name)
    if not path.is_file() and re.fullmatch(r"\w+", name):
        path = CONFIGS / f"{name}.py"
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


def word_list(text: str) -> tuple[str, ...]:
    """Parses words separated by commas."""
    return tuple(word.strip() for word in text.split(","))


def budget_option(text: str) -> int | float:
    """Parses `--budget`: a number of patches, or with a point a share of them."""
    try:
        return float(text) if "." in text else int(text)
    except ValueError as error:
        raise ConfigError(f"--budget {text}: expected a number of patches such as 2048, or a share such as 0.125.") from error


def _literal(text: str) -> Any:
    try:
        return ast.literal_eval(text)
    except (ValueError, SyntaxError):
        return text
