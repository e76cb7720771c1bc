"""A study: numbers, a figure and words, written as markdown, CSV, JSON, PNG and SVG."""

import csv
import io
import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ove.files import write_bytes, write_json

Value = str | int | float | None
_PNG_DPI = 200
_REPEATABLE: dict[Any, Any] = {"svg.hashsalt": "study", "svg.fonttype": "path"}
"""Same numbers, same bytes; text becomes outlines, which need no font."""


@dataclass(frozen=True)
class Column:
    """A column of a table, and the format of its values."""

    heading: str
    kind: Literal["text", "share", "points", "count", "number"] = "text"
    """`share`: 0…1, as percent with one decimal; `points`: a difference of two shares; `count`: whole, with commas; `number`:
    two decimals."""

    def words(self, value: Value) -> str:
        """Formats a value; None and NaN are empty."""
        if value is None or (isinstance(value, float) and math.isnan(value)):
            return ""
        if isinstance(value, str):
            return value
        words = {
            "share": f"{100 * value:.1f} %",
            "points": f"{100 * value:+.1f}",
            "count": f"{value:,.0f}",
            "number": f"{value:.2f}",
            "text": f"{value}",
        }
        return words[self.kind]


@dataclass(frozen=True)
class Study:
    """The results of a study."""

    name: str
    """Stem of its files."""
    title: str
    words: tuple[str, ...]
    """Paragraphs: method, results, limits."""
    columns: tuple[Column, ...]
    rows: Sequence[tuple[Value, ...]]
    figure: Figure
    shows: str
    """Alternative text of the figure."""


def markdown(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> str:
    """Formats a table; numbers are right-aligned."""
    lines = ["| " + " | ".join(column.heading for column in columns) + " |"]
    lines.append("|" + "|".join("---" if column.kind == "text" else "---:" for column in columns) + "|")
    lines += [
        "| " + " | ".join(c.words(value).replace("|", "\\|") for c, value in zip(columns, row, strict=True)) + " |"
        for row in rows
    ]
    return "\n".join(lines) + "\n"


def comma_separated(columns: Sequence[Column], rows: Sequence[Sequence[Value]]) -> str:
    """Formats the table as CSV with all digits; shares are 0…1, None and NaN empty."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow([column.heading for column in columns])
    writer.writerows([["" if value is None or value != value else value for value in row] for row in rows])
    return text.getvalue()


def write_study(study: Study, folder: Path) -> None:
    """Writes NAME.md, .csv, .png, .svg and, last, .json in `folder`; the same numbers give the same bytes."""
    folder.mkdir(parents=True, exist_ok=True)
    table = markdown(study.columns, study.rows)
    page = [f"# {study.title}", *study.words, f"![{study.shows}]({study.name}.svg)", table]
    write_bytes(folder / f"{study.name}.md", "\n\n".join(page).encode())
    write_bytes(folder / f"{study.name}.csv", comma_separated(study.columns, study.rows).encode())
    for suffix, options in (("png", {"dpi": _PNG_DPI}), ("svg", {})):
        write_bytes(folder / f"{study.name}.{suffix}", picture(study.figure, suffix, **options))
    write_json(folder / f"{study.name}.json", study_json(study))


def study_json(study: Study) -> dict[str, Any]:
    """Returns all but the figure as JSON; NaN becomes null."""
    rows = [[None if value != value else value for value in row] for row in study.rows]
    columns = [{"heading": column.heading, "kind": column.kind} for column in study.columns]
    return {
        "name": study.name,
        "title": study.title,
        "words": list(study.words),
        "columns": columns,
        "rows": rows,
        "shows": study.shows,
    }


def picture(figure: Figure, suffix: str, **options: Any) -> bytes:
    """Renders a figure as the bytes of a file."""
    out = io.BytesIO()
    FigureCanvasAgg(figure)
    metadata = {"Software": None} if suffix == "png" else {"Date": None}
    with matplotlib.rc_context(_REPEATABLE):
        figure.savefig(out, format=suffix, metadata=metadata, facecolor="white", **options)
    return out.getvalue()
