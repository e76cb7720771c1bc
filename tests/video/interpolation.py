"""Pictures between the pixels of a reference, as H.264, HEVC and MPEG interpolate them: written from the standards."""

import numpy as np

CELL, MARGIN = 8, 64
"""Pixels of a cell of the motion field; pixels that a reference is continued beyond its border."""


def six_tap(image: np.ndarray, axis: int) -> np.ndarray:
    """Σ (1, −5, 20, 20, −5, 1)·samples around the half-sample position after each sample, neither rounded nor clipped."""
    taps = zip((1, -5, 20, 20, -5, 1), (2, 1, 0, -1, -2, -3), strict=True)
    return sum(weight * np.roll(image, shift, axis) for weight, shift in taps)


def quarter_samples(luma: np.ndarray, bits: int = 8) -> list[list[np.ndarray]]:
    """The 16 pictures [y][x] of luma at quarter-sample offsets (ITU-T H.264, 8.4.2.2.1), wrong near the border."""
    whole, top = luma.astype(np.int64), (1 << bits) - 1
    beside, below = np.roll(whole, -1, 1), np.roll(whole, -1, 0)
    right = np.clip((six_tap(whole, 1) + 16) >> 5, 0, top)
    down = np.clip((six_tap(whole, 0) + 16) >> 5, 0, top)
    both = np.clip((six_tap(six_tap(whole, 1), 0) + 512) >> 10, 0, top)
    right_below, down_beside = np.roll(right, -1, 0), np.roll(down, -1, 1)
    return [
        [whole, mean(whole, right), right, mean(beside, right)],
        [mean(whole, down), mean(right, down), mean(right, both), mean(right, down_beside)],
        [down, mean(down, both), both, mean(both, down_beside)],
        [mean(below, down), mean(down, right_below), mean(both, right_below), mean(down_beside, right_below)],
    ]


HEVC_TAPS = ((0, 0, 0, 64, 0, 0, 0, 0), (-1, 4, -10, 58, 17, -5, 1, 0), (-1, 4, -11, 40, 40, -11, 4, -1))
"""Luma at 0, 1/4 and 1/2 (ITU-T H.265, table 8-11); 3/4 is 1/4 from the other side."""


def hevc_quarter_samples(luma: np.ndarray, bits: int = 8) -> list[list[np.ndarray]]:
    """The 16 pictures [y][x] of luma at quarter-sample offsets (ITU-T H.265, 8.5.3.3.3), wrong near the border."""
    taps = [*HEVC_TAPS, HEVC_TAPS[1][::-1]]

    def along(image: np.ndarray, quarter: int, axis: int) -> np.ndarray:
        return sum(weight * np.roll(image, shift, axis) for weight, shift in zip(taps[quarter], range(3, -5, -1), strict=True))

    top, across = (1 << bits) - 1, [along(luma.astype(np.int64), x, 1) for x in range(4)]
    return [[np.clip(((along(image, y, 0) >> 6) + 32) >> 6, 0, top) for image in across] for y in range(4)]


def half_samples(luma: np.ndarray, rounding: int) -> list[list[np.ndarray]]:
    """The 4 pictures [y][x] of luma at half-sample offsets, bilinear (ITU-T H.262, 7.6.4); MPEG-4 may round down."""
    whole = luma.astype(np.int64)
    beside, below = np.roll(whole, -1, 1), np.roll(whole, -1, 0)
    corner = np.roll(below, -1, 1)
    one, two = 1 - rounding, 2 - rounding
    return [[whole, (whole + beside + one) >> 1], [(whole + below + one) >> 1, (whole + beside + below + corner + two) >> 2]]


def mean(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """Rounded up."""
    return (a + b + 1) >> 1


def padded(luma: np.ndarray) -> np.ndarray:
    """The picture with its border repeated outwards."""
    return np.pad(luma, MARGIN, mode="edge")


def displaced(planes: np.ndarray, vectors: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """A picture made of the cells of a reference at the ends of their vectors; `planes` [y][x] of the padded reference."""
    parts = len(planes)
    field = vectors.repeat(CELL, 0).repeat(CELL, 1)[: shape[0], : shape[1]]
    y, x = np.indices(shape)
    bits = parts.bit_length() - 1
    rows = np.clip(y + MARGIN + (field[..., 1] >> bits), 0, planes.shape[2] - 1)
    columns = np.clip(x + MARGIN + (field[..., 0] >> bits), 0, planes.shape[3] - 1)
    return planes[field[..., 1] & (parts - 1), field[..., 0] & (parts - 1), rows, columns]
