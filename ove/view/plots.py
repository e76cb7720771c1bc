"""Figures of studies: read in print, on a phone and without telling colours apart (marker, line and words say the same)."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import cycle
from typing import Any

import matplotlib
import numpy as np
from jaxtyping import Float
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#56B4E9", "#E69F00")
"""Of Okabe and Ito: told apart with every common kind of colour blindness."""
_MARKERS, _LINES = ("o", "s", "^", "D", "v", "P"), ("-", "--", "-.", ":")
_INK, _FAINT = "#222222", "#767676"
_WIDTH_IN = 6.2
_NAME_GAP = 0.07
"""Between the names of curves, of the axis' height: a line of words."""
_NAME_LETTERS = 28
"""In a line of a name beside a row of dots."""
_STYLE: dict[Any, Any] = {
    "font.size": 11.5,
    "font.family": ["DejaVu Sans"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.edgecolor": _FAINT,
    "axes.labelcolor": _INK,
    "text.color": _INK,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "axes.grid": True,
    "grid.color": "#e4e4e4",
    "grid.linewidth": 0.8,
    "axes.axisbelow": True,
}
_SEQUENTIAL = "cividis"
"""Colours of maps: light is much; made to look the same with red-green blindness, and in gray."""


@dataclass(frozen=True)
class Curve:
    """Points with error bars, joined by a line; shares 0…1."""

    name: str
    x: Sequence[float | int]
    y: Sequence[float]
    half: Sequence[float]
    """Half of the error bar, NaN for none."""


@matplotlib.rc_context(_STYLE)
def curves(
    found: Sequence[Curve], x_label: str, y_label: str, floor: tuple[str, float] | None = None, ticks: Mapping[float, str] = {}
) -> Figure:
    """Shares in percent over a quantity on a logarithmic axis; each curve is named at its end. `floor`: a level to compare."""
    figure, (axes,) = _page(3.9)
    bars = [_bars(curve.y, curve.half) for curve in found]
    top = max(float(np.max(100 * np.asarray(curve.y) + bar[1])) for curve, bar in zip(found, bars, strict=True))
    top = max(1.05 * top, 5.0)
    named = [*(100 * curve.y[-1] for curve in found), *([100 * floor[1]] if floor else [])]
    ends = spread_labels(named, _NAME_GAP * top)
    x_end = max(max(curve.x) for curve in found)
    for curve, bar, end, colour, marker, line in zip(
        found, bars, ends, cycle(COLOURS), cycle(_MARKERS), cycle(_LINES), strict=False
    ):
        y = 100 * np.asarray(curve.y)
        axes.errorbar(
            curve.x, y, bar, color=colour, marker=marker, linestyle=line, capsize=4, linewidth=2, markersize=7, clip_on=False
        )
        axes.text(x_end * 1.12, end, curve.name, color=colour, va="center", fontweight="bold")
    if floor:
        axes.axhline(100 * floor[1], color=_FAINT, linestyle=":", linewidth=1.5)
        axes.text(x_end * 1.12, ends[-1], floor[0], color=_FAINT, va="center")
    axes.set_xscale("log")
    axes.xaxis.set_minor_locator(NullLocator())
    places = sorted({x for curve in found for x in curve.x})
    axes.xaxis.set_major_locator(FixedLocator(places))
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: ticks.get(x, f"{x:,.0f}")))
    axes.set(xlabel=x_label, ylabel=y_label)
    axes.set_ylim(0, top)
    return figure


@matplotlib.rc_context(_STYLE)
def dots(
    found: Mapping[str, Sequence[float]], halves: Mapping[str, float], x_label: str, floor: tuple[str, float] | None = None
) -> Figure:
    """A line for each name: every value as a small ring, their mean with its error bar, and the mean in words.

    Shares in percent. The first name is what the others are compared with: an upright line stands at its mean.
    """
    names = [_lines(name, _NAME_LETTERS) for name in found]
    n_lines = max(name.count("\n") for name in names) + 1
    figure, (axes,) = _page(1.2 + (0.24 + 0.2 * n_lines) * len(found))
    means = {name: 100 * float(np.mean(values)) for name, values in found.items()}
    bars = {name: _bars([means[name] / 100], [halves[name]]) for name in found}
    reach = max(means[name] + float(bars[name][1, 0]) for name in found)
    first = next(iter(found))
    axes.axvline(means[first], color=COLOURS[0], linestyle="--", linewidth=1.2)
    for row, (name, values) in enumerate(found.items()):
        colour, marker = (COLOURS[0], "o") if name == first else (COLOURS[1], "s")
        half = 100 * halves[name]
        axes.scatter(100 * np.asarray(values), [row] * len(values), s=26, facecolors="none", edgecolors=_FAINT, zorder=2)
        axes.errorbar(
            means[name], row, xerr=bars[name], color=colour, marker=marker, capsize=4, linewidth=2, markersize=7, zorder=3
        )
        words = f"{means[name]:.1f}" + ("" if np.isnan(half) else f" ± {half:.1f}")
        axes.text(1.02, row, words, va="center", transform=axes.get_yaxis_transform())
    if floor:
        axes.axvline(100 * floor[1], color=_FAINT, linestyle=":", linewidth=1.5)
        axes.text(100 * floor[1], -0.75, floor[0], color=_FAINT, ha="center", va="bottom")
    axes.set_yticks(range(len(found)), names)
    axes.set_ylim(len(found) - 0.4, -0.6)
    axes.set_xlim(0, max(5.0, 1.06 * reach))
    axes.grid(visible=False, axis="y")
    axes.set_xlabel(x_label)
    return figure


