"""How far a task of `launch.labels` is, in lines."""

import time
from collections.abc import Callable

_EVERY_S = 10.0


class Progress:
    """How much is done and how long the rest will take, a line every few seconds."""

    def __init__(self, bank: str, say: Callable[[str], None]) -> None:
        self._bank, self._say, self._what = bank, say, ""
        self._started = self._printed = 0.0
        self._before = 0

    def of(self, what: str) -> Callable[[int, int], None]:
        """The callback (done, total) of something."""
        return lambda done, total: self.named(what, done, total)

    def named(self, what: str, done: int, total: int) -> None:
        """Notes that so much of something is done."""
        now = time.monotonic()
        if what != self._what or done < self._before:
            self._what, self._before, self._started, self._printed = what, done, now, now
        if now - self._printed < _EVERY_S or done == self._before:
            return
        self._printed = now
        left_s = (now - self._started) / (done - self._before) * (total - done)
        self._say(f"{self._bank}: {what} {done:,}/{total:,}, {left_s:.0f} s left")
