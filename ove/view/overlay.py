"""A contact sheet of one clip: what the encoder sees bright, the rest dimmed, and the saliency beneath each frame."""

import itertools

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ove.records import Clip, Saliency, Selection

_TILE, _GAP, _LABEL, _HEAD, _MARGIN = 224, 10, 24, 92, 24
"""Pixels: side of a tile, space between tiles, height of a frame's label, of the caption, and the white margin."""
_LEAST_WIDTH = 960
_DPI = 100
_DIMMED = 0.28
_OUTLINE = (255, 214, 0)
_INK, _MARK = "#222222", "#c2185b"


def overlay(
    clip: Clip, saliency: Saliency, selection: Selection, columns: int = 8, shown: int = 16
) -> UInt8[np.ndarray, "H W 3"]:
    """An RGB picture of `shown` frames, `columns` in a row: of as many equal stretches of the clip the ones most selected from.

    Patches that are selected keep their colours and have a yellow outline; the others are dark and gray. Beneath each frame
    stands its saliency on a scale common to the clip. Frames that count as I-frames are marked.
    """
    n_frames = len(clip.frames)
    shown, chosen = min(shown, n_frames), _masks(selection)
    columns = min(columns, shown)
    row_height = _LABEL + 2 * _TILE + 2 * _GAP
    sheet = _Sheet(
        width=max(2 * _MARGIN + columns * (_TILE + _GAP) - _GAP, _LEAST_WIDTH),
        height=_HEAD + -(-shown // columns) * row_height + _MARGIN,
    )
    top_score = max(float(np.percentile(saliency.scores, 99.5)), 1e-6)
    _caption(sheet, clip, selection, top_score)
    edges = np.arange(shown + 1) * n_frames // shown
    for place, (start, end) in enumerate(itertools.pairwise(edges)):
        t = start + int(chosen[start:end].sum(axis=(1, 2)).argmax())
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * (_TILE + _GAP), _HEAD + row * row_height
        sheet.text(left, top + _LABEL - 7, f"frame {clip.frame_index[t]}   {clip.pts_s[t]:.2f} s")
        if clip.is_i_frame[t]:
            sheet.text(left + _TILE, top + _LABEL - 7, "I-frame", color=_MARK, align="right")
        sheet.put(left, top + _LABEL, _seen(clip.frames[t], chosen[t]))
        sheet.put(left, top + _LABEL + _TILE + 2, _heat(saliency.scores[t] / top_score))
    return sheet.pixels()


class _Sheet:
    """A white page on which pictures and words are placed in pixels from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self._height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def put(self, left: int, top: int, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Places a picture pixel by pixel."""
        rows, columns = picture.shape[:2]
        box = (left / self.width, 1 - (top + rows) / self._height, columns / self.width, rows / self._height)
        axes = self._figure.add_axes(box)
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

    def text(self, x: int, base: int, words: str, points: float = 9.5, color: str = _INK, align: str = "left") -> None:
        """Writes one line of words on the line at `base`."""
        self._figure.text(x / self.width, 1 - base / self._height, words, fontsize=points, color=color, ha=align, va="baseline")

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """The page as RGB."""
        canvas = FigureCanvasAgg(self._figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()


def _masks(selection: Selection) -> Bool[np.ndarray, "T Y X"]:
    mask = np.zeros(int(np.prod(selection.grid_tyx)), bool)
    mask[selection.flat] = True
    return mask.reshape(selection.grid_tyx)


def _seen(frame: UInt8[np.ndarray, "S S 3"], chosen: Bool[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "tile tile 3"]:
    """One frame at the size of a tile, dark and gray where it is not chosen, outlines where the two meet."""
    big = cv2.resize(frame, (_TILE, _TILE), interpolation=cv2.INTER_AREA)
    mask = cv2.resize(chosen.astype(np.uint8), (_TILE, _TILE), interpolation=cv2.INTER_NEAREST).astype(bool)
    gray = cv2.cvtColor(big, cv2.COLOR_RGB2GRAY)[..., None]
    picture = np.where(mask[..., None], big, (gray * _DIMMED).astype(np.uint8))
    if not mask.all():
        # A pixel of the chosen side is outline if a neighbour is not chosen.
        inner = cv2.erode(mask.astype(np.uint8), np.ones((3, 3), np.uint8), borderValue=1).astype(bool)
        picture[mask & ~inner] = _OUTLINE
    return picture


def _heat(scores: Float32[np.ndarray, "Y X"]) -> UInt8[np.ndarray, "tile tile 3"]:
    colours = (colormaps["magma"](np.clip(scores, 0, 1))[..., :3] * 255).astype(np.uint8)
    return cv2.resize(colours, (_TILE, _TILE), interpolation=cv2.INTER_NEAREST)


def _caption(sheet: _Sheet, clip: Clip, selection: Selection, top_score: float) -> None:
    n_frames, rows, columns = selection.grid_tyx
    kept, total = len(selection.flat), n_frames * rows * columns
    signals = (
        f"signals from the {clip.codec} bitstream" if clip.source == "bitstream" else f"{clip.codec}, signals by transcoding"
    )
    sheet.text(_MARGIN, 38, f"{kept:,} of {total:,} patches kept ({100 * kept / total:.1f} %)", points=16.0)
    i_frames = int(clip.is_i_frame.sum())
    sheet.text(
        _MARGIN, 62, f"{n_frames} frames sampled from {clip.n_decoded}, {i_frames} of them I-frames; {signals}", points=10.0
    )
    sheet.text(
        _MARGIN, 82, "upper: what the encoder sees, the rest dimmed and gray; lower: saliency of each patch", points=10.0
    )
    bar = colormaps["magma"](np.linspace(0, 1, _TILE - 40))[None, :, :3]
    strip = (np.repeat(bar, 12, axis=0) * 255).astype(np.uint8)
    left, right = sheet.width - _MARGIN - strip.shape[1], sheet.width - _MARGIN
    sheet.put(left, 70, strip)
    for x, words, align in (
        (left, "0", "left"),
        ((left + right) // 2, "saliency", "center"),
        (right, f"{top_score:.2f}", "right"),
    ):
        sheet.text(x, 64, words, align=align)
