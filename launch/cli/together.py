"""What several processes of one command do each for itself, and all or none of them finish."""

import contextlib
import time
from collections.abc import Iterator

from ove.distributed import Processes
from ove.errors import OveError, ProcessLost

_FIRST_GOES_LAST_S = 1.0


@contextlib.contextmanager
def together(processes: Processes, what: str) -> Iterator[None]:
    """Within it each process works for itself; then all have come here, or all end, knowing why the first of them failed.

    For errors of ours and of the system. Processes wait for each other as long as `processes` lets them.
    """
    failed: OveError | OSError | None = None
    try:
        yield
    except (OveError, OSError) as error:
        if processes.count == 1:
            raise
        failed = error
    said = processes.gather(what, str(failed or ""))
    if not any(said):
        return
    processes.meet(f"end of {what}")
    if processes.index == 0:  # through it all hear of each other
        time.sleep(_FIRST_GOES_LAST_S)
    if failed is not None:
        raise failed
    index, sentence = next((index, text) for index, text in enumerate(said) if text)
    raise ProcessLost(f"process {index} of {processes.count} ended: {sentence}")
