"""A sheet of one record of a shard: frames of a video with saliency and selection, or a picture, with labels."""

from collections.abc import Mapping

import numpy as np
from jaxtyping import Int, UInt8

from ove.records import Selection
from ove.shards.schema import ImageRecord, VideoRecord
from ove.view import colours
from ove.view.canvas import FAINT, MARK, Canvas

_TILE, _GAP, _MARGIN, _HEADINGS = 192, 10, 26, 120
_HEAD, _MOMENT = 96, 34
_LONGEST = 640
"""Pixels: side of a tile, space between tiles, the border, the column of headings; heights of the title and of the line above
a column; the longer side of a picture."""
_LABELS_SHOWN = 12


def video_sheet(
    record: VideoRecord,
    shown: Int[np.ndarray, "n"],
    frames: UInt8[np.ndarray, "n S S 3"],
    selection: Selection,
    labels: Mapping[str, Int[np.ndarray, "M"]],
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the frames with indices `shown` (their pixels are `frames`) as RGB: frame, saliency, and the patches kept."""
    chosen = colours.masks(selection.flat, selection.grid_tyx)
    most = max(float(record.saliency.max()), 1e-6)
    n_labels = len(labels)
    page = Canvas(
        width=2 * _MARGIN + _HEADINGS + max(len(shown), 4) * (_TILE + _GAP) - _GAP,
        height=_HEAD + 20 * n_labels + _MOMENT + 3 * (_TILE + _GAP) + _MARGIN,
    )
    page.text(_MARGIN, 40, record.key, px=20, bold=True)
    page.text(
        _MARGIN,
        66,
        f"{record.codec}, signals of the {record.source}; {len(record.frame_index)} of {record.n_decoded} frames"
        + (f" ({record.n_distinct} differ)" if record.n_distinct < len(record.frame_index) else "")
        + "; "
        f"{len(selection.flat):,} of {chosen.size:,} patches kept" + (f"; class {record.label}" if record.label else ""),
        px=14,
    )
    top = _labels(page, labels, 88) + _MOMENT
    for row, heading in enumerate(("frame", "saliency", "kept")):
        page.text(_MARGIN, top + row * (_TILE + _GAP) + 20, heading, px=16, bold=True)
    for column, (t, frame) in enumerate(zip(shown, frames, strict=True)):
        left = _MARGIN + _HEADINGS + column * (_TILE + _GAP)
        page.text(left, top - 8, f"{t}  {record.pts_s[t]:.2f} s", px=13, bold=True)
        note, colour = ("I-frame", MARK) if record.is_i_frame[t] else (f"{int(chosen[t].sum())} kept", FAINT)
        page.text(left + _TILE, top - 8, note, px=13, color=colour, align="right")
        heat = colours.heat(record.saliency[t].astype(np.float32) / most)
        pictures = (
            colours.scaled(frame, (_TILE, _TILE), smooth=True),
            colours.scaled(heat, (_TILE, _TILE), smooth=False),
            colours.kept(frame, chosen[t], _TILE),
        )
        for row, picture in enumerate(pictures):
            page.put(left, top + row * (_TILE + _GAP), picture)
    return page.pixels()


def image_sheet(
    record: ImageRecord, picture: UInt8[np.ndarray, "h w 3"], labels: Mapping[str, Int[np.ndarray, "M"]]
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws the record's picture as RGB with its key, size, class name and labels above it."""
    scale = _LONGEST / max(picture.shape[:2])
    shape = (max(1, round(picture.shape[0] * scale)), max(1, round(picture.shape[1] * scale)))
    page = Canvas(width=2 * _MARGIN + max(shape[1], _LONGEST), height=_HEAD + 20 * len(labels) + shape[0] + _MARGIN)
    page.text(_MARGIN, 40, record.key, px=20, bold=True)
    words = f"{record.width_px} × {record.height_px} px, {len(record.image):,} bytes"
    page.text(_MARGIN, 66, words + (f"; class {record.label}" if record.label else ""), px=14)
    top = _labels(page, labels, 88)
    page.put(_MARGIN, top, colours.scaled(picture, shape, smooth=scale < 1))
    return page.pixels()


def _labels(page: Canvas, labels: Mapping[str, Int[np.ndarray, "M"]], base: int) -> int:
    """Writes a line for each bank; returns the next baseline."""
    for bank, ids in labels.items():
        page.text(_MARGIN, base, f"{bank}: {in_words(ids)}", px=14)
        base += 20
    return base


def in_words(ids: Int[np.ndarray, "M"], shown: int = _LABELS_SHOWN) -> str:
    """Returns the first `shown` labels as text, nearest first."""
    rest = len(ids) - shown
    return ", ".join(str(i) for i in ids[:shown]) + (f" and {rest} more" if rest > 0 else "") if len(ids) else "none"
