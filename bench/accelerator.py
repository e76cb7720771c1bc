"""Measures what only an accelerator can tell, within a given time: a GPU or TPU that is lent for some minutes, say.

python bench/accelerator.py [--minutes 8] [--only encoder step …] [--out DIR] [--quick]

Parts (bench/accelerator_*.py) run in this order, each in a process of its own:
PARTS
A part has its share of the time that is left, and leaves what it does not need to those after it. One that crashes or does not
end in time is told as such, with the figures it had by then, and the next goes on. DIR (default: runs/accelerator) gets
accelerator.json and accelerator.md, written anew after every part, and what each printed. Compiled programs are kept in
DIR/compiled: give another DIR to time compilers again. --quick: toy sizes, a minute or two of a CPU, to see that all parts
work. Exits with 1 if a part did not end well; the last line is one JSON object.
"""

import argparse
import contextlib
import importlib
import json
import os
import shlex
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

ROOT = Path(__file__).resolve().parents[1]
LEAST_S = 5.0
"""A part that would get less is not started."""


@dataclass(frozen=True)
class Part:
    """A function NAME_part(say, is_quick) of a module of bench/, which calls `say(row, figure=…, …)` for each of its rows."""

    module: str
    share: float
    """Of the time, beside those of the other parts."""
    about: str


PARTS = {
    "machine": Part("accelerator_parts", 1, "versions, devices"),
    "limits": Part("accelerator_parts", 2, "products, memory, transfers from the host: what is possible at all"),
    "encoder": Part("accelerator_parts", 6, "value and gradient of the encoder, with each setting of remat"),
    "parity": Part("accelerator_checks", 3, "figures that a CPU computed"),
    "attention": Part("accelerator_checks", 5, "each backend, on whole rows and on packed ones: right? how fast?"),
    "step": Part("accelerator_runs", 6, "the step of stage 2 with three banks of full size, fed from shards"),
    "torch": Part("accelerator_parts", 3, "the encoder in PyTorch, compiled, with fused attention"),
    "bank": Part("accelerator_checks", 2, "the step of a bank of 100,000 and of 2 million centers"),
    "train": Part("accelerator_runs", 3, "`ove train`, stopped and resumed: checkpoint, compilation cache"),
    "profile": Part("accelerator_parts", 2, "where the encoder's time goes"),
    "flags": Part("accelerator_parts", 4, "the encoder under other options of the compiler"),
}
"""Most worth knowing first."""


def run_parts(parts: Mapping[str, Part], folder: Path, minutes: float, is_quick: bool) -> dict[str, Any]:
    """Runs the parts one after the other and returns what is in accelerator.json, which is written after each."""
    command = shlex.join([Path(sys.executable).name, *sys.argv])
    found: dict[str, Any] = {"bench": "accelerator", "quick": is_quick, "minutes": minutes, "command": command}
    found |= {"started": time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), "parts": {}}
    end_s = time.monotonic() + 60 * minutes
    left = dict(parts)
    for name in parts:
        left_s = end_s - time.monotonic()
        limit_s = left_s * left[name].share / sum(part.share for part in left.values())
        part = left.pop(name)
        found["parts"][name] = entry = {"limit_s": round(limit_s, 1), "seconds": 0.0, "ended": "not run: no time is left"}
        try:
            if limit_s >= LEAST_S:
                run_part(name, part, folder, limit_s, is_quick, entry)
        finally:  # also when the whole is cut short
            entry["rows"] = rows_of(folder, name)
            write_results(found, folder)
        print(f"{name}: {entry['ended']} after {entry['seconds']:.0f} of {limit_s:.0f} s\n{table(entry['rows'])}", flush=True)
    return found


