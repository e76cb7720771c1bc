"""`ove verify SHARDS…`: checks every checksum and record of shard folders, and summarises them."""

import argparse
import os
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from ove.errors import BadShard, Unavailable
from ove.records import BANKS
from ove.shards.labels import NONE, read_labels, verify_labels
from ove.shards.manifest import Manifest, read_manifest
from ove.shards.remote.remote_shards import local_file, local_folder
from ove.shards.verify import Problem, Verified, verify

from .cli.command import command_parser, run_command
from .cli.numbers import number
from .cli.progress_line import shown

_SHOWN = 12
"""Classes, codecs and so on that are named; the rest is counted."""
_BLOCK_ROWS = 1 << 20
_BANKS_OF = {"video": ("vid", "obj"), "image": ("obj",)}
"""Banks that `ove labels` makes, by the kind of records."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints a summary of each folder, then all problems; returns 0 if there are none, else 1."""
    options = _parser().parse_args(arguments)
    problems: list[tuple[str, Problem]] = []
    for folder in options.shards:
        try:
            here = local_folder(folder)
            manifest = read_manifest(here)
            found = verify(here, options.decode, options.workers, shown("shards").of(folder))
            banks, of_labels = label_lines(here)
        except (BadShard, Unavailable) as error:
            problems.append((folder, Problem("", str(error))))
            print(f"{folder}: cannot be read\n")
            continue
        print("\n".join(summary(folder, manifest, found, banks)) + "\n")
        problems += [(folder, problem) for problem in (*found.problems, *of_labels)]
    for folder, problem in problems:
        place = f" record {problem.record}" if problem.record is not None else ""
        print(f"{folder}: {problem.file}{place}: {problem.reason}" if problem.file else problem.reason)
    if problems:
        print(f"{len(problems)} problem{'s' if len(problems) > 1 else ''}.")
        return 1
    print("Nothing is wrong: every checksum agrees and every record can be read.")
    return 0


def label_lines(folder: Path) -> tuple[list[str], list[Problem]]:
    """Returns a line about each label file of a set, and their problems."""
    lines, problems = [], []
    for bank in BANKS:
        if not local_file(folder, f"labels/{bank}.json").exists():
            continue
        try:
            verify_labels(folder, bank)
            found = read_labels(folder, bank)
        except BadShard as error:
            problems.append(Problem(f"labels/{bank}.json", str(error)))
            lines.append(f"{bank} damaged (see below)")
            continue
        starts = range(0, len(found.labels), _BLOCK_ROWS)
        labelled = sum(int((found.labels[s : s + _BLOCK_ROWS] != NONE).any(axis=1).sum()) for s in starts)
        most = int(np.shape(found.labels)[1])
        lines.append(f"{bank} {labelled:,} records, up to {most} of {found.n_centers:,} centers (beside the shards)")
    return lines, problems


def summary(folder: str, manifest: Manifest, found: Verified, banks: Sequence[str]) -> list[str]:
    """Summarises a folder, line by line."""
    within = [
        f"{bank} {count:,} records, {_span(*manifest.labels_per_record[bank])} of {manifest.banks[bank]:,} centers (within)"
        for bank, count in sorted(found.banks.items())
        if bank in manifest.banks
    ]
    form = ""
    if manifest.grid_tyx is not None:
        frames, rows, columns = manifest.grid_tyx
        form = f", {frames} frames of {manifest.size_px} × {manifest.size_px} px, {rows} × {columns} patches each"
    lines = [
        f"{folder}",
        f"  records   {found.records:,} of {manifest.records:,} in {len(manifest.shards)} shards, {_bytes(found.bytes)}",
        f"  kind      {_counts(found.kinds)}{form}",
        f"  classes   {_classes(found)}",
        f"  codecs    {_counts(found.codecs)}",
        f"  sources   {_counts(found.sources)}",
        f"  forms     {_counts(found.forms)}",
        *short_lines(found),
    ]
    labels = [*within, *banks]
    told = {line.partition(" ")[0] for line in labels}
    lacking = [bank for bank in _BANKS_OF[manifest.kind] if bank not in told]
    if lacking:
        labels.append(f"{' and '.join(lacking)} none (class centers; `ove labels` makes them)")
    return [*lines, *(f"  {'' if n else 'labels':<9} {line}" for n, line in enumerate(labels))]


def _classes(found: Verified) -> str:
    """Says how many records have class names, and which."""
    named = sum(found.classes.values())
    if not named:
        return "none (no record has a class name)"
    without = f"; {found.records - named:,} records without a class name" * (named < found.records)
    return f"{len(found.classes):,}: {_counts(found.classes)}{without}"


def short_lines(found: Verified) -> list[str]:
    """Returns a line about videos of fewer frames than are stored, if there are any."""
    if not found.short:
        return []
    frames = _span(min(found.short), max(found.short))
    return [f"  short     {found.short.total():,} videos have fewer frames ({frames}); their copies give no tokens"]


def _span(fewest: int, most: int) -> str:
    return f"{most}" if fewest == most else f"{fewest} to {most}"


def _counts(counts: Counter[str]) -> str:
    shown = [f"{name} {count:,}" for name, count in counts.most_common(_SHOWN)]
    rest = len(counts) - len(shown)
    return ", ".join(shown + [f"and {rest:,} more"] * bool(rest)) or "none"


def _bytes(count: int) -> str:
    for unit, size in (("GB", 1e9), ("MB", 1e6), ("kB", 1e3)):
        if count >= size:
            return f"{count / size:.1f} {unit}"
    return f"{count} bytes"


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("verify", __doc__)
    parser.add_argument("shards", nargs="+", metavar="SHARDS", help="shard folders, or URIs of some (docs/remote.md)")
    parser.add_argument("--decode", action="store_true", help="also decode every picture of every record")
    parser.add_argument("--workers", type=number(0), default=min(8, os.cpu_count() or 1), help="processes; 0: none")
    return parser


if __name__ == "__main__":
    run_command(main)
