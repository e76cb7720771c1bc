"""Toy videos: real H.264 files in which something short and surprising happens, with the motion known.

A textured background under a slow camera pan, three striped objects on smooth paths, and one event of 4 to 8 frames at a
random time and place: an object hops (up, down, left, right), spins, grows, splits or changes its texture, and is then as
before. The class of a video is its event; all else is drawn independently, so that frames outside the event say nothing
about the class. All of it is a function of (seed, index).
"""

import functools
import json
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import cv2
import numpy as np
from jaxtyping import Bool, Float, UInt8

from ove.files import atomic_write, write_text

CLASSES = ("hop_up", "hop_down", "hop_left", "hop_right", "spin", "grow", "split", "retexture")
SIDE_PX = 256
FPS = 30
N_OBJECTS = 3
HOP_PX = 52.0
"""Height of a hop."""
_HOPS = {"hop_up": (0.0, -1.0), "hop_down": (0.0, 1.0), "hop_left": (-1.0, 0.0), "hop_right": (1.0, 0.0)}
_TEXTURE_PX = 96
_BACKGROUND_PX = 512
_BACKGROUNDS = 4
_RADII_PX = (20.0, 20.0, 40.0)
"""Mean radii of the objects; the last one is the event's."""
_MARGINS_PX = (32.0, 32.0, 94.0)
"""Centers of the objects stay this far from the border; that of the event's object so that no event leaves the picture."""


@dataclass(frozen=True)
class ToyVideo:
    """A rendered video with its ground truth."""

    frames: UInt8[np.ndarray, "F 256 256 3"]
    label: str
    event: tuple[int, int]
    """First frame of the event and the first one after it."""
    event_mask: Bool[np.ndarray, "F 256 256"]
    """Pixels that the event's object covers (in all frames, also outside the event)."""
    centers_px: Float[np.ndarray, "F 3 2"]
    """(x, y) of the objects, without the splitting of a split; the event's object is the last."""
    pan_px: Float[np.ndarray, "F 2"]
    """Shift of the background, (x, y); its differences are the camera's motion."""


def render(seed: int, index: int) -> ToyVideo:
    """Renders video `index` of the set `seed`; its class is `CLASSES[index % 8]`, its length 96 to 160 frames."""
    rng = np.random.default_rng((seed, index))
    label = CLASSES[index % len(CLASSES)]
    n_frames = int(rng.integers(96, 161))
    duration = int(rng.integers(4, 9))
    start = int(rng.integers(8, n_frames - duration - 8))
    background = _background(int(rng.integers(_BACKGROUNDS)))
    pan = _pan(rng, n_frames)
    centers = np.stack([_path(rng, n_frames, margin) for margin in _MARGINS_PX], axis=1)
    radii = rng.uniform(0.92, 1.08, N_OBJECTS) * _RADII_PX
    textures = [_stripes(rng) for _ in range(N_OBJECTS)]
    other_texture = _checks(rng)

    frames = np.empty((n_frames, SIDE_PX, SIDE_PX, 3), np.uint8)
    mask = np.zeros((n_frames, SIDE_PX, SIDE_PX), bool)
    for t in range(n_frames):
        picture = _shifted(background, pan[t])
        other = other_texture[t % 2]
        phase = (t - start + 1) / (duration + 1) if start <= t < start + duration else 0.0
        for i in range(N_OBJECTS - 1):
            _draw(picture, textures[i], centers[t, i], radii[i] * np.eye(2))
        for texture, center, shape in _acted(label, phase, textures[-1], other, centers[t, -1], radii[-1]):
            _draw(picture, texture, center, shape, mask[t])
        if label in _HOPS:
            centers[t, -1] += np.asarray(_HOPS[label]) * HOP_PX * np.sin(np.pi * phase)
        frames[t] = picture
    return ToyVideo(frames, label, (start, start + duration), mask, centers, pan)


