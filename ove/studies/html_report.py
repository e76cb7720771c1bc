"""Writes all studies of a folder as one self-contained HTML page."""

import base64
import html
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from ove.errors import BadInput
from ove.files import write_text
from ove.studies.study import Column

_CSS = """
:root { color-scheme: light; }
* { box-sizing: border-box; }
body { margin: 0; background: #fff; color: #222; }
body { font: 16px/1.55 system-ui, "Segoe UI", Roboto, "DejaVu Sans", sans-serif; }
main { max-width: 66rem; margin: 0 auto; padding: 1.25rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.25; margin: 0 0 .5rem; }
h2 { font-size: 1.3rem; line-height: 1.3; margin: 2.5rem 0 .5rem; padding-top: 1rem; border-top: 1px solid #ccc; }
p { margin: .5rem 0; max-width: 46rem; overflow-wrap: anywhere; }
nav ul { display: flex; flex-wrap: wrap; gap: .25rem 1.25rem; list-style: none; margin: 1rem 0 0; padding: 0; }
a { color: #00558a; }
figure { margin: 1rem 0; }
figure img { display: block; width: 100%; max-width: 44rem; height: auto; }
.scroll { overflow-x: auto; margin: 1rem 0; }
.scroll {
  background: linear-gradient(to right, #fff 30%, #fff0) 0 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to left, #fff 30%, #fff0) 100% 0 / 2.5rem 100% no-repeat local,
    linear-gradient(to right, #0003, #0000) 0 0 / .8rem 100% no-repeat scroll,
    linear-gradient(to left, #0003, #0000) 100% 0 / .8rem 100% no-repeat scroll;
}
table { border-collapse: collapse; font-variant-numeric: tabular-nums; font-size: .94rem; }
th, td { padding: .35rem .75rem; border-bottom: 1px solid #ddd; white-space: nowrap; text-align: right; }
th { border-bottom: 2px solid #555; vertical-align: bottom; white-space: normal; min-width: 4.5rem; }
th.text, td.text { text-align: left; }
td.text:first-child { white-space: normal; min-width: 8.5rem; }
tbody tr:nth-child(even) { background: #00000009; }
@media print { .scroll { overflow: visible; } section { break-inside: avoid; } }
"""


def write_page(folder: Path, names: Sequence[str], title: str) -> Path:
    """Writes `report.html` from the studies in `folder`, in the order of `names`; returns its path.

    Skips names without a study. BadInput for damaged or incomplete files.
    """
    found = [_read(folder, name) for name in names if (folder / f"{name}.json").is_file()]
    links = "".join(f'<li><a href="#{s["name"]}">{html.escape(s["title"])}</a></li>' for s, _ in found)
    body = "".join(_section(study, picture) for study, picture in found)
    page = (
        f'<!doctype html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta name="viewport" content="width=device-width, initial-scale=1">\n<title>{html.escape(title)}</title>\n'
        f"<style>{_CSS}</style>\n</head>\n<body>\n<main>\n<h1>{html.escape(title)}</h1>\n<nav><ul>{links}</ul></nav>\n"
        f"{body}</main>\n</body>\n</html>\n"
    )
    path = folder / "report.html"
    write_text(path, page)
    return path


def _read(folder: Path, name: str) -> tuple[dict[str, Any], bytes]:
    try:
        study = json.loads((folder / f"{name}.json").read_text(encoding="utf-8"))
        study["columns"] = [Column(**column) for column in study["columns"]]
        return study, (folder / f"{name}.svg").read_bytes()
    except (ValueError, KeyError, TypeError, FileNotFoundError) as error:
        raise BadInput(
            f"{folder / name}.json or .svg: cannot be read ({type(error).__name__}: {error}); run the study {name} again."
        ) from error


def _section(study: dict[str, Any], picture: bytes) -> str:
    words = "".join(f"<p>{html.escape(paragraph)}</p>\n" for paragraph in study["words"])
    data = base64.b64encode(picture).decode()
    return (
        f'<section id="{study["name"]}">\n<h2>{html.escape(study["title"])}</h2>\n{words}'
        f'<figure><img alt="{html.escape(study["shows"])}" src="data:image/svg+xml;base64,{data}"></figure>\n'
        f'<div class="scroll" tabindex="0">{_table(study["columns"], study["rows"])}</div>\n</section>\n'
    )


def _table(columns: Sequence[Column], rows: Sequence[Sequence[Any]]) -> str:
    def cells(tag: str, words: Sequence[str]) -> str:
        sides = [' class="text"' if column.kind == "text" else "" for column in columns]
        return "".join(f"<{tag}{side}>{html.escape(word)}</{tag}>" for side, word in zip(sides, words, strict=True))

    head = cells("th", [column.heading for column in columns])
    body = "".join(f"<tr>{cells('td', [c.words(v) for c, v in zip(columns, row, strict=True)])}</tr>\n" for row in rows)
    return f"<table><thead><tr>{head}</tr></thead>\n<tbody>\n{body}</tbody></table>"
