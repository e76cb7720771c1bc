"""Studies that train probes: budgets, interventions, options of the saliency. Earlier scores are reused."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from statistics import fmean

from matplotlib.figure import Figure

from ove.config.probe import Intervention
from ove.probing.compare import Comparison, ComparisonRow, compare
from ove.probing.score_cache import ScoreCache
from ove.shards.joined import open_shards
from ove.studies.sets import Bench, called
from ove.studies.study import Column, Study, Value
from ove.view import plots

_SCORES = (
    Column("top-1", "share"),
    Column("± (95 %)", "share"),
    Column("best epoch", "share"),
    Column("mean class", "share"),
    Column("train", "share"),
    Column("scored", "count"),
    Column("each seed"),
)
_CHANGES: dict[Intervention, str] = {
    "none": "intact",
    "non_motion": "half: not chosen, same video",
    "other_video": "half: chosen in another video",
    "shuffle": "positions shuffled",
}
"""Paper, table 6, in its order."""


def budget(bench: Bench) -> Study:
    """Compares codec and whole frames at equal budgets (paper, table 5)."""
    config = replace(
        bench.config.probe,
        modes=("codec", "frames"),
        interventions=("none",),
        selection=replace(bench.config.probe.selection, iframe_policy=bench.config.budget_policy),
        untrained=False,
    )
    found = compare(config, bench.tell, ScoreCache(bench.out / "scores"))
    by_mode = {mode: sorted((r for r in found.rows if r.mode == mode), key=lambda r: r.budget) for mode in config.modes}
    margins = [c.top1()[0] - f.top1()[0] for c, f in zip(*by_mode.values(), strict=True)]
    words = (
        f"{_of(found)} Codec and whole frames see equally many tokens of the same 64 frames. The codec's first frame is whole "
        f"(iframe_policy = {config.selection.iframe_policy}), at every budget.",
        _verdict(margins, [row.budget for row in by_mode["codec"]])
        + " "
        + " ".join(_course(mode, rows) for mode, rows in by_mode.items()),
        _errors(found),
    )
    curves = [
        plots.Curve(mode, [r.budget for r in rows], [r.top1()[0] for r in rows], [r.top1()[1] for r in rows])
        for mode, rows in by_mode.items()
    ]
    patches = math.prod(open_shards(config.val_shards).grid_tyx)
    ticks = {float(r.budget): f"{r.budget:,}\n({r.budget / patches:.1%})" for r in found.rows}
    figure = plots.curves(curves, "tokens of a clip (of all patches)", "top-1, %", ("chance", 1 / found.n_classes), ticks)
    rows = [(r.mode, r.budget, r.budget / patches, *_scores(r)) for r in found.rows]
    columns = (Column("input"), Column("tokens", "count"), Column("of all patches", "share"), *_SCORES)
    shows = "Top-1 over the number of tokens, one line for what the codec chose and one for whole frames, with error bars."
    return Study("budget", "Budget: codec against frames", words, columns, rows, figure, shows)


def interventions(bench: Bench) -> Study:
    """Measures the score after interventions on the chosen patches (paper, table 6)."""
    config = replace(bench.probe, interventions=tuple(_CHANGES))
    found = compare(config, bench.tell, ScoreCache(bench.out / "scores"))
    by_kind = {_CHANGES[row.intervention]: row for row in found.rows}  # type: ignore[index]
    means = [row.top1()[0] for row in found.rows]
    as_paper = means[0] > means[1] > means[2] >= means[3]
    order = _order({name: row.top1()[0] for name, row in by_kind.items()})
    words = (
        f"{_of(found)} {bench.config.budget_tokens:,} tokens; number and places of the tokens stay as they are. Half of the "
        "chosen patches (not of the frames that are kept whole) show something else, or all tokens exchange their places. "
        "Probes are trained and scored on clips that are damaged alike, with the same seed for all probes.",
        f"Order found: {order}. "
        + ("This is the paper's order." if as_paper else "The paper's is: " + " > ".join(by_kind) + "."),
        _errors(found),
    )
    figure = _dots(by_kind, found.n_classes)
    rows = [(name, row.top1()[0] - means[0] if n else None, *_scores(row)) for n, (name, row) in enumerate(by_kind.items())]
    columns = (Column("content of the chosen patches"), Column("against intact, points", "points"), *_SCORES)
    shows = "Top-1 with intact patches and with three kinds of damage, single seeds and means with error bars."
    return Study("interventions", "Interventions: what the choice is worth", words, columns, rows, figure, shows)


def ablation(bench: Bench) -> Study:
    """Compares other settings of the choice, one at a time."""
    found, cache = {}, ScoreCache(bench.out / "scores")
    for option in ("", *bench.config.options):
        bench.tell(f"option: {called(option)}")
        found[called(option)] = compare(replace(bench.with_option(option), interventions=("none",)), bench.tell, cache)
    by_name = {name: comparison.rows[0] for name, comparison in found.items()}
    base = next(iter(found.values()))
    base_top1, base_half = base.rows[0].top1()
    clear = [
        f"{name} ({100 * (row.top1()[0] - base_top1):+.1f})"
        for name, row in list(by_name.items())[1:]
        if abs(row.top1()[0] - base_top1) > _joint(row.top1()[1], base_half)
    ]
    words = (
        f"{_of(base)} {bench.config.budget_tokens:,} tokens. Each option changes what the codec chooses of the same videos; "
        "all else is as in the shards of the probe. The encoder stays the same: if it was trained on what the configured way "
        "chooses, that is in this way's favour.",
        ("Beyond the error bars of both: " + "; ".join(clear) + "." if clear else "No option is beyond the error bars.")
        + " Options that were compared in this way and found best are best on these validation videos.",
        _errors(base),
    )
    rows = [(name, row.top1()[0] - base_top1 if n else None, *_scores(row)) for n, (name, row) in enumerate(by_name.items())]
    columns = (Column("option"), Column("against configured, points", "points"), *_SCORES)
    shows = "Top-1 with each option beside that of the configured way, single seeds and means with error bars."
    figure = _dots(by_name, base.n_classes)
    return Study("ablation", "Options of the saliency", words, columns, rows, figure, shows)


def _dots(by_name: dict[str, ComparisonRow], n_classes: int) -> Figure:
    values = {name: [scores.last.top1 for scores in row.scores] for name, row in by_name.items()}
    halves = {name: row.top1()[1] for name, row in by_name.items()}
    return plots.dots(values, halves, "top-1, %", ("chance", 1 / n_classes))


def _scores(row: ComparisonRow) -> tuple[Value, ...]:
    mean, half = row.top1()
    last = [scores.last for scores in row.scores]
    return (
        mean,
        half,
        fmean(scores.best.top1 for scores in row.scores),
        fmean(accuracy.mean_class for accuracy in last),
        fmean(scores.train.top1 for scores in row.scores),
        last[0].samples,
        "  ".join(f"{accuracy.top1:.1%}" for accuracy in last),
    )


def _of(found: Comparison) -> str:
    words = found.encoder[0].upper() + found.encoder[1:]
    return f"{words}, frozen; {found.probe} probe, {found.n_train:,} videos to train it, {found.n_val:,} to score it."


def _errors(found: Comparison) -> str:
    """Explains the error bars."""
    scores = found.rows[0].scores
    low, high = scores[0].last.interval()
    bars = (
        f"Error bars: 95 % interval of the mean over {len(scores)} seeds of the probe, on one encoder."
        if len(scores) > 1
        else "One seed of the probe, so there are no error bars."
    )
    return (
        f"{bars} What other validation videos would change is not in them: the 95 % interval of a single score for their "
        f"number is about ±{50 * (high - low):.1f} points; but all scores are on the same videos, each scored exactly once."
    )


def _order(means: dict[str, float]) -> str:
    """Orders names by mean, the highest first, with = between equal ones."""
    names = sorted(means, key=lambda name: -means[name])
    signs = (" = " if means[a] == means[b] else " > " for a, b in itertools.pairwise(names))
    return names[0] + "".join(sign + name for sign, name in zip(signs, names[1:], strict=True))


def _verdict(margins: Sequence[float], budgets: Sequence[int]) -> str:
    least = min(range(len(margins)), key=margins.__getitem__)
    where = "at every budget" if margins[least] > 0 else f"at {sum(m > 0 for m in margins)} of {len(margins)} budgets"
    smallest = f"{100 * margins[least]:+.1f} points, at {budgets[least]:,} tokens"
    return f"Codec is above frames {where}; the smallest margin is {smallest}."


def _course(mode: str, rows: Sequence[ComparisonRow]) -> str:
    """Says whether a curve rises and, where it falls, by how much beside the error bars."""
    means = [100 * row.top1()[0] for row in rows]
    falls = [
        f"{b - a:+.1f} points from {rows[n].budget:,} to {rows[n + 1].budget:,} tokens, where the error bars together are "
        f"±{100 * _joint(rows[n].top1()[1], rows[n + 1].top1()[1]):.1f}"
        for n, (a, b) in enumerate(itertools.pairwise(means))
        if b < a
    ]
    return f"The curve of {mode} goes from {means[0]:.1f} to {means[-1]:.1f} %" + (
        f", but not upwards everywhere: {'; '.join(falls)}." if falls else " and nowhere falls."
    )


def _joint(a: float, b: float) -> float:
    return math.hypot(0.0 if math.isnan(a) else a, 0.0 if math.isnan(b) else b)