def write_mp4(frames: UInt8[np.ndarray, "F H W 3"], path: Path) -> None:
    """Writes an H.264 file as a simple camera does: one I-frame, then P-frames with one reference."""
    options = {"preset": "superfast", "crf": "18", "x264-params": "bframes=0:ref=1:weightp=0:scenecut=0:keyint=250:threads=1"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=Fraction(FPS), options=options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.thread_count = 1
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def write_video(folder: Path, seed: int, index: int) -> Path:
    """Writes `folder/CLASS/toy_SEED_INDEX.mp4` unless it exists, and its ground truth beside the folder; returns the path."""
    label = CLASSES[index % len(CLASSES)]
    path = folder / label / f"toy_{seed}_{index:05d}.mp4"
    if path.exists():
        return path
    video = render(seed, index)
    truth = folder.parent / f"{folder.name}_truth" / f"{path.stem}.json"
    for parent in (path.parent, truth.parent):
        parent.mkdir(parents=True, exist_ok=True)
    about = {"label": label, "event": video.event, "centers_px": video.centers_px.tolist(), "pan_px": video.pan_px.tolist()}
    write_text(truth, json.dumps(about))
    with atomic_write(path) as temporary:
        write_mp4(video.frames, temporary)
    return path


def _acted(
    label: str, phase: float, texture: np.ndarray, other: np.ndarray, center: np.ndarray, radius: float
) -> list[tuple[np.ndarray, np.ndarray, np.ndarray]]:
    """Returns what to draw of the event's object at `phase` (0: no event; 0…1 within it), each (texture, center, 2×2 shape).

    A shape maps the unit disc to the picture. What hops leans to the side, stretches upwards or flattens downwards.
    """
    bump = float(np.sin(np.pi * phase))
    disc = radius * np.eye(2)
    if phase == 0.0:
        return [(texture, center, disc)]
    if label in _HOPS:
        return [(texture, center + np.asarray(_HOPS[label]) * HOP_PX * bump, disc @ _HOP_SHAPES[label])]
    if label == "spin":
        return [(texture, center, disc @ _turn(2 * np.pi * phase))]
    if label == "grow":
        return [(texture, center, disc * (1 + 0.8 * bump))]
    if label == "split":
        offset = np.asarray((36.0 * bump, 0.0))
        return [(texture, center + sign * offset, disc * (1 - 0.4 * bump)) for sign in (-1, 1)]
    return [(other, center, disc)]


def _turn(angle: float) -> np.ndarray:
    """Rotation by `angle` radians."""
    return np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])


_HOP_SHAPES = {
    "hop_up": np.diag((0.7, 1.3)),
    "hop_down": np.diag((1.3, 0.7)),
    "hop_left": _turn(-np.pi / 5),
    "hop_right": _turn(np.pi / 5),
}


@functools.cache
def _background(number: int) -> np.ndarray:
    """One of a few textures that all videos share: noise of several octaves, nearly gray."""
    rng = np.random.default_rng((0xBAC, number))
    picture = np.zeros((_BACKGROUND_PX, _BACKGROUND_PX, 3), np.float32)
    for cells, weight in ((8, 12.0), (32, 8.0), (128, 6.0)):
        noise = rng.standard_normal((cells, cells, 3)).astype(np.float32)
        grey = rng.standard_normal((cells, cells, 1)).astype(np.float32)
        picture += weight * cv2.resize(
            0.2 * noise + 0.9 * grey, (_BACKGROUND_PX, _BACKGROUND_PX), interpolation=cv2.INTER_CUBIC
        )
    return np.clip(picture + 85, 0, 255).astype(np.uint8)


def _pan(rng: np.random.Generator, n_frames: int) -> np.ndarray:
    """Where the camera looks, from a random place on, drifting at up to 0.3 pixels a frame."""
    speed = rng.uniform(0.1, 0.3)
    heading = rng.uniform(0, 2 * np.pi)
    return rng.uniform(-64, 64, 2) + np.outer(np.arange(n_frames), speed * np.array([np.cos(heading), np.sin(heading)]))


def _path(rng: np.random.Generator, n_frames: int, margin: float) -> np.ndarray:
    """A smooth way between two points, at less than about half a pixel a frame."""
    low, high = margin, SIDE_PX - margin
    begin, end = rng.uniform(low, high, (2, 2))
    wobble = rng.uniform(1, 3, 2) * np.sin(np.outer(np.arange(n_frames), rng.uniform(0.03, 0.06, 2)) + rng.uniform(0, 6, 2))
    line = begin + rng.uniform(0.2, 0.5) * np.linspace(0, 1, n_frames)[:, None] * (end - begin)
    return np.clip(line + wobble, low, high)


