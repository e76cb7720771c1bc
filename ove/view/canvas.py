"""A white canvas on which pictures and text are placed by pixels."""

import numpy as np
from jaxtyping import UInt8
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle

from ove.files import printable

INK, MARK, FAINT = "#222222", "#c2185b", "#8a8a8a"
"""Colours of text, of what is marked (I-frames), and of what stays in the background."""
_DPI = 100


class Canvas:
    """A canvas of `width` × `height` pixels; places count from its upper left corner."""

    def __init__(self, width: int, height: int) -> None:
        self.width, self.height = width, height
        self._figure = Figure(figsize=(width / _DPI, height / _DPI), dpi=_DPI, facecolor="white")

    def put(self, left: int, top: int, picture: UInt8[np.ndarray, "h w 3"]) -> None:
        """Places a picture pixel by pixel."""
        rows, columns = picture.shape[:2]
        box = (left / self.width, 1 - (top + rows) / self.height, columns / self.width, rows / self.height)
        axes = self._figure.add_axes(box)
        axes.imshow(picture, interpolation="nearest", aspect="auto")
        axes.set_axis_off()

    def text(
        self,
        x: int | float,
        base: int | float,
        words: str,
        px: int | float = 14,
        color: str = INK,
        align: str = "left",
        bold: bool = False,
    ) -> None:
        """Writes text, the first line on the baseline `base`; `px` is the font size."""
        self._figure.text(
            x / self.width,
            1 - (base - px) / self.height,
            printable(words),
            fontsize=px * 72 / _DPI,
            color=color,
            ha=align,
            va="top",
            linespacing=1.25,
            fontweight="bold" if bold else "normal",
        )

    def label(self, left: int | float, bottom: int | float, words: str) -> None:
        """Writes small text on white, for pictures; (left, bottom) is its lower left corner."""
        ground = {"facecolor": "white", "edgecolor": "none", "pad": 2}
        place = (left / self.width, 1 - bottom / self.height)
        self._figure.text(*place, printable(words), fontsize=11 * 72 / _DPI, color=INK, ha="left", va="bottom", bbox=ground)

    def bar(self, left: int | float, top: int | float, width: int | float, height: int | float, color: str) -> None:
        """Draws a filled rectangle."""
        box = ((left / self.width, 1 - (top + height) / self.height), width / self.width, height / self.height)
        self._figure.add_artist(Rectangle(*box, facecolor=color, linewidth=0))

    def pointer(self, x: int | float, tip: int | float, side: int | float = 9, color: str = INK) -> None:
        """Draws a small triangle that points upwards to (x, tip)."""
        corners = [(x, tip), (x - side / 2, tip + side), (x + side / 2, tip + side)]
        self._figure.add_artist(Polygon([(a / self.width, 1 - b / self.height) for a, b in corners], facecolor=color))

    def pixels(self) -> UInt8[np.ndarray, "H W 3"]:
        """Returns the canvas as RGB."""
        canvas = FigureCanvasAgg(self._figure)
        canvas.draw()
        return np.asarray(canvas.buffer_rgba())[..., :3].copy()
