"""Runs `write_tars` in TensorFlow's environment, and survives its crashes and stalls."""

import json
import os
import signal
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ove.errors import BadClip, Unavailable
from ove.files import write_json

from .install import ROOT

_STEP_S = 0.2


def read_inputs(python: Path, work: Path, job: dict[str, Any], stall_s: float, say: Callable[[str], None]) -> None:
    """Runs the process with TensorFlow until all records are in tars in `work`/parts; resumes an earlier run.

    Its files count, not its exit code. BadClip for a data set that does not fit the job; Unavailable, saying where, for a
    reader that crashes or makes no progress for `stall_s` seconds.
    """
    write_json(work / "job.json", job)
    for name in ("error.json", "doing.txt"):
        (work / name).unlink(missing_ok=True)
    outside = {**os.environ, "PYTHONPATH": str(ROOT), "PYTHONNOUSERSITE": "1"}
    command = [str(python), "-m", "launch.tensorflow_environment.write_tars", str((work / "job.json").absolute())]
    with (work / "log.txt").open("wb") as log, subprocess.Popen(command, env=outside, stdout=log, stderr=log) as process:
        try:
            stalled = not _wait(process, work, stall_s, say)
        finally:
            process.kill()
    progress = read_progress(work)
    if progress.get("finished"):
        if not progress["records"]:
            raise BadClip(f"{', '.join(job['inputs'])}: no records are in it.")
        say(f"{progress['records']} records read by TensorFlow")
        return
    if (work / "error.json").exists():
        raise BadClip(json.loads((work / "error.json").read_text(encoding="utf-8"))["message"])
    doing = (work / "doing.txt").read_text(encoding="utf-8") if (work / "doing.txt").exists() else "starting"
    if stalled:
        raise Unavailable(
            f"{doing}: nothing came for {stall_s:g} s; check the address and the network, or allow more with --stall. "
            "The same command goes on where this one stopped."
        )
    raise Unavailable(_crash(process.returncode, doing, work))


def _wait(process: subprocess.Popen[bytes], work: Path, stall_s: float, say: Callable[[str], None]) -> bool:
    """Waits for the process; returns False after `stall_s` seconds without a change in its folder."""
    seen = _traces(work)
    changed = said = time.monotonic()
    while True:
        try:
            process.wait(_STEP_S)
            return True
        except subprocess.TimeoutExpired:
            now, traces = time.monotonic(), _traces(work)
            if traces != seen:
                seen, changed = traces, now
            if now - changed > stall_s:
                return False
            if now - said > 10:
                said = now
                say(f"{read_progress(work).get('records', 0)} records read")


def _traces(work: Path) -> list[tuple[str, int, int]]:
    """Returns names, sizes and dates of the files that the process writes."""
    found = []
    for entry in (*os.scandir(work), *os.scandir(work / "parts")):
        try:
            stat = entry.stat()
        except FileNotFoundError:
            continue  # renamed meanwhile
        found.append((entry.name, stat.st_size, stat.st_mtime_ns))
    return sorted(found)


def _crash(code: int, doing: str, work: Path) -> str:
    how = f"ended by {signal.Signals(-code).name}" if code < 0 else f"ended with exit code {code}"
    said = [
        line for line in (work / "log.txt").read_text(errors="replace").splitlines() if " cuda_" not in line and line.strip()
    ]
    last = f" It said: {' '.join(said[-2:])[-300:]}." if said else ""
    return (
        f"{doing}: the process with TensorFlow was {how}.{last} Its readers crash on damaged files, and the one for Parquet on "
        f"columns with missing values: leave those out, or copy the file here and give it to `ove shards`. "
        f"All it said is in {work / 'log.txt'}; the same command goes on after the last finished part."
    )


def read_progress(work: Path) -> dict[str, Any]:
    """Returns what the process has finished so far; {} before its first part."""
    path = work / "progress.json"
    return json.loads(path.read_text(encoding="utf-8")) if path.exists() else {}
