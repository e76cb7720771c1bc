"""A drawn video for explanations: a street with a ball, a car, a bird, and a camera that pans slowly to the right."""

import cv2
import numpy as np
from jaxtyping import UInt8

_SIDE, _WIDE, _FRAMES = 256, 384, 150
_HORIZON, _STREET = 150, 196
_PAN_PX = 0.45
"""Of the camera in each frame."""


def street() -> UInt8[np.ndarray, "F H W 3"]:
    """Draws 150 RGB frames of 256 × 256 pixels, always the same."""
    panorama = _panorama()
    frames = np.empty((_FRAMES, _SIDE, _SIDE, 3), np.uint8)
    for t in range(_FRAMES):
        left = _PAN_PX * t
        frames[t] = cv2.warpAffine(panorama, np.array([[1, 0, -left], [0, 1, 0]]), (_SIDE, _SIDE), flags=cv2.INTER_LINEAR)
        _bird(frames[t], t)
        if 50 <= t < 105:
            _car(frames[t], 300 - 7.0 * (t - 50))
        _ball(frames[t], t, left)
    return frames


def _panorama() -> np.ndarray:
    rng = np.random.default_rng(2)
    rows = np.linspace(0, 1, _SIDE)[:, None, None]
    picture = np.array([95, 150, 225]) * (1 - rows) + np.array([225, 232, 240]) * rows
    picture = np.repeat(picture, _WIDE, axis=1)
    picture[_HORIZON:_STREET] = (112, 150, 84)
    picture[_STREET:] = (98, 98, 104)
    grain = cv2.GaussianBlur(rng.standard_normal((_SIDE, _WIDE)), (0, 0), 1.2)[..., None]
    picture += np.where(np.arange(_SIDE)[:, None, None] < _HORIZON, 3, 26) * grain
    canvas = np.clip(picture, 0, 255).astype(np.uint8)
    for x, height in ((40, 60), (128, 84), (250, 70), (330, 92)):
        _house(canvas, x, height, rng)
    for x in (104, 222, 310):
        cv2.rectangle(canvas, (x - 3, _STREET - 40), (x + 3, _STREET - 2), (92, 66, 44), -1)
        for _ in range(40):
            dx, dy = rng.normal(0, 8, 2).astype(int)
            cv2.circle(canvas, (x + int(dx), _STREET - 50 + int(dy)), 6, (40 + int(rng.integers(50)), 105, 45), -1, cv2.LINE_AA)
    for x in range(0, _WIDE, 40):
        cv2.rectangle(canvas, (x, 224), (x + 20, 227), (225, 225, 220), -1)
    return canvas


def _house(canvas: np.ndarray, x: int, height: int, rng: np.random.Generator) -> None:
    base, width = _STREET - 14, 62
    wall = tuple(int(c) for c in rng.integers(140, 225, 3))
    cv2.rectangle(canvas, (x, base - height), (x + width, base), wall, -1)
    roof = np.array([(x - 6, base - height), (x + width // 2, base - height - 28), (x + width + 6, base - height)])
    cv2.fillPoly(canvas, [roof], (150, 70, 55), cv2.LINE_AA)
    for row in range(base - height + 10, base - 22, 22):
        for column in range(x + 8, x + width - 10, 18):
            cv2.rectangle(canvas, (column, row), (column + 10, row + 13), (60, 72, 96), -1)
    cv2.rectangle(canvas, (x + 26, base - 20), (x + 38, base), (85, 60, 40), -1)


def _car(picture: np.ndarray, x: float) -> None:
    left = round(x)
    cv2.rectangle(picture, (left, 204), (left + 72, 222), (200, 40, 40), -1, cv2.LINE_AA)
    cabin = np.array([(left + 14, 204), (left + 24, 190), (left + 52, 190), (left + 62, 204)])
    cv2.fillPoly(picture, [cabin], (170, 210, 230), cv2.LINE_AA)
    for wheel in (left + 16, left + 56):
        cv2.circle(picture, (wheel, 222), 8, (25, 25, 28), -1, cv2.LINE_AA)
        spoke = (wheel + round(6 * np.cos(x / 8)), 222 + round(6 * np.sin(x / 8)))
        cv2.line(picture, (wheel, 222), spoke, (200, 200, 200), 2, cv2.LINE_AA)


def _ball(picture: np.ndarray, t: int, left: float) -> None:
    """Draws a ball that bounces in place on the pavement."""
    height = abs(np.sin(t / 9)) * 62 * 0.994**t
    center = (round(190 - 0.6 * left), round(240 - 11 - height))
    cv2.circle(picture, center, 11, (245, 160, 30), -1, cv2.LINE_AA)
    cv2.ellipse(picture, center, (11, 5), float(9 * t), 0, 360, (255, 240, 220), 2, cv2.LINE_AA)


def _bird(picture: np.ndarray, t: int) -> None:
    x, y, wing = 20 + 1.8 * t, 42 + 10 * np.sin(t / 15), 9 * np.sin(t / 2)
    points = np.array([(x - 11, y - wing), (x - 4, y), (x, y + 2), (x + 4, y), (x + 11, y - wing)]).round().astype(np.int32)
    cv2.polylines(picture, [points], False, (40, 40, 50), 2, cv2.LINE_AA)
