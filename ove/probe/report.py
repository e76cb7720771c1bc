"""The probe's table, for people and for programs."""

from collections.abc import Sequence
from typing import Any

from ove.config import ProbeConfig
from ove.probe.compare import Row


def table(rows: Sequence[Row], config: ProbeConfig, n_classes: int) -> str:
    """A markdown table of top-1 accuracies in percent: an encoder a row, an input mode a column."""
    modes = list(dict.fromkeys(row.mode for row in rows))
    lines = ["| encoder | " + " | ".join(f"{mode}, {config.budget_tokens} tokens" for mode in modes) + " |"]
    lines.append("|---" * (len(modes) + 1) + "|")
    for trained, name in ((True, "trained"), (False, "untrained")):
        cells = [f"{row.scores.top1_last:.1%}" for mode in modes for row in rows if row.trained is trained and row.mode == mode]
        if cells:
            lines.append(f"| {name} | " + " | ".join(cells) + " |")
    lines.append("| chance | " + " | ".join([f"{1 / n_classes:.1%}"] * len(modes)) + " |")
    return "\n".join(lines) + "\n"


def as_json(rows: Sequence[Row], config: ProbeConfig) -> dict[str, Any]:
    """`probe`: top-1 by name; `probe_best_epoch` and `probe_train`: likewise; `budget_tokens`."""
    return {
        "probe": {row.name: row.scores.top1_last for row in rows},
        "probe_best_epoch": {row.name: row.scores.top1_best for row in rows},
        "probe_train": {row.name: row.scores.train_top1_last for row in rows},
        "budget_tokens": config.budget_tokens,
    }
