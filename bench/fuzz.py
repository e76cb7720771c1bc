"""Feeds readers of users' files with damaged ones: does any crash, hang, take too much memory, or believe what it should not?

python bench/fuzz.py [--targets NAME …] [--inputs N] [--seconds S] [--seed 0] [--first N] [--quick]

Each target (bench/fuzz_targets.py) damages whole files (bench/fuzz_mutations.py) and reads them in a process of its own. A find
is any exception but those by which a reader refuses a file, a process that dies, more than 5 s of processor time, memory
beyond 1.5 GB with limits (docs/limits.md) set so that no input may need it, and damage that a checksum should have shown. An
input depends on the seed, the target and its number alone: `--targets NAME --first N --inputs 1` repeats one. --inputs: of
each target; --seconds: of each, at most. --quick: 40 each. Prints each kind of find once; the last line is one JSON object.
Exit code 1 after any find.
"""

import argparse
import collections
import json
import os
import resource
import signal
import subprocess
import sys
import tempfile
import time
import traceback
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

ROOT = Path(__file__).resolve().parents[1]
_LIMITS = {
    "MAX_FRAME_PIXELS": 1 << 20,
    "MAX_PICTURE_PIXELS": 1 << 20,
    "MAX_PICTURE_BYTES": 1 << 23,
    "MAX_CLIP_BYTES": 1 << 24,
    "MAX_INPUT_BYTES": 1 << 24,
    "MAX_ARCHIVE_INPUTS": 1 << 12,
    "MAX_ROW_GROUP_BYTES": 1 << 24,
    "MAX_UNPACKED_BYTES": 1 << 24,
    "MAX_JSON_BYTES": 1 << 20,
    "MAX_HEADER_BYTES": 1 << 20,
}
_MEMORY = 3 << 29
"""Bytes of address space beyond those of a process that has loaded its libraries."""
_HANGS_S, _STALLS_S = 5.0, 120.0
_QUICK = 40


