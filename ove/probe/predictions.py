"""What every probe of a comparison says of each validation sample, as a file: for confusions and for one's own scores."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ove.errors import BadInput, ConfigError
from ove.files import atomic_write
from ove.probe.compare import Comparison
from ove.probe.report import LOOK
from ove.probe.scores import AMONG

SUFFIXES = (".jsonl", ".csv")
_PAIR = ("class", "probability")
_DIGITS = 6
"""Of probabilities."""


def check_name(path: Path) -> None:
    """ConfigError unless the name says which kind of file is wanted."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: predictions are written as {' or '.join(SUFFIXES)}; end the name in one of these.")


def predictions(comparison: Comparison, names: Sequence[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    """A line for each encoder, way of looking, seed and validation sample, in the order of the comparison and of the set.

    `names`: key and class name of each sample (`ShardSet.names`). A line has `mode`, `budget`, `intervention`, `untrained`,
    `seed_number`, `key`, `label`, `classes` (up to five names, the most probable first) and their `probabilities`, 0…1.
    BadInput if the names are not those of the samples, or scores were kept from earlier, without what was said.
    """
    if len(names) != comparison.n_val:
        raise BadInput(f"{len(names)} names for {comparison.n_val} validation samples; give those of the same shards.")
    for row in comparison.rows:
        if len(row.said) != len(row.scores):
            raise BadInput(f"{row.name}: its scores were kept from earlier, without predictions; probe without what is kept.")
        about = {name: getattr(row, name) for name in LOOK}
        for number, said in enumerate(row.said):
            for (key, label), classes, shares in zip(names, said.classes, said.probabilities, strict=True):
                yield about | {
                    "seed_number": number,
                    "key": key,
                    "label": label,
                    "classes": [comparison.classes[n] for n in classes],
                    "probabilities": [round(float(share), _DIGITS) for share in shares],
                }


def write_predictions(path: Path, comparison: Comparison, names: Sequence[tuple[str, str | None]]) -> None:
    """`predictions` as JSON lines, or as CSV with columns `class_1`, `probability_1`, …; the file appears whole.

    ConfigError for a name with another suffix; otherwise as `predictions`.
    """
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            for line in predictions(comparison, names):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            n = min(AMONG, comparison.n_classes)
            writer = csv.writer(file, lineterminator="\n")
            writer.writerow([*LOOK, "seed_number", "key", "label", *(f"{what}_{k + 1}" for k in range(n) for what in _PAIR)])
            for line in predictions(comparison, names):
                pairs = zip(line.pop("classes"), line.pop("probabilities"), strict=True)
                writer.writerow([*line.values(), *(value for pair in pairs for value in pair)])
