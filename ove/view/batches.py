"""What the encoder sees of a batch: patches put back at their positions, one picture a sample."""

from collections import Counter
from collections.abc import Mapping
from pathlib import Path

import cv2
import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from ove.records import MODES, Batch
from ove.view import colours
from ove.view.canvas import FAINT, Canvas

STEPS = 16
"""From the start of a run, within which samples of each mode are drawn."""
_NOTHING = 40
"""Gray level where no patch has been seen yet."""
_TILE, _GAP, _MARGIN, _HEAD, _CAPTION = 128, 8, 20, 84, 18
"""Pixels: side of a tile, space between tiles, border, height of the title and of the line over each tile."""
_COLUMNS = 8
_LABELS = 12
"""Class centers named in the title, at most."""


class FirstBatches:
    """Draws the first samples of each bank and mode; called with each step's batches."""

    def __init__(self, folder: Path, patch_px: int, each: int) -> None:
        """`folder`: of the pictures; `each`: samples of each bank and mode; 0: none."""
        self._folder, self._patch_px, self._each = folder, patch_px, each
        self._drawn: Counter[tuple[str, int]] = Counter()
        self._steps = 0

    def __call__(self, step: int, batches: Mapping[str, Batch]) -> list[Path]:
        """Writes a PNG for each sample that is still wanted; returns the files written."""
        self._steps += 1
        written: list[Path] = []
        for bank, batch in batches.items() if self._steps <= STEPS else ():
            for sample, mode in enumerate(batch.mode.tolist()):
                if self._drawn[bank, mode] < self._each:
                    self._drawn[bank, mode] += 1
                    name = f"step_{step:07d}_{bank}_{MODES[mode]}_{self._drawn[bank, mode]}.png"
                    written.append(self._write(name, draw(batch, sample, bank, self._patch_px, step)))
        return written

    def _write(self, name: str, picture: UInt8[np.ndarray, "H W 3"]) -> Path:
        self._folder.mkdir(parents=True, exist_ok=True)
        path = self._folder / name
        path.write_bytes(cv2.imencode(".png", cv2.cvtColor(picture, cv2.COLOR_RGB2BGR))[1].tobytes())
        return path


def draw(batch: Batch, sample: int, bank: str, patch_px: int, step: int) -> UInt8[np.ndarray, "H W 3"]:
    """Draws one sample as RGB: a tile for each time, the patches of the batch bright, everything else dark.

    The dark part shows in gray what was last seen at the same place, which the encoder does not get. A picture higher than
    wide is cut into squares from top to bottom.
    """
    times, frames, seen = put_back(batch.patches[sample], batch.positions[sample], patch_px)
    tiles = [
        (f"part {part + 1}: " if len(squares) > 1 else f"t {t}: ", frame, mask)
        for t, one, shown in zip(times, frames, seen, strict=True)
        for squares in [_squares(one, shown, patch_px)]
        for part, (frame, mask) in enumerate(squares)
    ]
    columns = min(_COLUMNS, max(len(tiles), 4))
    rows = -(-len(tiles) // columns)
    page = Canvas(
        width=2 * _MARGIN + columns * (_TILE + _GAP) - _GAP,
        height=_HEAD + rows * (_TILE + _CAPTION + _GAP) + _MARGIN,
    )
    labels = [int(label) for label in batch.labels[sample][:_LABELS] if label >= 0]
    mode = MODES[int(batch.mode[sample])]
    page.text(_MARGIN, 36, f"{bank}, {mode}: {int(seen.sum()):,} patches", px=20, bold=True)
    instead = " (in place of a bad one)" if batch.replaced[sample] else ""
    page.text(
        _MARGIN,
        62,
        f"step {step}, record {int(batch.record[sample])}{instead}, class centers {', '.join(map(str, labels)) or 'none'}",
        px=13,
        color=FAINT,
    )
    for number, (caption, frame, mask) in enumerate(tiles):
        left = _MARGIN + number % columns * (_TILE + _GAP)
        top = _HEAD + number // columns * (_TILE + _CAPTION + _GAP)
        page.text(left, top + _CAPTION - 5, f"{caption}{int(mask.sum())} of {mask.size}", px=11)
        page.put(left, top + _CAPTION, colours.kept(frame, mask, _TILE))
    return page.pixels()


def put_back(
    patches: UInt8[np.ndarray, "N P"], positions: Int32[np.ndarray, "N 3"], patch_px: int
) -> tuple[Int[np.ndarray, "T"], UInt8[np.ndarray, "T H W 3"], Bool[np.ndarray, "T Y X"]]:
    """Returns (times, frames, visible places) of patches at (t, y, x): a frame for each t, ascending.

    Other places show what was there last, and uniform gray before that.
    """
    times, place = np.unique(positions[:, 0], return_inverse=True)
    rows, columns = (int(n) + 1 for n in positions[:, 1:].max(axis=0))
    cells = np.full((len(times), rows, columns, patch_px, patch_px, 3), _NOTHING, np.uint8)
    seen = np.zeros((len(times), rows, columns), bool)
    where = (place, positions[:, 1], positions[:, 2])
    cells[where] = patches.reshape(-1, patch_px, patch_px, 3)
    seen[where] = True
    for before in range(len(times) - 1):
        hidden = ~seen[before + 1]
        cells[before + 1][hidden] = cells[before][hidden]
    return times, np.swapaxes(cells, 2, 3).reshape(len(times), rows * patch_px, columns * patch_px, 3), seen


def _squares(
    frame: UInt8[np.ndarray, "H W 3"], seen: Bool[np.ndarray, "Y X"], patch_px: int
) -> list[tuple[UInt8[np.ndarray, "S S 3"], Bool[np.ndarray, "X X"]]]:
    """Cuts a frame into squares from top to bottom; the rest of the last one is dark."""
    rows, columns = seen.shape
    lacking = -rows % columns
    frame = np.pad(frame, ((0, lacking * patch_px), (0, 0), (0, 0)), constant_values=_NOTHING)
    seen = np.pad(seen, ((0, lacking), (0, 0)))
    side = columns * patch_px
    count = len(seen) // columns
    return [(frame[i * side : (i + 1) * side], seen[i * columns : (i + 1) * columns]) for i in range(count)]
