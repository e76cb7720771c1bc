"""A short video of a clip: the sampled frames beside what the encoder sees of them."""

from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from jaxtyping import Bool, UInt8

from ove.files import atomic_write
from ove.records import Clip, Selection
from ove.view import colours
from ove.view.canvas import FAINT, MARK, Canvas
from ove.view.moments import bars, title

ANIMATION_FPS = 8
"""Sampled frames per second."""
_SIDE, _GAP, _MARGIN, _HEAD, _LINE, _BARS = 400, 16, 24, 96, 40, 64
"""Pixels: side of a picture, space between the two, white border, title, the line of changing text, bars of all frames."""
_WIDTH = 2 * (_MARGIN + _SIDE) + _GAP


def write_animation(path: Path, clip: Clip, selection: Selection, name: str = "") -> None:
    """Writes an H.264 file with one picture for each sampled frame, whole or not at all."""
    chosen = colours.masks(selection.flat, selection.grid_tyx)
    base = _base(clip, selection, chosen, name)
    with (
        atomic_write(path) as temporary,
        av.open(str(temporary), "w", format="mp4", container_options={"movflags": "faststart"}) as container,
    ):
        options = {"preset": "medium", "crf": "20", "x264-params": "threads=1"}
        stream = container.add_stream("libx264", rate=Fraction(ANIMATION_FPS), options=options)
        stream.height, stream.width, stream.pix_fmt = base.shape[0], base.shape[1], "yuv420p"
        for t in range(len(clip.frames)):
            picture = animation_picture(base, clip, chosen, t)
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))


def animation_picture(
    base: UInt8[np.ndarray, "H W 3"], clip: Clip, chosen: Bool[np.ndarray, "T Y X"], t: int
) -> UInt8[np.ndarray, "H W 3"]:
    """Draws frame `t`, as it is and as the encoder sees it, on the common page `base`."""
    picture = base.copy()
    right = _MARGIN + _SIDE + _GAP
    picture[_HEAD : _HEAD + _SIDE, _MARGIN : _MARGIN + _SIDE] = colours.scaled(clip.frames[t], (_SIDE, _SIDE), smooth=True)
    picture[_HEAD : _HEAD + _SIDE, right : right + _SIDE] = colours.kept(clip.frames[t], chosen[t], _SIDE)
    words = Canvas(_WIDTH, _LINE)
    words.text(_MARGIN, 26, f"{clip.pts_s[t]:.2f} s, frame {clip.frame_index[t]} of {clip.n_decoded}", px=16)
    n_kept, per_frame = int(chosen[t].sum()), chosen[t].size
    if clip.is_i_frame[t]:
        words.text(right, 26, f"I-frame: {n_kept} of {per_frame} patches kept", px=16, color=MARK, bold=True)
    else:
        words.text(right, 26, f"{n_kept} of {per_frame} patches kept", px=16)
    picture[_HEAD + _SIDE : _HEAD + _SIDE + _LINE] = words.pixels()
    pitch = (_WIDTH - 2 * _MARGIN) / len(chosen)
    left, right = round(_MARGIN + t * pitch), round(_MARGIN + (t + 1) * pitch)
    picture[-_MARGIN + 2 : -_MARGIN + 8, left:right] = (255, 150, 0)
    return picture


def _base(clip: Clip, selection: Selection, chosen: Bool[np.ndarray, "T Y X"], name: str) -> UInt8[np.ndarray, "H W 3"]:
    """Draws title, captions and the bars of all frames."""
    n_frames = len(chosen)
    page = Canvas(_WIDTH, _HEAD + _SIDE + _LINE + _BARS + _MARGIN)
    page.text(_MARGIN, 38, title(selection), px=21, bold=True)
    page.text(_MARGIN, 62, name, px=13, color=FAINT)
    page.text(_MARGIN, 88, f"{n_frames} frames sampled from the video, {ANIMATION_FPS} a second", px=15)
    page.text(_MARGIN + _SIDE + _GAP, 88, "bright: what the encoder sees; dimmed: left out", px=15)
    top = _HEAD + _SIDE + _LINE
    bars(page, (_MARGIN, top, _WIDTH - _MARGIN, top + _BARS), chosen, clip.is_i_frame)
    return page.pixels()
