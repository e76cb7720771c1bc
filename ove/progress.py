"""Progress of work as a line now and then, with the time left."""

import time
from collections.abc import Callable


class ProgressReport:
    """A callback for progress; passes a line to `say` every few seconds."""

    def __init__(self, say: Callable[[str, bool], None], unit: str = "", every_s: float = 10.0, ends: bool = False) -> None:
        """say(line, whether it is the last). `ends`: the last line is always said, however soon."""
        self._is_warm = True
        self._say, self._unit, self._every_s, self._ends = say, unit and f" {unit}", every_s, ends
        self._what, self._first, self._before = "", 0, -1
        self._started = self._said = 0.0

    def __call__(self, what: str, done: int, total: int, note: str = "") -> None:
        """Notes that `done` of `total` of `what` are done; the rate counts from the first call.

        `note` goes into the line, before the time left.
        """
        now = time.monotonic()
        if what != self._what or done < self._before or self._before < 0:
            self._what, self._first, self._started, self._said = what, done, now, now
        self._before = done
        is_last, fresh = done == total, done - self._first
        if not (self._ends if is_last else fresh and now - self._said >= self._every_s):
            return
        self._said = now
        rate = fresh / max(now - self._started, 1e-9)
        rest = [f"{rate:.3g}/s", f"{duration((total - done) / rate)} left"] if fresh and self._is_warm and not is_last else []
        self._say(", ".join([f"{what}{what and ' '}{done:,}/{total:,}{self._unit}", *filter(None, [note]), *rest]), is_last)

    def wait(self) -> None:
        """From now on tells no rate, until `restart`: what comes first, such as compiling, says nothing of the rest."""
        self._is_warm = False

    def restart(self) -> None:
        """Counts the rate from what is done by now."""
        self._is_warm, self._first, self._started = True, self._before, time.monotonic()

    def of(self, what: str) -> Callable[[int, int], None]:
        """Returns the callback (done, total) of one kind of work."""
        return lambda done, total: self(what, done, total)


def duration(seconds: float) -> str:
    """Returns a time as `0m45s`, `12m05s` or `3h30m`."""
    minutes, rest = divmod(int(seconds + 0.5), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}h{minutes:02d}m" if hours else f"{minutes}m{rest:02d}s"
