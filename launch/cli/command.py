"""Runs commands: parsers, and errors as one sentence and an exit code instead of a traceback."""

import argparse
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ove.errors import OveError


def command_parser(name: str, about: str | None, **more: Any) -> argparse.ArgumentParser:
    """Returns the parser of `python -m launch.NAME`, whose help begins with `about`, line by line as it is written."""
    raw = argparse.RawDescriptionHelpFormatter
    return argparse.ArgumentParser(prog=program(name), description=about, formatter_class=raw, **more)


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
