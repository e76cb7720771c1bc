"""Mutation tests: do the tests of a file fail when the file is changed in one place?

python bench/mutants.py PATH… [--tests TEST…] [--kinds constant …] [--most N] [--seed 0] [--timeout-s S] [--python PY] [--quick]

Changes numbers, booleans, comparisons, operators, `and`/`or`/`not`, min/max, and drops calls and augmented assignments, one
at a time (bench/mutant_list.py), in a copy of the repository in a temporary folder. Runs the tests that mirror the file and
the nearest that import it (bench/mutant_tests.py) without the slow ones, those first that have failed before, then fast
files, up to the first failure, each mutant in a child of a warm process (bench/mutant_worker.py). A mutant that takes too
long counts as killed. --most: that many mutants of each file, drawn by --seed. Prints each mutant with its verdict; the last
line is one JSON object. --quick: 4 mutants of ove/stream/order.py. Exit code 1 if tests fail on an unchanged file or a file
has none.
"""

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from mutant_list import KINDS, Mutant, mutants
from mutant_tests import Imports
from mutant_worker import work

ROOT = Path(__file__).resolve().parents[1]
QUICK = "ove/stream/order.py"


class NoBaseline(Exception):
    """The tests do not pass on the unchanged file, or there are none."""


def main() -> int:
    """Tries the mutants of each file; 1 if a file could not be judged."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("paths", nargs="*", type=Path, metavar="PATH", help="source files of this repository")
    parser.add_argument("--tests", nargs="+", type=Path, metavar="TEST", help="instead of those that belong to the file")
    parser.add_argument("--kinds", nargs="+", choices=KINDS, default=KINDS)
    parser.add_argument("--most", type=int, help="mutants of each file")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--timeout-s", type=float, help="for one mutant; else 5 times the unchanged file's time, at least 60 s")
    parser.add_argument("--python", default=sys.executable, help="interpreter of the tests")
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--worker", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.worker:
        work(options.worker)
    paths = options.paths
    if options.quick:
        paths, options.most = paths or [Path(QUICK)], options.most or 4
    if not paths:
        parser.error("name a source file, such as ove/centers/rows.py")
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the copy is removed
    started, found, failed = time.monotonic(), {}, []
    for path in paths:
        name = path.resolve().relative_to(ROOT)
        chosen = drawn(name, mutants((ROOT / name).read_text(), tuple(options.kinds)), options.most, options.seed)
        try:
            found[str(name)] = tried(ROOT, name, chosen, options.tests, options.timeout_s, options.python)
        except NoBaseline as error:
            print(f"{name}: {error}", file=sys.stderr, flush=True)
            failed.append(str(name))
    counts = {key: sum(len(row[key]) if key == "survivors" else row[key] for row in found.values()) for key in _COUNTS}
    summary: dict[str, Any] = {"bench": "mutants", "seed": options.seed, "most": options.most}
    summary |= {"mutants": counts["mutants"], "killed": counts["killed"], "survived": counts["survivors"]}
    summary |= {"timed_out": counts["timed_out"], "seconds": round(time.monotonic() - started, 1)}
    print(json.dumps(summary | {"not_judged": failed, "files": found}))
    return 1 if failed else 0


_COUNTS = ("mutants", "killed", "timed_out", "survivors")


def drawn(path: Path, all_: list[Mutant], most: int | None, seed: int) -> list[Mutant]:
    """At most `most` of the mutants of a file, by position; a function of seed, path and list."""
    if most is None or len(all_) <= most:
        return all_
    return sorted(random.Random(f"{seed}:{path}").sample(all_, most), key=lambda m: (m.start, m.end, m.after))


def tried(
    root: Path, path: Path, chosen: list[Mutant], tests: list[Path] | None, timeout_s: float | None, python: str
) -> dict[str, Any]:
    """Runs the tests of `path` (relative to `root`) on each mutant: counts, survivors as "file:line  before  →  after", and the
    time that the tests take on the unchanged file. `killed` contains those that timed out."""
    graph, source = Imports(root), (root / path).read_text()
    files = [test if not test.is_absolute() else test.relative_to(root) for test in tests or graph.tests_of(path)]
    if not files:
        raise NoBaseline("no test file mirrors or imports it; name some with --tests")
    print(f"{path}: {len(chosen)} mutants; {' '.join(map(str, files))}", flush=True)
    result: dict[str, Any] = {"mutants": len(chosen), "killed": 0, "timed_out": 0, "survivors": []}
    with tempfile.TemporaryDirectory() as folder:
        job = {
            "file": str(path),
            "tests": list(map(str, files)),
            "timeout_s": timeout_s,
            "warm": warm_modules(graph, path, files),
            "changing": sorted(_dotted(file) for file in graph.users(path) if path.parts[0] == "ove"),
        }
        job["mutants"] = [mutant.apply(source) for mutant in chosen]
        for answer in _answers(root, Path(folder), job, python):
            if answer.get("baseline"):
                if answer["code"]:
                    failed = answer["failed"] or [f"exit code {answer['code']}"]
                    raise NoBaseline(f"the tests do not pass on the unchanged file: {' '.join(failed)}")
                result["tests_s"] = answer["seconds"]
                continue
            mutant = chosen[answer["mutant"]]
            before, after = mutant.lines(source)
            told = f"{path}:{mutant.line}  {before}  →  {after}"
            if answer["code"] == 0:
                result["survivors"].append(told)
            else:
                result["killed"] += 1
                result["timed_out"] += answer["code"] is None
            killer = answer["failed"][0] if answer["failed"] else f"exit code {answer['code']}"
            verdict = {0: "SURVIVED", None: "timed out"}.get(answer["code"], f"killed by {killer}")
            print(f"{answer['seconds']:7.1f} s  {told}  {verdict}", flush=True)
    result["survived"] = len(result["survivors"])
    return result


def _answers(root: Path, folder: Path, job: dict[str, Any], python: str) -> Iterator[dict[str, Any]]:
    """Starts the worker in a copy of the repository and passes on what it says."""
    copy, cache = folder / "repository", folder / "compiled"
    copy_repository(root, copy)
    cache.mkdir()
    job |= {"cache": str(cache), "scratch": str(folder), "log": str(folder / "log")}
    (folder / "job.json").write_text(json.dumps(job))
    environment = os.environ | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "PYTEST_DEBUG_TEMPROOT": str(folder / "pytest"),
    }
    command = [python, str(Path(__file__).resolve()), "--worker", str(folder / "job.json")]
    done = 0
    with subprocess.Popen(command, cwd=copy, env=environment, stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            for line in process.stdout:
                answer = json.loads(line)
                done += "mutant" in answer
                if answer.get("baseline") and answer["code"]:
                    print((folder / "log").read_text()[-4000:], file=sys.stderr)
                yield answer
        finally:
            process.terminate()
    if done < len(job["mutants"]):
        raise NoBaseline(f"the worker ended early: {(folder / 'log').read_text()[-2000:]}")


def copy_repository(root: Path, copy: Path) -> None:
    """Copies what git tracks or would track (without git: all but hidden folders and bytecode), and links the folder `shared`
    beside the repository, if there is one, beside the copy."""
    listing = ["git", "-C", str(root), "ls-files", "-z", "--cached", "--others", "--exclude-standard"]
    if (root / ".git").exists():
        names = subprocess.run(listing, stdout=subprocess.PIPE, text=True, check=True).stdout.split("\0")
    else:
        names = [str(p.relative_to(root)) for p in root.rglob("*") if not any(x[0] == "." for x in p.relative_to(root).parts)]
    for name in names:
        if name and (root / name).is_file() and "__pycache__" not in name:
            (copy / name).parent.mkdir(parents=True, exist_ok=True)
            (copy / name).write_bytes((root / name).read_bytes())
            (copy / name).chmod((root / name).stat().st_mode)
    if (shared := root.parent / "shared").exists():
        (copy.parent / "shared").symlink_to(shared.resolve())


def warm_modules(graph: Imports, path: Path, tests: list[Path]) -> list[str]:
    """What the parent process may import before the file is changed: modules that the tests need and that do not need the file,
    of the repository (below ove/) and of others."""
    users, names = graph.users(path), set()
    for file in graph.needs(tests):
        if file.parts[0] == "ove" and file not in users and path.parts[0] == "ove":
            names.add(_dotted(file))
        names |= {name for name in graph.names[file] if graph.resolve(name, file) is None}
    return sorted(names, key=lambda name: (name.startswith("ove"), name))


def _dotted(file: Path) -> str:
    return ".".join(file.with_suffix("").parts).removesuffix(".__init__")


if __name__ == "__main__":
    sys.exit(main())
