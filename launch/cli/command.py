"""Runs commands: parsers, and errors as one sentence and an exit code instead of a traceback."""

import argparse
import sys
import textwrap
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from ove.config.described import keys_of
from ove.errors import OveError

SETTING = "--config."
"""How a setting begins on the command line."""


def command_parser(name: str, about: str | None, **more: Any) -> "CommandParser":
    """Returns the parser of `python -m launch.NAME`, whose help begins with `about`, line by line as it is written."""
    raw = argparse.RawDescriptionHelpFormatter
    return CommandParser(prog=program(name), description=about, formatter_class=raw, **more)


class CommandParser(argparse.ArgumentParser):
    """Takes `--set section.key=VALUE` and `--config.section.key=VALUE` alike, and `--help-config` where there are settings."""

    def parse_known_args(self, args: Any = None, namespace: Any = None) -> Any:
        """As argparse's, after settings are written as the command expects them."""
        words, found = list(sys.argv[1:] if args is None else args), []
        takes_set = "--set" in self._option_string_actions
        while words:
            word = words.pop(0)
            assigned = word.removeprefix("--set=") if word.startswith("--set=") else None
            if word == "--set" and words and not takes_set:
                assigned = words.pop(0)
            if takes_set and word.startswith(SETTING):
                found += ["--set", word.removeprefix(SETTING)]
            elif assigned is not None and not takes_set:
                found.append(SETTING + assigned)
            else:
                found.append(word)
        return super().parse_known_args(found, namespace)

    def add_settings_help(self, sections: Mapping[str, type]) -> None:
        """Adds `--help-config`, which lists all keys of the dataclasses with types, defaults and meaning; "": no section."""
        keys = partial(_all_keys, sections)

        class Listing(argparse.Action):
            def __call__(self, parser: argparse.ArgumentParser, *_: Any, **__: Any) -> None:
                print("\n".join(keys()))
                parser.exit()

        self.add_argument("--help-config", action=Listing, nargs=0, help="list all settings with their meaning")


def _all_keys(sections: Mapping[str, type]) -> Iterator[str]:
    for section, cls in sections.items():
        for key in keys_of(cls, f"{section}." if section else ""):
            default = f" = {key.default}" if key.default else ""
            yield f"{key.name}{default}  ({key.type})"
            if key.about:
                yield textwrap.fill(key.about, 100, initial_indent="    ", subsequent_indent="    ")


def program(name: str) -> str:
    """Returns how a command was called, for its help: `ove NAME` or `python -m launch.NAME`."""
    return f"ove {name}" if Path(sys.argv[0]).stem == "ove" else f"python -m launch.{name}"


def run_command(main: Callable[[], int | None], leave: Callable[[int], object] = sys.exit) -> None:
    """Runs `main` and exits through `leave` with its code; prints one of our errors as a sentence on stderr.

    Code 2 for bad input, also for files that the system refuses (permissions, full disk); 69 if another process of the run was
    lost; 130 when interrupted.
    """
    try:
        code = main() or 0
    except OveError as error:
        code = _say(str(error), error.exit_code)
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        code = _say(f"{error.filename or 'the system'}: {error.strerror}.")
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = 130
    leave(code)


def _say(sentence: str, code: int = 2) -> int:
    print(f"error: {sentence}", file=sys.stderr)
    return code
