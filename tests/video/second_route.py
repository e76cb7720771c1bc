"""A second way to the residual, with code of its own: prediction from decoded pictures + residual must be the decoded picture.

Where it is not known which reference, weights or vector a block uses, all that are possible are tried. A cell of 8×8 counts as
explained if a single try is right on all of its 64 pixels.
"""

import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from fractions import Fraction
from functools import partial
from itertools import chain, combinations, permutations, product
from pathlib import Path

import av
import numpy as np
from av import logging as av_logging
from interpolation import CELL, MARGIN, displaced, half_samples, hevc_quarter_samples, mean, padded, quarter_samples

from ove.video.bitstream.codecs import GRAY_DECODERS
from ove.video.bitstream.gray import luma_of
from ove.video.container import Deadline
from ove.video.demux import decoded_frames, survey

Predicted = Iterable[np.ndarray]
"""Pictures that a block's prediction may have been taken from, all of them whole pictures."""


@dataclass
class Shown:
    """One decoded frame: its luma, what it adds to gray, and FFmpeg's vectors on cells, in their own units."""

    luma: np.ndarray
    residual: np.ndarray
    bits: int
    kind: str
    vectors: list[np.ndarray]
    """For list 0 and list 1 (cells down, cells across, 2): (x, y)."""
    has_vector: list[np.ndarray]
    scale: int
    """Units of a vector in a pixel."""
    weights: list[tuple[int, int, int]]
    """(weight, offset, binary logarithm of the denominator) that the slices of its packet name for luma."""


def shown_frames(path: Path) -> list[Shown]:
    """All frames of a file in the order of display; residuals at full depth."""
    weights, stream = explicit_weights(path), survey(path, Deadline(path, 60.0))
    gray = GRAY_DECODERS[stream.codec](stream.extradata)
    found = []
    for decoded in decoded_frames(path, Deadline(path, 60.0), keep_packets=True):
        gray.observe(decoded.packet, decoded.header)
        luma, bits = luma_of(decoded.frame)
        kind = "_IPB"[int(decoded.frame.pict_type)]
        alone = gray.luma(decoded.packet)[0].astype(int) - (1 << (bits - 1))
        side = gray.vectors(decoded.frame, decoded.packet)
        fields = [_field(side, luma.shape, direction) for direction in (-1, 1)]
        scale = 4 if side is None else int(side["motion_scale"][0])
        vectors, has_vector = ([field[i] for field in fields] for i in (0, 1))
        found.append(
            Shown(luma.astype(int), alone, bits, kind, vectors, has_vector, scale, weights.get(decoded.packet[-64:], []))
        )
    return found