@matplotlib.rc_context(_STYLE)
def maps(found: Mapping[str, Float[np.ndarray, "Y X"]], label: str, columns: int = 3) -> Figure:
    """Maps of one scale, 1 being what every place would have if all were alike; each with its least and largest value."""
    columns = min(columns, len(found))
    rows = -(-len(found) // columns)
    figure = Figure(figsize=(_WIDTH_IN, rows * (_WIDTH_IN / max(columns, 2) * 0.98) + 0.7), layout="constrained")
    every = figure.subplots(rows, columns, squeeze=False).ravel()
    most = max(float(np.nanmax(values)) for values in found.values())
    image: Any = None
    for axes, (name, values) in zip(every, found.items(), strict=False):
        image = axes.imshow(values, cmap=_SEQUENTIAL, vmin=0, vmax=max(most, 1.0), interpolation="nearest")
        axes.set_title(_lines(name, 40 // columns), fontsize=10.5)
        axes.set_xlabel(f"{np.nanmin(values):.2f} … {np.nanmax(values):.2f}", fontsize=10)
        axes.set_xticks([])
        axes.set_yticks([])
        axes.grid(visible=False)
    for axes in every[len(found) :]:
        axes.set_axis_off()
    bar = figure.colorbar(image, ax=list(every), location="bottom", shrink=0.7, aspect=35, pad=0.04)
    bar.set_label(label)
    return figure


@dataclass(frozen=True)
class Stretch:
    """How much each moment gets: mean, and within what it lies for most clips."""

    name: str
    mean: Float[np.ndarray, "T"]
    low: Float[np.ndarray, "T"]
    high: Float[np.ndarray, "T"]


@matplotlib.rc_context(_STYLE)
def over_time(panels: Mapping[str, Sequence[Stretch]], x_labels: Sequence[str], y_label: str) -> Figure:
    """Panels beneath each other, each with some stretches as steps over their moments and bands of what most clips get."""
    figure, every = _page(2.75 * len(panels), len(panels))
    for axes, (title, found), x_label in zip(every, panels.items(), x_labels, strict=True):
        for stretch, colour, line in zip(found, cycle(COLOURS), cycle(_LINES), strict=False):
            x = np.arange(1, len(stretch.mean) + 1)
            axes.fill_between(x, stretch.low, stretch.high, step="mid", color=colour, alpha=0.22, linewidth=0)
            axes.step(x, stretch.mean, where="mid", color=colour, linestyle=line, linewidth=2, label=stretch.name)
        axes.set_title(title, loc="left", fontsize=11.5, fontweight="bold")
        axes.set(xlabel=x_label, ylabel=y_label)
        axes.set_ylim(bottom=0)
        axes.margins(x=0.01)
    handles, names = every[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="outside lower center", ncols=1, frameon=False)
    return figure


def spread_labels(values: Sequence[float], gap: float) -> list[float]:
    """The places nearest to the values that are in the same order and `gap` apart, so that words there do not overlap."""
    order = np.argsort(values, kind="stable")
    blocks: list[list[float]] = []  # of words that touch: places of the words, less what lies beneath them
    for rank, value in enumerate(np.asarray(values, float)[order]):
        blocks.append([value - gap * rank])
        while len(blocks) > 1 and np.mean(blocks[-2]) > np.mean(blocks[-1]):
            blocks[-2:] = [blocks[-2] + blocks[-1]]
    level = np.concatenate([np.full(len(block), np.mean(block)) for block in blocks])
    places = np.empty(len(level))
    places[order] = level + gap * np.arange(len(level))
    return places.tolist()


def _bars(shares: Sequence[float], halves: Sequence[float]) -> Float[np.ndarray, "2 n"]:
    """How far the error bars of shares reach down and up, in percent: not beyond 0 and 100, which no share is."""
    y, half = 100 * np.asarray(shares, float), 100 * np.nan_to_num(np.asarray(halves, float))
    return np.stack([np.minimum(half, y), np.minimum(half, 100 - y)])


def _page(height_in: float, rows: int = 1) -> tuple[Figure, Sequence[Axes]]:
    figure = Figure(figsize=(_WIDTH_IN, height_in), layout="constrained")
    return figure, figure.subplots(rows, 1, squeeze=False).ravel().tolist()


def _lines(words: str, width: int) -> str:
    """Words broken into lines of at most `width` letters, where there are spaces."""
    lines = [""]
    for word in words.split():
        if lines[-1] and len(lines[-1]) + 1 + len(word) > width:
            lines.append("")
        lines[-1] = f"{lines[-1]} {word}".strip()
    return "\n".join(lines)