def run_part(name: str, part: Part, folder: Path, limit_s: float, is_quick: bool, entry: dict[str, Any]) -> None:
    """Runs a part in a process of its own, whose children end with it; notes in `entry` how it ended, and when."""
    (folder / f"{name}.jsonl").unlink(missing_ok=True)
    folder = folder.resolve()
    script = str(Path(__file__).resolve())
    command = [sys.executable, script, "--part", f"{part.module}:{name}", "--out", str(folder), *["--quick"] * is_quick]
    environment = {"JAX_COMPILATION_CACHE_DIR": str(folder / "compiled")} | os.environ
    if not os.environ.keys() & {"XLA_CLIENT_MEM_FRACTION", "XLA_PYTHON_CLIENT_MEM_FRACTION"}:
        environment["XLA_CLIENT_MEM_FRACTION"] = "0.9"  # as launch/cluster/accelerators.sh
    environment["PYTHONPATH"] = ":".join([str(ROOT / "bench"), str(ROOT), os.environ.get("PYTHONPATH", "")])
    if is_quick:  # a CPU compiles longer than it computes
        environment["XLA_FLAGS"] = f"--xla_backend_optimization_level=0 {os.environ.get('XLA_FLAGS', '')}"
    entry["ended"], begun_s = "cut short", time.monotonic()
    log = folder / f"{name}.log"
    with log.open("w") as file:
        child = subprocess.Popen(
            command,
            stdout=file,
            stderr=subprocess.STDOUT,
            env=environment,
            cwd=folder,
            start_new_session=True,
        )
        try:
            code = child.wait(limit_s)
            entry["ended"] = "done" if code == 0 else f"failed with code {code}"
        except subprocess.TimeoutExpired:
            entry["ended"] = "out of time"
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            child.wait()
            entry["seconds"] = round(time.monotonic() - begun_s, 1)
    if entry["ended"] != "done" and (said := log.read_text(errors="replace").rstrip()):
        entry["last_words"] = said[-500:]


def rows_of(folder: Path, name: str) -> list[dict[str, Any]]:
    """Returns the rows that a part has written; a last line that was cut off is none."""
    path = folder / f"{name}.jsonl"
    lines = path.read_text().splitlines(keepends=True) if path.exists() else []
    return [json.loads(line) for line in lines if line.endswith("\n")]


def write_results(found: Mapping[str, Any], folder: Path) -> None:
    """Writes accelerator.json and accelerator.md, whole or not at all."""
    title = f"`{found['command']}`, {found['started']}"
    sections = [
        f"## {name}: {entry['ended']} after {entry['seconds']:.0f} of {entry['limit_s']:.0f} s\n\n{table(entry['rows'])}"
        for name, entry in found["parts"].items()
    ]
    texts = {"json": json.dumps(found, indent=1) + "\n", "md": "\n\n".join([title, *sections]) + "\n"}
    for kind, text in texts.items():
        unfinished = folder / f".accelerator.{kind}"
        unfinished.write_text(text)
        unfinished.replace(folder / f"accelerator.{kind}")


def table(rows: list[dict[str, Any]]) -> str:
    """Returns rows as Markdown; a column for each figure that one of them has."""
    if not rows:
        return "no figures"
    columns = list(dict.fromkeys(name for row in rows for name in row))
    lines = [[str(row.get(name, "")).replace("|", "/").replace("\n", " ") for name in columns] for row in rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in [columns, ["---"] * len(columns), *lines])


def in_process(target: str, folder: Path, is_quick: bool) -> None:
    """Runs a part, `NAME_part` of its module; each row is on the disk before the next is measured."""
    module, _, name = target.partition(":")
    with (folder / f"{name}.jsonl").open("a") as file:

        def say(row: str, **figures: Any) -> None:
            file.write(json.dumps({"row": row} | figures) + "\n")
            file.flush()

        getattr(importlib.import_module(module), f"{name}_part")(say, is_quick)


@contextlib.contextmanager
def told_to_stop() -> Iterator[None]:
    """SIGTERM is an exit, before which what was found is written."""

    def leave(number: int, frame: object) -> NoReturn:
        sys.exit(128 + number)

    before = signal.signal(signal.SIGTERM, leave)
    yield
    signal.signal(signal.SIGTERM, before)


def main() -> None:
    each = "\n".join(f"  {name:10} {part.about}" for name, part in PARTS.items())
    about = (__doc__ or "").replace("\nPARTS\n", f"\n{each}\n")
    parser = argparse.ArgumentParser(description=about, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=8)
    parser.add_argument("--only", nargs="+", choices=list(PARTS), default=list(PARTS))
    parser.add_argument("--out", type=Path, default=ROOT / "runs" / "accelerator")
    parser.add_argument("--quick", action="store_true", help="toy sizes")
    parser.add_argument("--part", metavar="MODULE:NAME", help=argparse.SUPPRESS)
    options = parser.parse_args()
    options.out.mkdir(parents=True, exist_ok=True)
    if options.part:
        in_process(options.part, options.out, options.quick)
        return
    with told_to_stop():
        found = run_parts({name: PARTS[name] for name in options.only}, options.out, options.minutes, options.quick)
    print(json.dumps(found))
    if any(entry["ended"] != "done" for entry in found["parts"].values()):
        sys.exit(1)


if __name__ == "__main__":
    main()
