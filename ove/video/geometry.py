"""Pictures of a file → the square of a clip: turned as shown, stretched or letterboxed."""

from dataclasses import dataclass, replace
from typing import cast

import cv2
import numpy as np
from av.sidedata.sidedata import SideData
from av.video.frame import VideoFrame
from jaxtyping import Bool, Float64, Shaped, UInt8

from ove.records import CELL_PX, CodecSignals


@dataclass(frozen=True)
class Orientation:
    """How a decoded picture is shown."""

    quarter_turns: int = 0
    """Counter-clockwise, 0…3."""
    mirrored: bool = False
    """Whether left and right are swapped, before the turn."""


@dataclass(frozen=True)
class Placement:
    """A picture of height_px × width_px in a square of size_px: at (top, left), scaled to rows × columns."""

    size_px: int
    height_px: int
    width_px: int
    top: int
    left: int
    rows: int
    columns: int

    def edges(self, patch_px: int) -> tuple[Float64[np.ndarray, "edges"], Float64[np.ndarray, "edges"]]:
        """Returns where the borders of the patches, down and across, lie in the picture, in its pixels, clipped to it."""
        borders = np.arange(0, self.size_px + 1, patch_px)
        down = (borders - self.top) * (self.height_px / self.rows)
        across = (borders - self.left) * (self.width_px / self.columns)
        return np.clip(down, 0, self.height_px), np.clip(across, 0, self.width_px)

    def valid(self, patch_px: int) -> Bool[np.ndarray, "Y X"]:
        """Returns the patches that lie wholly within the picture."""
        starts = np.arange(0, self.size_px, patch_px)
        down, across = (
            (starts >= begin) & (starts + patch_px <= begin + length)
            for begin, length in ((self.top, self.rows), (self.left, self.columns))
        )
        return down[:, None] & across


def place_in_square(height_px: int, width_px: int, size_px: int, geometry: str) -> Placement:
    """Returns where a picture lies in a square: `stretch` fills it; `letterbox` keeps the aspect ratio, centred (spec §2).

    Pixels are taken to be square.
    """
    if geometry == "stretch":
        return Placement(size_px, height_px, width_px, 0, 0, size_px, size_px)
    assert geometry == "letterbox", geometry
    longer = max(height_px, width_px)
    rows, columns = (max(1, round(side * size_px / longer)) for side in (height_px, width_px))
    return Placement(size_px, height_px, width_px, (size_px - rows) // 2, (size_px - columns) // 2, rows, columns)


def content(
    picture: UInt8[np.ndarray, "H W 3"], size_px: int, geometry: str, orientation: Orientation
) -> UInt8[np.ndarray, "rows columns 3"]:
    """Returns a decoded picture, turned, at its size in the square; `in_square` adds the padding."""
    height, width = picture.shape[:2]
    to = place_in_square(height, width, size_px, geometry)
    smaller = height >= to.rows and width >= to.columns
    fitted = cv2.resize(picture, (to.columns, to.rows), interpolation=cv2.INTER_AREA if smaller else cv2.INTER_LINEAR)
    return np.ascontiguousarray(turned(fitted, orientation))


def in_square(pictures: UInt8[np.ndarray, "T rows columns 3"], size_px: int) -> UInt8[np.ndarray, "T S S 3"]:
    """Centres pictures whose longer side is size_px on black."""
    rows, columns = pictures.shape[1:3]
    if (rows, columns) == (size_px, size_px):
        return pictures
    to = place_in_square(rows, columns, size_px, "letterbox")
    square = np.zeros((len(pictures), size_px, size_px, 3), np.uint8)
    square[:, to.top : to.top + rows, to.left : to.left + columns] = pictures
    return square


def orientation_of(frame: VideoFrame) -> Orientation:
    """Returns the quarter turn and mirroring nearest to a frame's display matrix; none without one."""
    try:
        data = frame.side_data.get("DISPLAYMATRIX")
    except ValueError:  # PyAV 18.1 lists all side data, and has no name for some (of spatial video): mirroring is unknown
        return Orientation(round(frame.rotation / 90) % 4)
    if data is None:
        return Orientation()
    a, b, _, c, d = np.frombuffer(bytes(cast(SideData, data)), np.int32, count=5).astype(np.float64)
    # A point (x, y), y downwards, is shown at (a·x + c·y, b·x + d·y); 16.16 fixed point (libavutil/display.h).
    mirrored = bool(a * d - b * c < 0)
    # Where the right of the picture ends up; of a mirrored one its left.
    x, y = (-a, -b) if mirrored else (a, b)
    return Orientation(round(-np.arctan2(y, x) / (np.pi / 2)) % 4, mirrored)


def turned(picture: Shaped[np.ndarray, "H W *more"], orientation: Orientation) -> Shaped[np.ndarray, "H2 W2 *more"]:
    """Returns a view of a picture turned as shown."""
    return np.rot90(picture[:, ::-1] if orientation.mirrored else picture, orientation.quarter_turns)


def turned_signals(signals: CodecSignals, orientation: Orientation) -> CodecSignals:
    """Turns the signals of decoded pictures as these are shown: places and directions."""
    if orientation.mirrored:
        signals = _mirrored(signals)
    for _ in range(orientation.quarter_turns % 4):
        signals = _quarter(signals)
    return signals


def _mirrored(signals: CodecSignals) -> CodecSignals:
    down, across = signals.cell_offset_px
    motion = signals.motion[:, :, ::-1] * np.array([-1, 1], np.float32)
    # What the border cut off the last column of cells is now missing from the first.
    across = signals.motion.shape[2] * CELL_PX - signals.residual.shape[2] - across
    return replace(
        signals,
        motion=motion,
        has_vector=signals.has_vector[:, :, ::-1],
        residual=signals.residual[:, :, ::-1],
        cell_offset_px=(down, across),
    )


def _quarter(signals: CodecSignals) -> CodecSignals:
    """Turns by a quarter counter-clockwise."""
    down, across = signals.cell_offset_px
    motion, has_vector, residual = (
        np.rot90(array, axes=(1, 2)) for array in (signals.motion, signals.has_vector, signals.residual)
    )
    # With y downwards, what went right goes up after a quarter turn, and what went down goes right.
    motion = np.stack([motion[..., 1], -motion[..., 0]], axis=-1)
    offset = (signals.motion.shape[2] * CELL_PX - signals.residual.shape[2] - across, down)
    return replace(signals, motion=motion, has_vector=has_vector, residual=residual, cell_offset_px=offset)
