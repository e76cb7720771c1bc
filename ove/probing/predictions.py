"""Writes the predictions of all probes of a comparison, per validation sample, as JSON lines or CSV."""

import csv
import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from ove.errors import BadInput, ConfigError
from ove.files import atomic_write
from ove.paths import begins_with
from ove.probing.compare import Comparison
from ove.probing.report import CONDITION
from ove.probing.scores import TOP_K

SUFFIXES = (".jsonl", ".csv")
_PAIR = ("class", "probability")
_DIGITS = 6
"""Decimals of probabilities."""


def check_name(path: Path) -> None:
    """Raises ConfigError for an unknown suffix."""
    if path.suffix not in SUFFIXES:
        raise ConfigError(f"{path}: predictions are written as {' or '.join(SUFFIXES)}; end the name in one of these.")


def prediction_rows(comparison: Comparison, names: Sequence[tuple[str, str | None]]) -> Iterator[dict[str, Any]]:
    """Yields a row for each condition, seed and validation sample, in the order of the comparison and of the set.

    `names`: key and class name of each sample (`ShardSet.names`). A row has `mode`, `budget`, `intervention`, `untrained`,
    `seed_number`, `key`, `label`, `classes` (up to five names, the most probable first) and their `probabilities`, 0…1.
    BadInput for another number of names, or for cached scores, which have no predictions.
    """
    if len(names) != comparison.n_val:
        raise BadInput(f"{len(names)} names for {comparison.n_val} validation samples; give those of the same shards.")
    for row in comparison.rows:
        if len(row.predictions) != len(row.scores):
            raise BadInput(f"{row.name}: its scores come from the cache, without predictions; probe without a cache.")
        about = {name: getattr(row, name) for name in CONDITION}
        for number, predictions in enumerate(row.predictions):
            for (key, label), classes, shares in zip(names, predictions.classes, predictions.probabilities, strict=True):
                yield about | {
                    "seed_number": number,
                    "key": key,
                    "label": label,
                    "classes": [comparison.classes[n] for n in classes],
                    "probabilities": [round(float(share), _DIGITS) for share in shares],
                }


def are_predictions(path: Path) -> bool:
    """Returns whether a file is what `write_predictions` writes."""
    columns = [*CONDITION, "seed_number", "key"]
    return begins_with(path, ",".join(columns)) or begins_with(path, f'{{"{CONDITION[0]}": ')


def write_predictions(path: Path, comparison: Comparison, names: Sequence[tuple[str, str | None]]) -> None:
    """Writes `prediction_rows` atomically: JSON lines, or CSV with columns `class_1`, `probability_1`, …

    ConfigError for another suffix; otherwise as `prediction_rows`.
    """
    check_name(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        if path.suffix == ".jsonl":
            for line in prediction_rows(comparison, names):
                file.write(json.dumps(line, ensure_ascii=False) + "\n")
        else:
            n = min(TOP_K, comparison.n_classes)
            writer = csv.writer(file, lineterminator="\n")
            columns = (f"{name}_{k + 1}" for k in range(n) for name in _PAIR)
            writer.writerow([*CONDITION, "seed_number", "key", "label", *columns])
            for line in prediction_rows(comparison, names):
                pairs = zip(line.pop("classes"), line.pop("probabilities"), strict=True)
                writer.writerow([*line.values(), *(value for pair in pairs for value in pair)])
