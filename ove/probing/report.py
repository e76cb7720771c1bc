"""Formats a comparison as a markdown table, CSV and JSON."""

import csv
import io
import math
from pathlib import Path
from statistics import fmean
from typing import Any

from ove.paths import begins_with, holds_keys
from ove.probing.compare import Comparison, ComparisonRow

CONDITION = ("mode", "budget", "intervention", "untrained")
"""Columns that identify a probe, together with the index of its seed."""


def table(comparison: Comparison) -> str:
    """Returns a markdown table of top-1 in percent: rows are encoders and interventions, columns modes and budgets.

    Means over the seeds; with several seeds ± half of the 95 % interval.
    """
    columns = list(dict.fromkeys((row.mode, row.budget) for row in comparison.rows))
    lines = ["| encoder | " + " | ".join(f"{mode}, {_tokens(mode, budget)}" for mode, budget in columns) + " |"]
    lines.append("|---" * (len(columns) + 1) + "|")
    for fresh, intervention in dict.fromkeys((row.untrained, row.intervention) for row in comparison.rows):
        found = {(r.mode, r.budget): r for r in comparison.rows if (r.untrained, r.intervention) == (fresh, intervention)}
        # Whether the given weights are trained is unknown here.
        name = ("untrained" if fresh else "given weights") + (
            "" if intervention == "none" else f", {intervention.replace('_', ' ')}"
        )
        lines.append(f"| {name} | " + " | ".join(percent(found.get(column)) for column in columns) + " |")
    lines.append("| chance | " + " | ".join([f"{1 / comparison.n_classes:.1%}"] * len(columns)) + " |")
    return "\n".join(lines) + "\n"


def percent(row: ComparisonRow | None) -> str:
    """Returns `66.1%` or `66.1 ± 2.0%`; empty without a row."""
    if row is None:
        return ""
    mean, half = row.top1()
    return f"{mean:.1%}" if math.isnan(half) else f"{100 * mean:.1f} ± {100 * half:.1f}%"


def as_csv(comparison: Comparison) -> str:
    """Returns one line per row and seed: mode, budget, intervention, untrained, seed index, then all accuracies, 0…1."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    scores = ("top1", "top5", "mean_class", "best_epoch", "best_top1", "train_top1", "samples")
    writer.writerow([*CONDITION, "seed_number", *scores])
    for row in comparison.rows:
        for number, s in enumerate(row.scores):
            found = (s.last.top1, s.last.top5, s.last.mean_class, s.best_epoch, s.best.top1, s.train.top1, s.last.samples)
            writer.writerow([*(getattr(row, name) for name in CONDITION), number, *found])
    return text.getvalue()


def is_report(path: Path) -> bool:
    """Returns whether a file is what `as_json` or `as_csv` gave."""
    return holds_keys(path, "probe", "rows", "table") or begins_with(path, ",".join([*CONDITION, "seed_number", "top1"]))


def as_json(comparison: Comparison) -> dict[str, Any]:
    """Returns all scores as JSON.

    `rows`: everything. `probe`, `probe_best_epoch`, `probe_train`: mean top-1 by name, at the first budget and without
    intervention. Also the encoder, the sizes of the data sets, and `table`.
    """
    first = comparison.rows[0].budget
    plain = [row for row in comparison.rows if row.intervention == "none" and (row.budget == first or row.mode == "image")]
    return {
        "probe": {row.name: fmean(s.last.top1 for s in row.scores) for row in plain},
        "probe_best_epoch": {row.name: fmean(s.best.top1 for s in row.scores) for row in plain},
        "probe_train": {row.name: fmean(s.train.top1 for s in row.scores) for row in plain},
        "budget_tokens": first,
        "classes": comparison.n_classes,
        "train_samples": comparison.n_train,
        "val_samples": comparison.n_val,
        "val_samples_of_unknown_classes": comparison.n_unknown,
        "encoder": comparison.encoder,
        "kind": comparison.probe,
        "rows": [_row(row) for row in comparison.rows],
        "table": table(comparison),
    }


def _row(row: ComparisonRow) -> dict[str, Any]:
    mean, half = row.top1()
    low, high = row.scores[0].last.interval()
    return {
        "mode": row.mode,
        "budget": row.budget,
        "intervention": row.intervention,
        "untrained": row.untrained,
        "top1": mean,
        "top1_half_width_over_seeds": None if math.isnan(half) else half,
        "top1_interval_of_first_seed": [low, high],
        "top5": fmean(s.last.top5 for s in row.scores),
        "mean_class": fmean(s.last.mean_class for s in row.scores),
        "best_epoch_top1": fmean(s.best.top1 for s in row.scores),
        "train_top1": fmean(s.train.top1 for s in row.scores),
        "samples": row.scores[0].last.samples,
        "seeds": [s.last.top1 for s in row.scores],
    }


def _tokens(mode: str, budget: int) -> str:
    return "one picture" if mode == "image" else f"{budget:,} tokens"
