"""When a transfer counts as stalled, and what is said of each way in which one fails."""

import itertools
import threading

import pytest

from ove.errors import Unavailable
from ove.shards.remote.fetch import BrokeOff, NotThere, explained, with_timeout

LIMIT_S = 0.2


@pytest.mark.parametrize(("step", "stalls"), [(200, False), (199, True)])
def test_a_transfer_of_a_kilobyte_a_second_goes_on(step: int, stalls: bool) -> None:
    """200 bytes in each 0.2 s are just enough, whatever their sum."""
    looks, ended = itertools.count(), threading.Event()

    def progress() -> int:
        if (look := next(looks)) == 3:
            ended.set()
        return 5000 + step * look

    def transfer() -> str:
        ended.wait(30)
        return "all of it"

    if not stalls:
        assert with_timeout(transfer, "x://y", LIMIT_S, progress) == "all of it"
        return
    with pytest.raises(BrokeOff, match=r"x://y: timed out: 199 bytes came in 0\.2 s"):
        with_timeout(transfer, "x://y", LIMIT_S, progress)
    ended.set()


class _Answer(Exception):
    """An answer of a server, as aiohttp raises it."""

    def __init__(self, status: int) -> None:
        super().__init__(f"answer {status}")
        self.status = status


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        *((_Answer(status), NotThere, "is not there") for status in (404, 410)),
        *(
            (_Answer(status), Unavailable, r"may not be read \(_Answer: answer 40.\); give credentials")
            for status in (401, 403)
        ),
        *(
            (_Answer(status), BrokeOff, f"could not be fetched .*{status}")
            for status in (400, 402, 405, 409, 411, 429, 500, 503)
        ),
        (FileNotFoundError("x"), NotThere, "is not there"),
        (PermissionError("no"), Unavailable, "may not be read"),
        (IsADirectoryError("x"), NotThere, "is a folder"),
        (ImportError("No module named s3fs"), Unavailable, "run `pip install s3fs`"),
        (ValueError("Protocol not known: s3"), Unavailable, "no package knows s3://"),
        (ValueError("bad address"), BrokeOff, "could not be fetched"),
        (OSError(), BrokeOff, r"could not be fetched \(OSError\)"),
    ],
    ids=repr,
)
def test_every_error_is_told_in_terms_of_the_address(error: Exception, kind: type[Unavailable], words: str) -> None:
    with pytest.raises(Unavailable, match=f"^s3://bucket/x: .*{words}") as caught:
        raise explained("s3://bucket/x", error)
    assert type(caught.value) is kind
