"""The border between commands and people: an error of ours is one clear sentence and an exit code, not a traceback."""

import sys
from collections.abc import Callable

from ove.errors import OveError


def run(main: Callable[[], int | None]) -> None:
    """Runs `main` and exits with its code; 2 and one sentence on stderr for bad input, 130 when interrupted."""
    try:
        code = main() or 0
    except OveError as error:
        print(f"error: {error}", file=sys.stderr)
        code = 2
    except KeyboardInterrupt:
        print("interrupted.", file=sys.stderr)
        code = 130
    sys.exit(code)
