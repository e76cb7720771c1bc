"""Figures of studies: nothing cut, nothing overlapping, the same bytes each time; tables and the page say what was given."""

import itertools
import json
import math
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from matplotlib.axis import Axis
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.collections import LineCollection
from matplotlib.figure import Figure
from matplotlib.text import Text

from ove.errors import BadInput
from ove.studies.html_report import write_page
from ove.studies.study import Column, Study, comma_separated, markdown, write_study
from ove.view import plots

CURVES = [plots.Curve(name, [72, 144, 288, 576], [y, y + 0.01, y, y + 0.02], [0.01, math.nan, 0.0, 0.03]) for name, y in
          (("codec", 0.5), ("frames", 0.495), ("tiling", 0.49), ("one with a long name", 0.2))]  # fmt: skip
RNG = np.random.default_rng(0)
STRETCHES = [plots.Stretch(name, *(RNG.random(64) + i for i in (1, 0, 2))) for name in ("codec, as configured", "frames")]
NEAR_CHANCE = [
    plots.Curve("codec", [72, 288], [0.19, 0.125], [0.8, 0.0]),
    plots.Curve("frames", [72, 288], [0.3, 0.15], [0.8, 0.9]),
]
FIGURES = {
    "curves near chance": lambda: plots.curves(NEAR_CHANCE, "tokens", "top-1, %", ("chance", 0.125)),
    "wide dots": lambda: plots.dots({"a": [0.1], "b": [0.2, 0.6]}, {"a": math.nan, "b": 1.9}, "top-1, %", ("chance", 0.5)),
    "curves": lambda: plots.curves(CURVES, "tokens", "top-1, %", ("chance", 0.125), {72.0: "72\n(3.1%)"}),
    "dots": lambda: plots.dots(
        {
            "intact": [0.6, 0.62],
            "all positions exchanged with each other, and then some of them once more": [0.2, 0.24],
            "one value": [0.5],
        },
        {
            "intact": 0.03,
            "all positions exchanged with each other, and then some of them once more": 0.05,
            "one value": math.nan,
        },
        "top-1, %",
        ("chance", 0.125),
    ),
    "maps": lambda: plots.maps({f"a way with quite a long name {n}": RNG.random((6, 6)) * n for n in range(1, 6)}, "times"),
    "one map": lambda: plots.maps({"alone": np.where(np.eye(4) > 0, np.nan, 1.0)}, "times"),
    "over_time": lambda: plots.over_time({"A": STRETCHES, "B": STRETCHES}, ("frame", "rank"), "tokens"),
}


def beyond(axis: Axis) -> list[Text]:
    """Labels of places beyond the ends of an axis, which exist and are not drawn."""
    low, high = sorted(axis.get_view_interval())
    ticks = [tick for tick in axis.get_major_ticks() if not low - 1e-9 <= tick.get_loc() <= high + 1e-9]
    return [label for tick in ticks for label in (tick.label1, tick.label2)]


@pytest.mark.parametrize("name", FIGURES)
def test_no_words_are_cut_or_lie_over_each_other(name: str) -> None:
    figure = FIGURES[name]()
    canvas = FigureCanvasAgg(figure)
    canvas.draw()
    width, height = canvas.get_width_height()
    unseen = {id(label) for axes in figure.axes for axis in (axes.xaxis, axes.yaxis) for label in beyond(axis)}
    words = [t for t in figure.findobj(Text) if t.get_visible() and t.get_text().strip() and id(t) not in unseen]
    boxes = [(t.get_text(), t.get_window_extent(canvas.get_renderer())) for t in words]
    boxes = [(text, box) for text, box in boxes if box.width > 0]
    assert len(boxes) > 3
    for text, box in boxes:
        assert box.x0 >= -1 and box.y0 >= -1 and box.x1 <= width + 1 and box.y1 <= height + 1, f"{text!r} is cut"
    inside = [(text, box.shrunk(0.9, 0.7)) for text, box in boxes]
    for (a, box), (b, other) in itertools.combinations(inside, 2):
        assert not box.overlaps(other), f"{a!r} lies over {b!r}"