def _colours(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A dark and a bright colour."""
    return 45 + rng.uniform(-8, 8, 3), 220 + rng.uniform(-12, 12, 3)


def _stripes(rng: np.random.Generator) -> np.ndarray:
    """Upright stripes with some noise in them, so that motion along them shows too."""
    dark, bright = _colours(rng)
    x = np.arange(_TEXTURE_PX) / _TEXTURE_PX
    wave = 0.5 + 0.5 * np.sin(2 * np.pi * (rng.uniform(4.5, 5.0) * x + rng.uniform()))
    blend = np.repeat(np.clip(2.5 * wave - 0.75, 0, 1)[None, :, None], _TEXTURE_PX, axis=0)
    noise = cv2.resize(rng.standard_normal((16, 16, 1)), (_TEXTURE_PX, _TEXTURE_PX), interpolation=cv2.INTER_CUBIC)
    return np.clip(dark + (bright - dark) * blend + 8.0 * noise[..., None], 0, 255).astype(np.float32)


def _checks(rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray]:
    """A checkerboard and its inverse: shown in turns they flicker."""
    dark, bright = _colours(rng)
    cells = np.indices((_TEXTURE_PX, _TEXTURE_PX)) // (_TEXTURE_PX // 6)
    blend = (cells.sum(0) % 2)[..., None]
    board, inverse = ((dark + (bright - dark) * b).astype(np.float32) for b in (blend, 1 - blend))
    return board, inverse


def _shifted(background: np.ndarray, pan: np.ndarray) -> np.ndarray:
    """The part of the background that the camera sees, with bilinear sub-pixel shifts."""
    begin = (_BACKGROUND_PX - SIDE_PX) / 2 - pan
    x, y = np.floor(begin).astype(int)
    right, down = begin - (x, y)
    # Two blends of neighbours: several times faster than a general warp.
    seen = background[y : y + SIDE_PX + 1, x : x + SIDE_PX + 1]
    row = cv2.addWeighted(seen[:, :-1], 1 - right, seen[:, 1:], right, 0, dtype=cv2.CV_32F)
    return cv2.addWeighted(row[:-1], 1 - down, row[1:], down, 0, dtype=cv2.CV_8U)


def _draw(
    picture: np.ndarray, texture: np.ndarray, center: np.ndarray, shape: np.ndarray, covered: np.ndarray | None = None
) -> None:
    """Draws a disc of `texture`, deformed by the 2×2 `shape`, into `picture` in place; marks its pixels in `covered`."""
    reach = int(np.ceil(np.abs(shape).sum(axis=1).max())) + 2
    x0, y0 = int(center[0]) - reach, int(center[1]) - reach
    left, top = max(0, -x0), max(0, -y0)
    right, bottom = min(2 * reach + 1, SIDE_PX - x0), min(2 * reach + 1, SIDE_PX - y0)
    target = (slice(y0 + top, y0 + bottom), slice(x0 + left, x0 + right))
    # Destination pixel → place on the unit disc → pixel of the texture.
    inverse = np.linalg.inv(shape)
    offset = inverse @ (np.array([x0 + left, y0 + top]) - center)
    to_texture = np.column_stack([inverse, offset + 1]) * (_TEXTURE_PX / 2)
    flags = cv2.INTER_LINEAR | cv2.WARP_INVERSE_MAP
    drawn = cv2.warpAffine(texture, to_texture, (right - left, bottom - top), flags=flags, borderMode=cv2.BORDER_REPLICATE)
    y, x = np.arange(bottom - top)[:, None], np.arange(right - left)
    distance = np.sqrt(
        np.square(inverse[0, 0] * x + inverse[0, 1] * y + offset[0])
        + np.square(inverse[1, 0] * x + inverse[1, 1] * y + offset[1])
    )
    alpha = np.clip((1 - distance) * np.sqrt(abs(np.linalg.det(shape))) + 0.5, 0, 1).astype(np.float32)
    if covered is not None:
        covered[target] |= alpha > 0.5
    alpha = cv2.merge((alpha, alpha, alpha))  # NumPy repeats a last axis of 1 to 3 several times more slowly
    picture[target] = picture[target] * (1 - alpha) + drawn * alpha + 0.5
