"""Progress on one line of a terminal, or on a new line now and then where the output goes to a file."""

import sys
import time


class ProgressLine:
    """Prints at most ten lines a second on a terminal, one every ten seconds elsewhere, and always the last."""

    def __init__(self) -> None:
        self._live = sys.stdout.isatty()
        self.begin()

    def begin(self) -> None:
        """The work, or its next part, begins now."""
        self._started = self._printed = time.monotonic()

    @property
    def spent_s(self) -> float:
        """Seconds since the beginning."""
        return time.monotonic() - self._started

    def is_due(self, last: bool) -> bool:
        """Whether a line is to be printed now; if so it counts as printed."""
        now = time.monotonic()
        if not last and now - self._printed < (0.1 if self._live else 10):
            return False
        self._printed = now
        return True

    def show(self, text: str, last: bool) -> None:
        """Prints a line over the one before; the last one stays."""
        print(f"\r\x1b[K{text}" if self._live else text, end="\n" if last or not self._live else "", flush=True)


def duration(seconds: float) -> str:
    """`45 s`, `12 min`, `3.5 h`."""
    whole = round(seconds)
    return f"{whole} s" if whole < 100 else f"{whole // 60} min" if whole < 6000 else f"{whole / 3600:.1f} h"
