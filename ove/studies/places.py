"""Studies without training: where and when patches are chosen, and retrieval of the same video."""

import math
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import Int

from ove.features.frozen import open_frozen
from ove.probing.choices import Choices, choices_of
from ove.probing.retrieval import CLIP_PARTS, retrieve
from ove.probing.scores import mean_and_half_width
from ove.studies.sets import Bench, called
from ove.studies.study import Column, Study, Value
from ove.view import plots

_MOST = (10, 90)
"""Percentiles of the bands, which cover four of five clips."""


def bias(bench: Bench) -> Study:
    """Maps how often each place of the picture is chosen (paper, figure 8)."""
    found = _choices(bench)
    rows: list[tuple[Value, ...]] = []
    for name, choices in found.items():
        shares = choices.in_middle[~np.isnan(choices.in_middle)].tolist()
        mean, half = mean_and_half_width(shares) if shares else (math.nan, math.nan)
        places = choices.map()
        even = choices.middle_share_if_even()
        extremes = float(np.nanmax(places)), float(np.nanmin(places))
        rows.append((name, mean, half, mean / even if even else math.nan, choices.evenness(), *extremes))
    first = next(iter(found.values()))
    even = first.middle_share_if_even()
    words = (
        f"{len(first.tokens):,} videos, {bench.config.budget_tokens:,} patches of each. Counted are frames of which a part "
        "is chosen; frames that are kept whole say nothing of where things happen. A map shows how often each place is chosen, "
        "over the mean of all places. Below each map: its least and its largest value.",
        f"The middle (without the outer quarter of rows and of columns, in whole patches; {even:.1%} of the picture) gets "
        f"{rows[0][1]:.1%} of the patches as configured"
        + "".join(f"; {row[1]:.1%} with {row[0]}" for row in rows[1:])
        + ". Evenness is the entropy of the map over that of an even one.",
        "sampling: uniform takes the signals of the sampled frames alone, accumulate those of all frames in between as well, "
        "consecutive samples nothing: it looks at as many frames on end. Intervals are over the videos.",
    )
    columns = (
        Column("choice"),
        Column("in the middle", "share"),
        Column("± (95 %)", "share"),
        Column("times even", "number"),
        Column("evenness", "number"),
        Column("most", "number"),
        Column("least", "number"),
    )
    figure = plots.maps({name: choices.map() for name, choices in found.items()}, "times as often as the mean place")
    shows = "Maps of how often each place of the picture is chosen, one for each way to choose."
    return Study("bias", "Where patches are chosen", words, columns, rows, figure, shows)


