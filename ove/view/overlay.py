"""A contact sheet of one clip: what the encoder sees bright, the rest dimmed, and the saliency beneath each frame."""

import cv2
import numpy as np
from jaxtyping import Bool, Float32, UInt8
from matplotlib import colormaps
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure

from ove.records import Clip, Saliency, Selection

_TILE, _GAP, _LABEL, _HEAD, _MARGIN = 224, 10, 24, 92, 24
"""Pixels: side of a tile, space between tiles, height of a frame's label, of the caption, and the white margin."""
_DPI = 100
_DIMMED = 0.28
_OUTLINE = (255, 214, 0)
_INK, _MARK = "#222222", "#c2185b"


def overlay(
    clip: Clip, saliency: Saliency, selection: Selection, columns: int = 8, shown: int = 16
) -> UInt8[np.ndarray, "H W 3"]:
    """An RGB picture of `shown` frames spread evenly over the clip, `columns` in a row.

    Patches that are selected keep their colours and have a yellow outline; the others are dark and gray. Beneath each frame
    stands its saliency on a scale common to the clip. Frames that count as I-frames are marked.
    """
    n_frames = len(clip.frames)
    shown, chosen = min(shown, n_frames), _masks(selection)
    columns = min(columns, shown)
    times = np.arange(shown) * n_frames // shown
    rows = -(-shown // columns)
    width = 2 * _MARGIN + columns * (_TILE + _GAP) - _GAP
    height = _HEAD + rows * (_LABEL + 2 * _TILE + 2 * _GAP) + _MARGIN
    figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")
    canvas = FigureCanvasAgg(figure)
    top_score = max(float(np.percentile(saliency.scores, 99.5)), 1e-6)
    _caption(figure, clip, selection, top_score, width, height)
    for place, t in enumerate(times):
        row, column = divmod(place, columns)
        left, top = _MARGIN + column * (_TILE + _GAP), _HEAD + row * (_LABEL + 2 * _TILE + 2 * _GAP)
        name = f"frame {clip.frame_index[t]}   {clip.pts_s[t]:.2f} s"
        _text(figure, left, top + _LABEL - 7, name, width, height, size=9.5)
        if clip.is_i_frame[t]:
            _text(figure, left + _TILE, top + _LABEL - 7, "I-frame", width, height, size=9.5, color=_MARK, align="right")
        _put(figure, _seen(clip.frames[t], chosen[t]), left, top + _LABEL, width, height)
        _put(figure, _heat(saliency.scores[t] / top_score), left, top + _LABEL + _TILE + 2, width, height)
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


def _caption(figure: Figure, clip: Clip, selection: Selection, top_score: float, width: int, height: int) -> None:
    n_frames, rows, columns = selection.grid_tyx
    kept, total = len(selection.flat), n_frames * rows * columns
    origin = (
        f"signals from the {clip.codec} bitstream" if clip.source == "bitstream" else f"{clip.codec}, signals from a transcode"
    )
    title = f"{kept:,} of {total:,} patches kept ({100 * kept / total:.1f} %)"
    _text(figure, _MARGIN, 38, title, width, height, size=15, weight="bold")
    detail = f"{n_frames} frames sampled from {clip.n_decoded}, {int(clip.is_i_frame.sum())} of them I-frames; {origin}"
    _text(figure, _MARGIN, 62, detail, width, height, size=10)
    key = "upper: what the encoder sees, in colour and outlined, the rest dimmed; lower: saliency of each patch"
    _text(figure, _MARGIN, 82, key, width, height, size=10)
    bar = colormaps["magma"](np.linspace(0, 1, _TILE - 40))[None, :, :3]
    strip = (np.repeat(bar, 12, axis=0) * 255).astype(np.uint8)
    left = width - _MARGIN - strip.shape[1]
    _put(figure, strip, left, 70, width, height)
    _text(figure, left, 64, "0", width, height, size=9)
    _text(figure, left + strip.shape[1], 64, f"{top_score:.2f}", width, height, size=9, align="right")
    _text(figure, left + strip.shape[1] // 2, 64, "saliency", width, height, size=9, align="center")


def _put(figure: Figure, picture: UInt8[np.ndarray, "h w 3"], left: int, top: int, width: int, height: int) -> None:
    """Places a picture pixel by pixel, (left, top) measured from the sheet's upper left corner."""
    rows, columns = picture.shape[:2]
    axes = figure.add_axes((left / width, 1 - (top + rows) / height, columns / width, rows / height))
    axes.imshow(picture, interpolation="nearest", aspect="auto")
    axes.set_axis_off()


def _text(
    figure: Figure, left: int, base: int, words: str, width: int, height: int, size: float, color: str = _INK,
    align: str = "left", weight: str = "normal",
) -> None:  # fmt: skip
    figure.text(left / width, 1 - base / height, words, fontsize=size, color=color, ha=align, va="baseline", weight=weight)
