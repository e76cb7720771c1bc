"""Progress on one line of a terminal, or on a new line now and then where the output goes to a file."""

import sys

from ove.progress import ProgressReport


def shown(unit: str) -> ProgressReport:
    """Returns progress on stdout: a terminal's line rewritten, else a line every ten seconds; the last one always."""
    live = sys.stdout.isatty()

    def show(line: str, is_last: bool) -> None:
        print(f"\r\x1b[K{line}" if live else line, end="\n" if is_last or not live else "", flush=True)

    return ProgressReport(show, unit, every_s=0.1 if live else 10.0, ends=True)