@pytest.mark.parametrize(("name", "axis"), [("curves near chance", 1), ("wide dots", 0)])
def test_error_bars_of_shares_end_at_0_and_100_percent(name: str, axis: int) -> None:
    (axes,) = FIGURES[name]().axes
    ends = np.concatenate([np.concatenate(lines.get_segments())[:, axis] for lines in axes.findobj(LineCollection)])
    assert ends.min() == 0 and ends.max() == pytest.approx(100)
    low, high = sorted((axes.get_xlim, axes.get_ylim)[axis]())
    assert low == 0 and 100 <= high < 110


@given(st.lists(st.floats(0, 100), min_size=1, max_size=6))
def test_labels_keep_their_order_and_their_distance(values: list[float]) -> None:
    places = plots.spread_labels(values, 5.0)
    by_value = [places[i] for i in np.argsort(values, kind="stable")]
    assert all(b - a >= 5 - 1e-9 for a, b in itertools.pairwise(by_value))
    if all(abs(a - b) >= 5 for a, b in itertools.combinations(values, 2)):
        assert places == pytest.approx(values)


COLUMNS = (Column("name"), Column("share", "share"), Column("count", "count"), Column("number", "number"))
ROWS = [("a <b> & | c", 0.1234, 12345, 1.0), ("none", math.nan, None, 2.345)]


def study(name: str = "budget", figure: Figure | None = None) -> Study:
    return Study(name, "Budget <1>", ("Words & more.",), COLUMNS, ROWS, figure or FIGURES["curves"](), 'A "curve".')


def test_tables_for_people_and_for_programs() -> None:
    assert markdown(COLUMNS, ROWS).splitlines() == [
        "| name | share | count | number |",
        "|---|---:|---:|---:|",
        "| a <b> & \\| c | 12.3 % | 12,345 | 1.00 |",
        "| none |  |  | 2.35 |",
    ]
    assert comma_separated(COLUMNS, ROWS).splitlines() == [
        "name,share,count,number",
        "a <b> & | c,0.1234,12345,1.0",
        "none,,,2.345",
    ]


def test_all_files_are_written_and_are_the_same_each_time(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        write_study(study(), tmp_path / folder)
        write_page(tmp_path / folder, ["budget"], "Studies")
    names = {path.name for path in (tmp_path / "one").iterdir()}
    assert names == {"budget.md", "budget.csv", "budget.json", "budget.png", "budget.svg", "report.html"}
    for name in names:
        assert (tmp_path / "one" / name).read_bytes() == (tmp_path / "two" / name).read_bytes(), name
    picture = cv2.imread(str(tmp_path / "one" / "budget.png"))
    assert picture.shape[1] > 1000 and picture.min() < 100 and (picture[0] == 255).all()
    assert '![A "curve".](budget.svg)' in (tmp_path / "one" / "budget.md").read_text()


def test_the_page_stands_alone_and_shows_what_is_there(tmp_path: Path) -> None:
    write_study(study("retrieval"), tmp_path)
    write_study(study("budget"), tmp_path)
    page = write_page(tmp_path, ["budget", "bias", "retrieval"], "All <studies>").read_text()
    assert page.index('id="budget"') < page.index('id="retrieval"') and "bias" not in page
    assert not re.search(r"""(src|href)=["'](?!data:|#)""", page) and "@import" not in page and "url(" not in page
    assert "<b>" not in page and "a &lt;b&gt; &amp; | c" in page and "All &lt;studies&gt;" in page
    assert page.count("data:image/svg+xml;base64,") == 2 and 'name="viewport"' in page and "12.3 %" in page


@pytest.mark.parametrize("damage", ["json", "columns", "svg"])
def test_a_damaged_study_is_named(tmp_path: Path, damage: str) -> None:
    write_study(study(), tmp_path)
    path = tmp_path / "budget.json"
    if damage == "svg":
        (tmp_path / "budget.svg").unlink()
    elif damage == "json":
        path.write_text(path.read_text()[:50])
    else:
        path.write_text(json.dumps(json.loads(path.read_text()) | {"columns": [{"title": "x"}]}))
    with pytest.raises(BadInput, match=r"budget\.json or \.svg: cannot be read .* run the study budget again"):
        write_page(tmp_path, ["budget"], "Studies")
