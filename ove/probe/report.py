"""The probe's table, for people and for programs."""

from typing import Any

from ove.probe.compare import Comparison


def table(comparison: Comparison) -> str:
    """A markdown table of top-1 accuracies in percent: an encoder a row, an input mode a column."""
    scores = {(row.trained, row.mode): row.scores.top1_last for row in comparison.rows}
    modes = list(dict.fromkeys(row.mode for row in comparison.rows))
    lines = ["| encoder | " + " | ".join(f"{mode}, {_tokens(mode, comparison)}" for mode in modes) + " |"]
    lines.append("|---" * (len(modes) + 1) + "|")
    for trained, name in ((True, "trained"), (False, "untrained")):
        if (trained, modes[0]) in scores:
            lines.append(f"| {name} | " + " | ".join(f"{scores[trained, mode]:.1%}" for mode in modes) + " |")
    lines.append("| chance | " + " | ".join([f"{1 / comparison.n_classes:.1%}"] * len(modes)) + " |")
    return "\n".join(lines) + "\n"


def as_json(comparison: Comparison) -> dict[str, Any]:
    """`probe`: top-1 by name; `probe_best_epoch` and `probe_train`: likewise; what they were measured on; `table`."""
    rows = comparison.rows
    return {
        "probe": {row.name: row.scores.top1_last for row in rows},
        "probe_best_epoch": {row.name: row.scores.top1_best for row in rows},
        "probe_train": {row.name: row.scores.train_top1_last for row in rows},
        "budget_tokens": comparison.budget_tokens,
        "classes": comparison.n_classes,
        "train_videos": comparison.n_train,
        "val_videos": comparison.n_val,
        "encoder_step": comparison.step,
        "table": table(comparison),
    }


def _tokens(mode: str, comparison: Comparison) -> str:
    return "one frame" if mode == "image" else f"{comparison.budget_tokens} tokens"
