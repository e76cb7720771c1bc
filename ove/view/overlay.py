"""A sheet that shows, for a few moments of a clip, how codec signals become a selection of patches."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float, Int, UInt8

from ove.config import VideoConfig
from ove.records import CELL_PX, Clip, CodecSignals, Saliency, Selection
from ove.video.geometry import place_in_square
from ove.video.motion import remove_camera
from ove.view import colours
from ove.view.canvas import FAINT, MARK, Canvas
from ove.view.moments import bars, moments, title

_TILE, _GAP, _MARGIN, _HEADINGS = 192, 10, 26, 232
"""Pixels: side of a tile, space between tiles, the white border, and the column of headings."""
_HEAD, _MOMENT, _TIMELINE = 104, 44, 140
"""Heights: of the title, of the line above each column, of the bars at the bottom."""
_BRIGHTEST = 98
"""Percentile of a signal that gets the full colour: of motion by frame, of the others over all frames shown."""

_ROWS = (
    ("The video", "Neighbouring frames repeat\neach other. What is worth\nlooking at?"),
    ("1  Motion", "How blocks moved since the\nframe they are copied from{camera}."),
    ("2  Residual", "What copying could not explain:\nwhat the codec had to add."),
    ("3  Surprise", "1 and 2 together, each divided\nby its 95th percentile, mean of\neach patch."),
    (
        "4  Kept",
        "The {kept:,} most surprising\npatches of the whole clip, I-frames\nfirst if they are to be whole.\n"
        "The encoder sees what is bright.\nThe rest costs nothing.",
    ),
)
"""Heading and explanation of each row."""


def overlay(
    clip: Clip,
    signals: CodecSignals,
    saliency: Saliency,
    selection: Selection,
    config: VideoConfig,
    name: str = "",
    columns: int = 6,
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws `columns` moments of a clip as RGB: frame, motion, residual, saliency, and the patches kept.

    Moments are as in `moments`; bars at the bottom show how many patches are kept of every sampled frame. `name` goes into the
    title. The signals and the saliency must be those of `clip`; `config` has the model of the camera's motion.
    """
    chosen = colours.masks(selection.flat, selection.grid_tyx)
    per_frame = chosen[0].size if saliency.valid is None else int(saliency.valid.sum())
    shown = moments(chosen, columns, per_frame)
    page = Canvas(
        width=2 * _MARGIN + _HEADINGS + max(len(shown), 4) * (_TILE + _GAP) - _GAP,
        height=_HEAD + _MOMENT + 5 * (_TILE + _GAP) + _TIMELINE,
    )
    _title(page, clip, selection, name)
    for column, t in enumerate(shown):
        _moment(page, _left(column), clip, int(t), int(chosen[t].sum()))
    compensation = "none" if signals.camera_removed else config.compensation
    where = signals.of_frames(shown)
    moved = remove_camera(signals.motion[where], signals.has_vector[where], compensation)
    has_vector, residual = signals.has_vector[where], np.abs(signals.residual[where]).astype(np.float32)
    fastest_px = [
        max(_brightest(np.hypot(*np.moveaxis(m[has], -1, 0))), 0.25) for m, has in zip(moved, has_vector, strict=True)
    ]
    strongest, most = max(_brightest(residual), 1.0), max(_brightest(saliency.scores[saliency.scores >= 0]), 1e-6)
    pictures: list[Callable[[int, int], UInt8[np.ndarray, "h w 3"]]] = [
        lambda n, t: colours.scaled(clip.frames[t], (_TILE, _TILE), smooth=True),
        lambda n, t: _placed(
            _per_pixel(colours.motion_colours(moved[n], has_vector[n], fastest_px[n]), signals), config.geometry
        ),
        lambda n, t: _placed(colours.heat(residual[n] / strongest), config.geometry),
        lambda n, t: colours.heat(saliency.scores[t] / most),
        lambda n, t: colours.kept(clip.frames[t], chosen[t], _TILE),
    ]
    camera = "" if config.compensation == "none" else ",\nwithout the camera's motion"
    tops = [_HEAD + _MOMENT + row * (_TILE + _GAP) for row in range(len(_ROWS))]
    for top, (heading, words), picture in zip(tops, _ROWS, pictures, strict=True):
        page.text(_MARGIN, top + 20, heading, px=18, bold=True)
        page.text(_MARGIN, top + 44, words.format(camera=camera, kept=len(selection.flat)), px=13)
        for column, t in enumerate(shown):
            page.put(_left(column), top, colours.scaled(picture(column, int(t)), (_TILE, _TILE), smooth=False))
    _legends(page, tops, f"{strongest:.0f} gray levels", f"{most:.2f}")
    for column, (px, has) in enumerate(zip(fastest_px, has_vector, strict=True)):
        words = f"{px:.1f} px" if has.any() else "nothing is copied here"
        page.label(_left(column) + 4, tops[1] + _TILE - 4, words)
    _timeline(page, clip, chosen, shown)
    return page.pixels()