def allocation(bench: Bench) -> Study:
    """Compares the distribution of tokens over time with whole frames at the same budget (paper, figures 9 and 10)."""
    found = _choices(bench)
    shards, view = bench.choices("")
    n_frames, height, width = shards.grid_tyx
    uniform = np.zeros((1, n_frames), np.int64)
    spaced = view.frames_of_budget(shards.grid_tyx)
    uniform[0, np.minimum((np.arange(spaced) + 0.5) * n_frames / spaced, n_frames - 1).astype(int)] = height * width
    every = {f"codec, {name}": choices.tokens for name, choices in found.items()} | {"frames, uniform": uniform}
    rows: list[tuple[Value, ...]] = []
    for name, tokens in every.items():
        whole = tokens == height * width if name == "frames, uniform" else found[name.removeprefix("codec, ")].whole
        busiest = -np.sort(-tokens, axis=1)[:, : max(1, n_frames // 8)]
        rows.append(
            (
                name,
                float((tokens > 0).sum(axis=1).mean()),
                float((tokens > 0).mean()),
                float(whole.sum(axis=1).mean()),
                float((tokens * whole).sum() / tokens.sum()),
                float((busiest.sum(axis=1) / tokens.sum(axis=1)).mean()),
                float(tokens.std(axis=1).mean()),
            )
        )
    words = (
        f"{len(shards):,} videos, {bench.config.budget_tokens:,} tokens of the {n_frames} × {height} × {width} patches of "
        f"each. Whole frames at this budget are {spaced} of {n_frames}; what happens between them is not seen.",
        f"As configured the codec looks at {rows[0][1]:.1f} of the {n_frames} frames, {rows[0][3]:.1f} of them whole, and "
        f"gives {rows[0][5]:.1%} of its tokens to the {max(1, n_frames // 8)} frames of each clip that get the most.",
        f"Upper figure: tokens of each sampled frame, mean over the videos; the band holds the {_MOST[0]}th to {_MOST[1]}th "
        "percentile. Lower figure: the same with the frames of each clip in the order of their tokens, which shows how much a "
        "clip's budget is heaped on few of its frames, whenever that is.",
    )
    first = {"codec, as configured": next(iter(every.values())), "frames, uniform": uniform}
    figure = plots.over_time(
        {
            "In the order of time": [_stretch(name, tokens) for name, tokens in first.items()],
            "Frames of each clip by their tokens": [_stretch(name, -np.sort(-t, axis=1)) for name, t in first.items()],
        },
        ("sampled frame", "frame, from the one with the most tokens"),
        "tokens",
    )
    columns = (
        Column("input"),
        Column("frames seen", "number"),
        Column("of all frames", "share"),
        Column("whole frames", "number"),
        Column("tokens in whole ones", "share"),
        Column(f"in the busiest {max(1, n_frames // 8)} frames", "share"),
        Column("spread, tokens a frame", "number"),
    )
    shows = "Tokens of each sampled frame, chosen by the codec and in evenly spaced whole frames."
    return Study("allocation", "When patches are chosen", words, columns, rows, figure, shows)


def retrieval(bench: Bench) -> Study:
    """Measures how often the nearest embedding to a part of a video is that of its other part."""
    config = bench.probe
    shards, view = bench.choices("")
    encoder = open_frozen(Path(config.weights), config.compute)
    encoder.check(("codec", "image"))
    encoders = {"given weights": [encoder], "untrained": [encoder.untrained(seed) for seed in config.seeds]}
    chance = 1 / len(shards)
    rows: list[tuple[Value, ...]] = []
    values, halves = {}, {}
    for kind in CLIP_PARTS:
        for name, several in encoders.items():
            found = [retrieve(each, shards, view, kind, lambda done, total: None) for each in several]
            shares = [each.found for each in found]
            mean, half = mean_and_half_width(shares)
            low, high = replace(found[0], found=mean).interval()
            half = (high - low) / 2 if math.isnan(half) else half
            called_ = f"{name}, {'one frame each' if kind == 'frames' else 'codec, half a clip each'}"
            bench.tell(f"retrieval, {called_}: {mean:.1%}")
            rows.append((called_, mean, half, chance, found[0].queries, "  ".join(f"{share:.1%}" for share in shares)))
            values[called_], halves[called_] = shares, half
    words = (
        f"{encoder.name[0].upper()}{encoder.name[1:]}. Two parts of each of {len(shards):,} videos are embedded: a frame at a "
        f"quarter and one at three quarters, or the {bench.config.budget_tokens // 2:,} patches that the codec chooses in each "
        "half. An embedding is right if, of all embeddings of the other part, the nearest by cosine is that of the same video. "
        "No labels are used, nothing is trained.",
        f"Beside it the same network with fresh weights, {len(config.seeds)} of them. Error bars: 95 % interval, of the "
        "given encoder for the number of queries, of the others over their weights.",
    )
    columns = (
        Column("encoder and parts"),
        Column("same video nearest", "share"),
        Column("± (95 %)", "share"),
        Column("chance", "share"),
        Column("queries", "count"),
        Column("each"),
    )
    figure = plots.dots(values, halves, "same video nearest, %")
    shows = "Share of the queries whose nearest embedding is of the same video, with the given weights and with fresh ones."
    return Study("retrieval", "Is a video known again?", words, columns, rows, figure, shows)


def _choices(bench: Bench) -> dict[str, Choices]:
    found = {}
    for option in bench.config.maps:
        shards, view = bench.choices(option)
        bench.tell(f"choices of {len(shards)} videos, {called(option)}")
        found[called(option)] = choices_of(shards, view)
    return found


def _stretch(name: str, tokens: Int[np.ndarray, "V T"]) -> plots.Stretch:
    low, high = np.percentile(tokens, _MOST, axis=0)
    return plots.Stretch(name, tokens.mean(axis=0), low, high)