def main() -> int:
    """Runs the targets one after another; returns 1 after any find."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--targets", nargs="+", metavar="NAME", help="default: all")
    parser.add_argument("--inputs", type=int, default=6250, help="of each target (default: 6250, 118,750 in all)")
    parser.add_argument("--seconds", type=float, default=float("inf"), help="of each target, at most")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--first", type=int, default=0, help="number of the first input")
    parser.add_argument("--quick", action="store_true", help=f"{_QUICK} inputs of each target")
    parser.add_argument("--child", action="store_true", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.inputs = _QUICK if options.quick else options.inputs
    if options.child:
        return _child(options)
    names = options.targets or _names()
    started, counts, done = time.monotonic(), {}, 0
    finds: dict[str, dict[str, Any]] = {}
    kinds: collections.Counter[str] = collections.Counter()
    for name in names:
        outcomes: collections.Counter[str] = collections.Counter()
        for find in _run(name, options, outcomes):
            kinds[find["kind"]] += 1
            known = finds.setdefault(f"{name}: {find['kind']}: {find['where']}", find)
            if known is find:
                print(f"{name} {find['input']}: {find['kind']}: {find['what']}", file=sys.stderr, flush=True)
        done += outcomes.pop("done")
        counts[name] = dict(outcomes)
        print(f"{name:16} {outcomes['read']:7,} read {outcomes['refused']:7,} refused {outcomes['finds']:5,} finds", flush=True)
    summary = {"bench": "fuzz", "seed": options.seed, "executions": done, "finds": sum(kinds.values()), "by_kind": dict(kinds)}
    print(json.dumps(summary | {"targets": counts, "seconds": round(time.monotonic() - started, 1)}))
    return 1 if finds else 0


def _names() -> list[str]:
    command = [sys.executable, __file__, "--child", "--inputs", "0"]
    return subprocess.run(command, env=_environment(), check=True, capture_output=True, text=True).stdout.split()


def _environment() -> dict[str, str]:
    found = {**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{ROOT / 'bench'}", "OPENCV_LOG_LEVEL": "SILENT"}
    found |= {"OMP_NUM_THREADS": "1", "JAX_PLATFORMS": "cpu", "ARROW_DEFAULT_MEMORY_POOL": "system"}
    return found | {f"OVE_{name}": str(limit) for name, limit in _LIMITS.items()}


def _run(name: str, options: argparse.Namespace, outcomes: collections.Counter[str]) -> Iterator[dict[str, Any]]:
    """Yields the finds of a target; a child that dies is followed by another, which begins behind the input it died of."""
    first, last, end = options.first, options.first + options.inputs, time.monotonic() + options.seconds
    while first < last and time.monotonic() < end:
        with tempfile.TemporaryDirectory(prefix="fuzz_") as folder:
            words = ["--child", "--targets", name, "--seed", options.seed, "--first", first, "--inputs", last - first]
            words += ["--seconds", min(end - time.monotonic(), 1e9)]
            command = [sys.executable, __file__, *map(str, words)]
            noise = (Path(folder) / "stderr").open("wb")
            with (
                noise,
                subprocess.Popen(command, cwd=folder, env=_environment(), stdout=subprocess.PIPE, stderr=noise) as child,
            ):
                assert child.stdout is not None
                at = first
                for line in child.stdout:
                    told = json.loads(line)
                    at = told["input"]
                    outcomes[told["kind"] if "count" in told else "finds"] += told.get("count", 1)
                    if "what" in told:
                        yield told
            if child.returncode == 0:
                outcomes["done"] += at - first
                return
            about = (Path(folder) / "stderr").read_bytes().decode(errors="replace").strip().splitlines()
        died = _input_that_killed(name, options, at, first)
        code = -child.returncode
        kind = "hang" if code in (signal.SIGPROF, signal.SIGALRM) else "crash"
        what = f"{signal.Signals(code).name if code > 0 else f'exit code {-code}'} {' '.join(about[-2:])[:300]}"
        outcomes["finds"] += 1
        yield {"kind": kind, "input": died, "where": what, "what": what}
        outcomes["done"] += died + 1 - first
        first = died + 1


def _input_that_killed(name: str, options: argparse.Namespace, at: int, first: int) -> int:
    """Returns the number of the input that a child died of, from the file in which it keeps count."""
    path = Path(tempfile.gettempdir()) / f"fuzz-{os.getpid()}-{name}"
    return int(path.read_text() or at) if path.exists() else max(at, first)


def _child(options: argparse.Namespace) -> int:
    from fuzz_targets import EXPECTED, TARGETS, Accepted

    if not options.targets:
        print(" ".join(TARGETS))
        return 0
    (name,) = options.targets
    target, folder = TARGETS[name], Path.cwd() / "files"
    folder.mkdir()
    sample = target.sample(folder)
    count = os.open(Path(tempfile.gettempdir()) / f"fuzz-{os.getppid()}-{name}", os.O_CREAT | os.O_RDWR | os.O_TRUNC)
    used = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    resource.setrlimit(resource.RLIMIT_AS, (used + _MEMORY, used + _MEMORY))
    seen, end = collections.Counter[str](), time.monotonic() + options.seconds
    told = options.first

    def report(number: int) -> None:
        for kind, times in seen.items():
            print(json.dumps({"kind": kind, "input": number, "count": times}), flush=True)
        seen.clear()
        print(json.dumps({"kind": "done", "input": number, "count": 0}), flush=True)

    number = options.first
    for number in range(options.first, options.first + options.inputs):
        os.pwrite(count, f"{number:<12}".encode(), 0)
        rng = np.random.default_rng((options.seed, zlib.crc32(name.encode()), number))
        signal.setitimer(signal.ITIMER_PROF, _HANGS_S)
        signal.setitimer(signal.ITIMER_REAL, _STALLS_S)
        try:
            target.run(sample, rng, folder)
            seen["read"] += 1
        except EXPECTED:
            seen["refused"] += 1
        except Exception as error:  # this is what is being looked for
            kind = {MemoryError: "memory", Accepted: "accepted"}.get(type(error), "exception")
            frames = traceback.extract_tb(error.__traceback__)
            ours = [f"{Path(f.filename).relative_to(ROOT)}:{f.lineno}" for f in frames if f.filename.startswith(f"{ROOT}/ove")]
            where = f"{type(error).__name__} at {(ours or [f'{frames[-1].filename}:{frames[-1].lineno}'])[-1]}"
            print(json.dumps({"kind": kind, "input": number, "where": where, "what": f"{where}: {error}"[:500]}), flush=True)
        if number + 1 - told >= 200:
            report(number + 1)
            told = number + 1
        if time.monotonic() > end:
            break
    signal.setitimer(signal.ITIMER_PROF, 0)
    signal.setitimer(signal.ITIMER_REAL, 0)
    report(number + 1)
    os.unlink(Path(tempfile.gettempdir()) / f"fuzz-{os.getppid()}-{name}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