def _per_pixel(cells: UInt8[np.ndarray, "h w 3"], signals: CodecSignals) -> UInt8[np.ndarray, "H W 3"]:
    """Repeats the colour of each cell over its pixels within the picture."""
    height, width = signals.residual.shape[1:]
    down, across = signals.cell_offset_px
    return cells.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)[down : down + height, across : across + width]


def _placed(picture: UInt8[np.ndarray, "H W 3"], geometry: str) -> UInt8[np.ndarray, "tile tile 3"]:
    """Puts a map of the whole picture where the clip's frames show it; their padding is white."""
    place = place_in_square(picture.shape[0], picture.shape[1], _TILE, geometry)
    square = np.full((_TILE, _TILE, 3), 255, np.uint8)
    square[place.top : place.top + place.rows, place.left : place.left + place.columns] = colours.scaled(
        picture, (place.rows, place.columns), smooth=False
    )
    return square


def _left(column: int) -> int:
    return _MARGIN + _HEADINGS + column * (_TILE + _GAP)


def _brightest(values: Float[np.ndarray, "..."]) -> float:
    return float(np.percentile(values, _BRIGHTEST)) if values.size else 0.0


def _title(page: Canvas, clip: Clip, selection: Selection, name: str) -> None:
    _, rows, columns = selection.grid_tyx
    page.text(_MARGIN, 44, title(selection) + (f": {name}" if name else ""), px=24, bold=True)
    whose = "read from the file's own" if clip.source == "bitstream" else "from encoding these frames anew, the file itself is"
    page.text(
        _MARGIN,
        74,
        f"{_sampled(clip)}, {clip.pts_s[0]:.1f} to {clip.pts_s[-1]:.1f} s; {rows} × {columns} "
        f"patches each. Motion and residual {whose} {clip.codec}.",
        px=15,
    )


def _sampled(clip: Clip) -> str:
    """Returns how many frames were sampled, and how many of them differ."""
    n_frames, n_distinct = len(clip.frame_index), len(np.unique(clip.frame_index))
    few = f" (only {n_distinct} differ; copies are not kept)" if n_distinct < n_frames else ""
    return f"{n_frames} frames sampled from {clip.n_decoded}{few}"


def _moment(page: Canvas, left: int, clip: Clip, t: int, n_kept: int) -> None:
    base = _HEAD + _MOMENT - 10
    page.text(left, base - 18, f"{clip.pts_s[t]:.2f} s", px=15, bold=True)
    page.text(left + _TILE, base - 18, f"frame {clip.frame_index[t]}", px=13, color=FAINT, align="right")
    if clip.is_i_frame[t]:
        page.text(left, base, f"I-frame: {n_kept} patches kept", px=13, color=MARK)
    else:
        page.text(left, base, f"{n_kept} patches kept", px=13)


def _legends(page: Canvas, tops: list[int], strongest: str, most: str) -> None:
    """Draws the colour wheel of motion, and the scales of residual and saliency."""
    side, width = 84, 150
    page.put(_MARGIN, tops[1] + 102, colours.wheel(side))
    words = "white: still\nrim: the number in\nthe picture's corner\ngray: not copied"
    page.text(_MARGIN + side + 10, tops[1] + 124, words, px=12)
    for top, end in ((tops[2] + 92, strongest), (tops[3] + 110, most)):
        page.put(_MARGIN, top, colours.heat(np.repeat(np.linspace(0, 1, width)[None], 12, axis=0)))
        page.text(_MARGIN, top + 28, "0", px=12)
        page.text(_MARGIN + width, top + 28, end, px=12, align="right")


def _timeline(page: Canvas, clip: Clip, chosen: Bool[np.ndarray, "T Y X"], shown: Int[np.ndarray, "n"]) -> None:
    """Draws the bars of all sampled frames, with captions."""
    top, height = page.height - _TIMELINE + 14, 66
    left, right = _left(0), page.width - _MARGIN
    page.text(_MARGIN, top + 14, "Kept of each frame", px=15, bold=True)
    page.text(_MARGIN, top + 36, f"full height: all {chosen[0].size} patches", px=12)
    page.text(_MARGIN, top + 54, "I-frames", px=12, color=MARK)
    page.text(_MARGIN, top + 72, "triangles: shown above", px=12)
    bars(page, (left, top, right, top + height), chosen, clip.is_i_frame, shown)
    page.text(left, top + height + 32, f"{clip.pts_s[0]:.1f} s", px=13)
    page.text(right, top + height + 32, f"{clip.pts_s[-1]:.1f} s", px=13, align="right")
