"""A sheet that shows, for a few moments of one clip, how codec signals become a choice of patches."""

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
"""Percentile of a signal that gets the full colour: of motion in each frame, of the others over all frames shown."""


def overlay(
    clip: Clip,
    signals: CodecSignals,
    saliency: Saliency,
    selection: Selection,
    config: VideoConfig,
    name: str = "",
    columns: int = 6,
) -> UInt8[np.ndarray, "H W 3"]:
    """An RGB picture of `columns` moments of a clip: frame, motion, residual, saliency, and the patches kept.

    The first moment is the first frame; of as many equal stretches of the rest, the frame that most is kept of. At the bottom
    stands how many patches are kept of every sampled frame. `name` goes into the title. The signals and the saliency must be
    those of `clip`; `config` tells which motion counts as the camera's.
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
    moved = remove_camera(signals.motion[shown], signals.has_vector[shown], compensation)
    has_vector, residual = signals.has_vector[shown], np.abs(signals.residual[shown]).astype(np.float32)
    fastest_px = [
        max(_brightest(np.hypot(*np.moveaxis(m[has], -1, 0))), 0.25) for m, has in zip(moved, has_vector, strict=True)
    ]
    strongest, most = max(_brightest(residual), 1.0), max(_brightest(saliency.scores[saliency.scores >= 0]), 1e-6)
    rows: list[tuple[Callable[[int, int], UInt8[np.ndarray, "h w 3"]], Callable[[Canvas, int], None]]] = [
        (lambda n, t: colours.scaled(clip.frames[t], (_TILE, _TILE), smooth=True), _about_frames),
        (
            lambda n, t: _placed(
                _per_pixel(colours.motion_colours(moved[n], has_vector[n], fastest_px[n]), signals), config.geometry
            ),
            lambda page, top: _about_motion(page, top, config.compensation),
        ),
        (
            lambda n, t: _placed(colours.heat(residual[n] / strongest), config.geometry),
            lambda page, top: _about_residual(page, top, strongest),
        ),
        (lambda n, t: colours.heat(saliency.scores[t] / most), lambda page, top: _about_saliency(page, top, most)),
        (
            lambda n, t: colours.kept(clip.frames[t], chosen[t], _TILE),
            lambda page, top: _about_kept(page, top, selection),
        ),
    ]
    for row, (picture, heading) in enumerate(rows):
        top = _HEAD + _MOMENT + row * (_TILE + _GAP)
        heading(page, top)
        for column, t in enumerate(shown):
            page.put(_left(column), top, colours.scaled(picture(column, int(t)), (_TILE, _TILE), smooth=False))
    top = _HEAD + _MOMENT + _TILE + _GAP
    for column, (px, has) in enumerate(zip(fastest_px, has_vector, strict=True)):
        words = f"{px:.1f} px" if has.any() else "nothing is copied here"
        page.label(_left(column) + 4, top + _TILE - 4, words)
    _timeline(page, clip, chosen, shown)
    return page.pixels()


def _per_pixel(cells: UInt8[np.ndarray, "h w 3"], signals: CodecSignals) -> UInt8[np.ndarray, "H W 3"]:
    """The colour of each cell on all its pixels that lie within the picture."""
    height, width = signals.residual.shape[1:]
    down, across = signals.cell_offset_px
    return cells.repeat(CELL_PX, axis=0).repeat(CELL_PX, axis=1)[down : down + height, across : across + width]


def _placed(picture: UInt8[np.ndarray, "H W 3"], geometry: str) -> UInt8[np.ndarray, "tile tile 3"]:
    """A map of the whole picture where the frames of the clip have it; their padding is white."""
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
    n_frames, rows, columns = selection.grid_tyx
    page.text(_MARGIN, 44, title(selection) + (f": {name}" if name else ""), px=24, bold=True)
    whose = "read from the file's own" if clip.source == "bitstream" else "from encoding these frames anew, the file itself is"
    page.text(
        _MARGIN,
        74,
        f"{n_frames} frames sampled from {clip.n_decoded}, {clip.pts_s[0]:.1f} to {clip.pts_s[-1]:.1f} s; {rows} × {columns} "
        f"patches each. Motion and residual {whose} {clip.codec}.",
        px=15,
    )


def _moment(page: Canvas, left: int, clip: Clip, t: int, n_kept: int) -> None:
    base = _HEAD + _MOMENT - 10
    page.text(left, base - 18, f"{clip.pts_s[t]:.2f} s", px=15, bold=True)
    page.text(left + _TILE, base - 18, f"frame {clip.frame_index[t]}", px=13, color=FAINT, align="right")
    if clip.is_i_frame[t]:
        page.text(left, base, f"I-frame: {n_kept} patches kept", px=13, color=MARK)
    else:
        page.text(left, base, f"{n_kept} patches kept", px=13)


def _about(page: Canvas, top: int, title: str, words: str) -> None:
    page.text(_MARGIN, top + 20, title, px=18, bold=True)
    page.text(_MARGIN, top + 44, words, px=13)


def _about_frames(page: Canvas, top: int) -> None:
    _about(page, top, "The video", "Neighbouring frames repeat\neach other. What is worth\nlooking at?")


def _about_motion(page: Canvas, top: int, compensation: str) -> None:
    camera = "" if compensation == "none" else ",\nwithout the camera's motion"
    _about(page, top, "1  Motion", f"How blocks moved since the\nframe they are copied from{camera}.")
    side = 84
    page.put(_MARGIN, top + 102, colours.wheel(side))
    page.text(_MARGIN + side + 10, top + 124, "white: still\nrim: the number in\nthe picture's corner\ngray: not copied", px=12)


def _about_residual(page: Canvas, top: int, strongest: float) -> None:
    _about(page, top, "2  Residual", "What copying could not explain:\nwhat the codec had to add.")
    _scale(page, top + 92, f"{strongest:.0f} gray levels")


def _about_saliency(page: Canvas, top: int, most: float) -> None:
    _about(page, top, "3  Surprise", "1 and 2 together, each divided\nby its 95th percentile, mean of\neach patch.")
    _scale(page, top + 110, f"{most:.2f}")


def _about_kept(page: Canvas, top: int, selection: Selection) -> None:
    _about(
        page,
        top,
        "4  Kept",
        f"The {len(selection.flat):,} most surprising\npatches of the whole clip, I-frames\nfirst if they are to be whole.\n"
        "The encoder sees what is bright.\nThe rest costs nothing.",
    )


def _scale(page: Canvas, top: int, most: str) -> None:
    width = 150
    page.put(_MARGIN, top, colours.heat(np.repeat(np.linspace(0, 1, width)[None], 12, axis=0)))
    page.text(_MARGIN, top + 28, "0", px=12)
    page.text(_MARGIN + width, top + 28, most, px=12, align="right")


def _timeline(page: Canvas, clip: Clip, chosen: Bool[np.ndarray, "T Y X"], shown: Int[np.ndarray, "n"]) -> None:
    """A bar for each sampled frame: patches kept of it, on a scale up to whole frames."""
    top, height = page.height - _TIMELINE + 14, 66
    left, right = _left(0), page.width - _MARGIN
    page.text(_MARGIN, top + 14, "Kept of each frame", px=15, bold=True)
    page.text(_MARGIN, top + 36, f"full height: all {chosen[0].size} patches", px=12)
    page.text(_MARGIN, top + 54, "I-frames", px=12, color=MARK)
    page.text(_MARGIN, top + 72, "triangles: shown above", px=12)
    bars(page, (left, top, right, top + height), chosen, clip.is_i_frame, shown)
    page.text(left, top + height + 32, f"{clip.pts_s[0]:.1f} s", px=13)
    page.text(right, top + height + 32, f"{clip.pts_s[-1]:.1f} s", px=13, align="right")
