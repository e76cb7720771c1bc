"""Runs commands: parsers, and errors as one sentence and an exit code instead of a traceback."""

import argparse
import io
import os
import re
import select
import sys
from collections.abc import Callable, Sequence
from typing import Any, NoReturn

from ove.errors import OveError
from ove.files import on_screen

SETTING = "--config."
"""How a setting begins on the command line."""
CLOSED_PIPE = 141
"""Exit code when the reader of our output, such as `head`, has gone: 128 + SIGPIPE, as of other programs."""
_OUT_OF_RANGE = re.compile(r"argument (?:.*/)?(-\S+): (\S*) must be ")


def command_parser(name: str, about: str | None, **more: Any) -> "CommandParser":
    """Returns the parser of `ove NAME`, whose help begins with `about`, line by line as it is written."""
    raw = argparse.RawDescriptionHelpFormatter
    return CommandParser(**{"prog": f"ove {name}", "description": about, "formatter_class": raw} | more)


class CommandParser(argparse.ArgumentParser):
    """Takes `--set section.key=VALUE` and `--config.section.key=VALUE` alike; says what is wrong in one sentence."""

    words: Sequence[str] = ()
    """What is being parsed, with settings as the command expects them."""

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
        self.words = found
        return super().parse_known_args(found, namespace)

    def error(self, message: str) -> NoReturn:
        """Prints what is wrong with the arguments and exits with 2."""
        said = _OUT_OF_RANGE.sub(r"\1 \2 must be ", message).rstrip(".")
        self.exit(2, f"error: {said}; see `{self.prog} --help`.\n")


def run_command(main: Callable[[], int | None], leave: Callable[[int], object] = sys.exit) -> None:
    """Runs `main` and exits through `leave` with its code; prints one of our errors as a sentence on stderr.

    Code 2 for bad input, also for files that the system refuses (permissions, full disk); 69 if another process of the run was
    lost; 130 when interrupted; 141 when nobody reads the output any more.
    """
    for stream in (sys.stdout, sys.stderr):  # names of files may hold anything, and the terminal may know ASCII only
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="backslashreplace")
    try:
        code = _code_of(main)
        sys.stdout.flush()
    except BrokenPipeError as error:
        closed = [_is_closed(stream) for stream in (sys.stdout, sys.stderr)]
        code = CLOSED_PIPE if any(closed) else _say(f"the system: {error.strerror}.")
    leave(code)


def _code_of(main: Callable[[], int | None]) -> int:
    try:
        return main() or 0
    except SystemExit as exit_:  # of argparse
        return int(exit_.code or 0)
    except OveError as error:
        return _say(str(error), error.exit_code)
    except BrokenPipeError:
        raise
    except OSError as error:
        if error.filename is None and error.errno is None:
            raise
        return _say(f"{error.filename or 'the system'}: {error.strerror}.")
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        return 130


def _is_closed(stream: Any) -> bool:
    """Returns whether the reader of a stream has gone; nothing more is then written to it."""
    ends = select.poll()
    ends.register(stream.fileno(), 0)  # errors alone
    if not ends.poll(0):
        return False
    os.dup2(os.open(os.devnull, os.O_WRONLY), stream.fileno())
    return True


def _say(sentence: str, code: int = 2) -> int:
    print(f"error: {on_screen(sentence)}", file=sys.stderr)
    return code
