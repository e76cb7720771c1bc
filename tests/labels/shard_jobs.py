"""Jobs of made-up shards, some of which fail; a module of its own, for worker processes must be able to import it."""

import os
import signal
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ove.errors import BadShard, ConfigError
from ove.files import digest
from ove.labels.engines.jobs import Job


def jobs_of(count: int, what: Mapping[int, str] | None = None, pids: Path | None = None, pause_s: float = 0.0) -> list[Job]:
    """Jobs 0 … count − 1; `what` says what some of them do instead: crash, raise, hang, refuse, or flaky."""
    what = what or {}
    return [
        Job(f"{n:05d}.txt", (n, what.get(n, ""), str(pids) if pids else "", pause_s), digest([n, "v1"])) for n in range(count)
    ]


def process(argument: tuple[int, str, str, float], path: Path) -> Mapping[str, Any]:
    """Writes the squares up to n; notes its process beside, if asked to."""
    n, what, pids, pause_s = argument
    if pids:
        Path(pids, f"{os.getpid()}").write_text(str(n))
    path.write_text("half of it")
    if what == "crash":
        os.kill(os.getpid(), signal.SIGSEGV)
    if what == "raise":
        raise BadShard(f"shard {n} is damaged; write it again.")
    if what == "hang":
        time.sleep(600)
    if what == "refuse":
        raise ConfigError("no such thing; name another.")
    if what.startswith("flaky:"):  # fails until it has been tried as often as the file has lines
        tries = Path(what.removeprefix("flaky:"))
        with tries.open("a") as handle:
            handle.write("x")
        if tries.stat().st_size < 3:
            raise OSError("the network went away")
    time.sleep(pause_s)
    path.write_text("".join(f"{i * i}\n" for i in range(n + 1)))
    return {"n": n}
