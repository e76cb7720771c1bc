"""A sheet that compares what several rules keep of the same clip."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Bool, Int, UInt8

from ove.records import Clip, Selection
from ove.view import colours
from ove.view.canvas import FAINT, Canvas
from ove.view.moments import bars

_TILE, _GAP, _MARGIN, _HEADINGS = 168, 8, 26, 190
_HEAD, _MOMENT, _BARS = 84, 26, 34
"""Pixels: side of a tile, space between tiles, white border, column of headings; heights of title, times and bars."""


def compare_selections(
    clip: Clip, selections: Mapping[str, tuple[Selection, str]], title: str, columns: int = 6
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws a row for each named selection (with a line about it) as RGB, the same moments in all rows.

    Half of the moments are those of which the first selection keeps most, but not all; the others are spread over the frames
    of which the last one keeps patches. Bars beneath each row show how much is kept of every sampled frame.
    """
    chosen = {name: colours.masks(selection.flat, selection.grid_tyx) for name, (selection, _) in selections.items()}
    first, *_, last = *chosen.values(), *chosen.values()
    shown = _moments(first, last, min(columns, len(clip.frames)))
    row_height = _TILE + _BARS + _GAP
    page = Canvas(
        width=2 * _MARGIN + _HEADINGS + columns * (_TILE + _GAP) - _GAP,
        height=_HEAD + _MOMENT + _TILE + _GAP + len(chosen) * row_height + _MARGIN,
    )
    page.text(_MARGIN, 46, title, px=22, bold=True)
    for column, t in enumerate(shown):
        page.text(_left(column), _HEAD + 16, f"{clip.pts_s[t]:.2f} s", px=14, bold=True)
        page.text(_left(column) + _TILE, _HEAD + 16, f"frame {clip.frame_index[t]}", px=12, color=FAINT, align="right")
        page.put(_left(column), _HEAD + _MOMENT, colours.scaled(clip.frames[t], (_TILE, _TILE), smooth=True))
    page.text(_MARGIN, _HEAD + _MOMENT + 20, "The video", px=18, bold=True)
    for row, (name, mask) in enumerate(chosen.items()):
        top = _HEAD + _MOMENT + _TILE + _GAP + row * row_height
        selection, words = selections[name]
        page.text(_MARGIN, top + 20, name, px=18, bold=True)
        page.text(_MARGIN, top + 44, f"{len(selection.flat):,} patches\n{words}", px=13)
        page.text(_MARGIN, top + _TILE + 20, "kept of each frame; red: all of it", px=11, color=FAINT)
        for column, t in enumerate(shown):
            page.put(_left(column), top, colours.kept(clip.frames[t], mask[t], _TILE))
        box = (_left(0), top + _TILE + 5, page.width - _MARGIN, top + _TILE + _BARS - 9)
        bars(page, box, mask, mask.mean(axis=(1, 2)) == 1, shown, pointer_px=7)
    return page.pixels()


def _moments(first: Bool[np.ndarray, "T Y X"], last: Bool[np.ndarray, "T Y X"], count: int) -> Int[np.ndarray, "count"]:
    """Returns `count` different frames, ascending."""
    number, per_frame = first.sum(axis=(1, 2)), first[0].size
    partly = np.where(number < per_frame, number, 0)
    stretches = np.array_split(np.arange(len(first)), max(count // 2, 1))
    picked = [int(stretch[np.argmax(partly[stretch])]) for stretch in stretches]
    kept = [int(t) for t in np.flatnonzero(last.any(axis=(1, 2))) if t not in picked]
    spaced = np.linspace(0, len(kept) - 1, min(count - len(picked), len(kept))).astype(int)
    picked += [kept[i] for i in spaced]
    others = [t for t in range(len(first)) if t not in picked]
    return np.array(sorted(picked + others[: count - len(picked)]))


def _left(column: int) -> int:
    return _MARGIN + _HEADINGS + column * (_TILE + _GAP)