def _field(side: np.ndarray | None, shape: tuple[int, ...], direction: int) -> tuple[np.ndarray, np.ndarray]:
    rows, columns = (-(-side_px // 16) * 2 for side_px in shape)
    field, has = np.zeros((rows, columns, 2), int), np.zeros((rows, columns), bool)
    for v in [] if side is None else side[side["source"] == direction]:
        top, left = (int(v["dst_y"]) - int(v["h"]) // 2) // CELL, (int(v["dst_x"]) - int(v["w"]) // 2) // CELL
        block = np.s_[top : top + int(v["h"]) // CELL, left : left + int(v["w"]) // CELL]
        field[block], has[block] = (v["motion_x"], v["motion_y"]), True
    return field, has


def explicit_weights(path: Path) -> dict[bytes, list[tuple[int, int, int]]]:
    """By the last bytes of each packet, the weights for luma that FFmpeg's own reader of headers finds in its slices."""
    found = {}
    av_logging.set_level(av_logging.INFO)
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        if stream.codec_context.name not in ("h264", "hevc"):
            return {}
        reader = av.BitStreamFilterContext("trace_headers", stream)
        for packet in container.demux(stream):
            if packet.size:
                end = bytes(packet)[-64:]
                with av_logging.Capture(True) as lines:
                    reader.filter(packet)
                found[end] = _weights("".join(line for _, _, line in lines))
    av_logging.set_level(av_logging.PANIC)
    return found


def _weights(text: str) -> list[tuple[int, int, int]]:
    denominator, found = 0, {}
    for name, value in re.findall(r"\d+\s+(\S+)\s+[01]+ = (-?\d+)", text):
        if name == "luma_log2_weight_denom":
            denominator = int(value)
        elif name.startswith(("luma_weight_l0[", "luma_weight_l1[")):
            found[name[11:]] = [int(value), 0, denominator]
        elif name.startswith("delta_luma_weight_"):
            found[name[17:]] = [(1 << denominator) + int(value), 0, denominator]
        elif name.startswith(("luma_offset_l0[", "luma_offset_l1[")):
            found[name[11:]][1] = int(value)
    return [tuple(one) for one in found.values()]


def explained(now: Shown, candidates: Predicted, residual: np.ndarray) -> np.ndarray:
    """The cells (down, across) of which one candidate + residual is the decoded luma on all pixels."""
    rows, columns = (side // CELL for side in now.luma.shape)
    found = np.zeros((rows, columns), bool)
    # What the values around mid-gray cannot hold is not there to be explained.
    bound = 1 << (now.bits - 1)
    uncertain = (residual <= -bound) | (residual >= bound - 1)
    for picture in candidates:
        equal = (np.clip(picture + residual, 0, 2 * bound - 1) == now.luma) | uncertain
        found |= equal[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL).all((1, 3))
    return found


@dataclass
class Share:
    """How many of the cells that something was added to are explained."""

    cells: int = 0
    explained: int = 0
    control: int = 0
    """How many would be with the residual of another place, 16 pixels away."""

    def add(self, now: Shown, candidates: Callable[[], Predicted], counted: np.ndarray) -> None:
        """Counts the cells `counted` of a frame that have a residual other than 0."""
        rows, columns = counted.shape
        pixels = now.residual[: rows * CELL, : columns * CELL].reshape(rows, CELL, columns, CELL)
        counted = counted & pixels.any((1, 3))
        self.cells += int(counted.sum())
        self.explained += int((explained(now, candidates(), now.residual) & counted).sum())
        self.control += int((explained(now, candidates(), np.roll(now.residual, 16, 1)) & counted).sum())


def share_of_h264(path: Path, reach: int = 13) -> dict[str, Share]:
    """Of the P- and of the B-frames of a file without loop filter, references being up to `reach` frames away."""
    frames = shown_frames(path)
    planes = {r: np.array(quarter_samples(padded(frame.luma), frame.bits)) for r, frame in enumerate(frames)}
    return _shares(frames, lambda t: h264_candidates(frames, planes, t, reach))


def share_of_mpeg(path: Path) -> dict[str, Share]:
    """Of the P- and of the B-frames of an MPEG-1, MPEG-2 or MPEG-4 file with vectors in half pixels."""
    frames = shown_frames(path)
    planes = {
        r: [np.array(half_samples(padded(frame.luma), rounding)) for rounding in (0, 1)]
        for r, frame in enumerate(frames)
        if frame.kind != "B"
    }
    return _shares(frames, lambda t: mpeg_candidates(frames, planes, t))


def _shares(frames: list[Shown], candidates: Callable[[int], Predicted]) -> dict[str, Share]:
    shares: dict[str, Share] = {}
    for t, now in enumerate(frames):
        rows, columns = (side // CELL for side in now.luma.shape)
        inter = (now.has_vector[0] | now.has_vector[1])[:rows, :columns]
        if inter.any():
            shares.setdefault(now.kind, Share()).add(now, partial(candidates, t), inter)
    return shares


def share_of_hevc(path: Path, candidates: Callable[[list[Shown], int], Predicted]) -> dict[str, Share]:
    """Of the P- and of the B-frames of an HEVC file without loop filter; which cells are intra-coded is not known."""
    frames = shown_frames(path)
    shares: dict[str, Share] = {}
    for t, now in enumerate(frames):
        if now.kind != "I":
            rows, columns = (side // CELL for side in now.luma.shape)
            share = shares.setdefault(now.kind, Share())
            share.add(now, partial(candidates, frames, t), np.ones((rows, columns), bool))
    return shares


def h264_candidates(frames: list[Shown], planes: dict[int, np.ndarray], t: int, reach: int) -> Iterator[np.ndarray]:
    """Predictions of frame t from the frames up to `reach` before and after it, by its vectors: one list, both, weighted."""
    now, one_sided = frames[t], [{}, {}]
    top = (1 << now.bits) - 1
    near = [r for r in range(max(0, t - reach), min(len(frames), t + reach + 1)) if r != t]
    for which, r in product((0, 1), near):
        if now.has_vector[which].any():
            one_sided[which][r] = picture = displaced(planes[r], now.vectors[which], now.luma.shape)
            yield picture
            for weight, offset, shift in now.weights:
                scaled = (picture * weight + (1 << shift >> 1)) >> shift
                yield np.clip(scaled + (offset << (now.bits - 8)), 0, top)
    for (a, first), (b, second) in product(one_sided[0].items(), one_sided[1].items()):
        yield mean(first, second)
        w1 = implicit_weight(t, a, b)
        if w1 != 32:
            yield np.clip((first * (64 - w1) + second * w1 + 32) >> 6, 0, top)


def mpeg_candidates(frames: list[Shown], planes: dict[int, list[np.ndarray]], t: int) -> Iterator[np.ndarray]:
    """Predictions of frame t from the anchors before and after it, by its vectors: one side or both."""
    now, anchors = frames[t], [[r for r in planes if r < t][-1:], [r for r in planes if r > t][:1]]
    assert now.scale == 2
    one_sided = [
        [displaced(both[rounding], now.vectors[which], now.luma.shape) for rounding in (0, 1)]
        for which in (0, 1)
        for both in [planes[r] for r in anchors[which]]
        if now.has_vector[which].any()
    ]
    yield from chain(*one_sided)
    if len(one_sided) == 2:
        yield mean(one_sided[0][0], one_sided[1][0])


def shifted_candidates(frames: list[Shown], t: int, down: int, across: int) -> Iterator[np.ndarray]:
    """The frame before frame t moved by all quarters of up to so many pixels, as HEVC interpolates."""
    planes = np.array(hevc_quarter_samples(padded(frames[t - 1].luma), frames[t].bits))
    rows, columns = frames[t].luma.shape
    for y, x in product(range(-4 * down, 4 * down + 1), range(-4 * across, 4 * across + 1)):
        top, left = MARGIN + (y >> 2), MARGIN + (x >> 2)
        yield planes[y & 3, x & 3, top : top + rows, left : left + columns]


def unmoved_candidates(frames: list[Shown], t: int, reach: int) -> Iterator[np.ndarray]:
    """All frames up to `reach` away where they are, one or two, plain or weighted as the slices of frame t say (HEVC)."""
    now = frames[t]
    near = [frames[r].luma for r in range(max(0, t - reach), min(len(frames), t + reach + 1)) if r != t]
    top = (1 << now.bits) - 1
    yield from near
    for picture, (weight, offset, shift) in product(near, now.weights):
        yield np.clip(((picture * weight * 64 + (1 << (shift + 5))) >> (shift + 6)) + (offset << (now.bits - 8)), 0, top)
    for first, second in combinations(near, 2):
        yield mean(first, second)
    shift = now.weights[0][2] if now.weights else 0
    both = product(permutations(near, 2), product({*now.weights, (1 << shift, 0, shift)}, repeat=2)) if now.weights else ()
    for (first, second), ((w0, o0, _), (w1, o1, _)) in both:
        offsets = ((o0 + o1) << (now.bits - 8)) + 1
        yield np.clip((64 * (first * w0 + second * w1) + (offsets << (shift + 6))) >> (shift + 7), 0, top)


def implicit_weight(t: int, first: int, second: int) -> int:
    """w1 of a block of frame t predicted from two others, out of 64 (ITU-T H.264, 8.4.2.3.1)."""
    before, apart = 2 * (t - first), 2 * (second - first)  # two units of order a frame, none of them beyond ±128 here
    if apart == 0:
        return 32
    inverse = int(Fraction(16384 + abs(apart) // 2, apart))
    weight = max(-1024, min(1023, (before * inverse + 32) >> 6)) >> 2
    return weight if -64 <= weight <= 128 else 32
