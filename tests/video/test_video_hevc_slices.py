"""What HEVC's slice data tell: prediction by the vectors and the residual make the decoded picture; bits lie where news is."""

from dataclasses import dataclass
from pathlib import Path

import av
import numpy as np
import pytest
from interpolation import HEVC_TAPS
from video_files import moving_texture, write_file

from ove.video.bitstream.coded import CodedPicture, DamagedSlices, NoVectors
from ove.video.bitstream.gray import luma_of
from ove.video.bitstream.hevc import GrayHevc
from ove.video.bitstream.hevc_slices.load import open_pictures
from ove.video.container import Deadline
from ove.video.demux import decoded_frames, survey

TAPS = np.array([*HEVC_TAPS, HEVC_TAPS[1][::-1]])
UNFILTERED = "log-level=none:no-deblock=1:no-sao=1:keyint=60:scenecut=0:open-gop=0:"
"""One sequence without loop filters: POC counts the frames."""


@dataclass
class Stream:
    luma: list[np.ndarray]
    residual: list[np.ndarray]
    coded: list[CodedPicture]
    packets: list[bytes]
    bits: int


def stream_of(path: Path) -> Stream:
    """All frames of a file in the order of display."""
    found = survey(path, Deadline(path, 60.0))
    gray, stream = GrayHevc(found.extradata), Stream([], [], [], [], 8)
    for shown in decoded_frames(path, Deadline(path, 60.0), True, open_slices=lambda: open_pictures(found.extradata)):
        gray.observe(shown.packet, shown.header)
        luma, stream.bits = luma_of(shown.frame)
        assert shown.coded is not None
        stream.luma.append(luma.astype(np.int64))
        stream.residual.append(gray.luma(shown.packet)[0].astype(np.int64))
        stream.coded.append(shown.coded)
        stream.packets.append(shown.packet)
    return stream


def predicted(reference: np.ndarray, x: int, y: int, vector: np.ndarray, bits: int) -> np.ndarray:
    """The 4×4 pixels at (x, y), in 14 bits, from a reference (ITU-T H.265, 8.5.3.3.3)."""
    rows = np.clip(np.arange(y - 3, y + 8) + (vector[1] >> 2), 0, reference.shape[0] - 1)
    columns = np.clip(np.arange(x - 3, x + 8) + (vector[0] >> 2), 0, reference.shape[1] - 1)
    block, shift = reference[np.ix_(rows, columns)], bits - 8
    along_x, along_y = TAPS[vector[0] & 3], TAPS[vector[1] & 3]
    if vector[0] & 3 == 0 and vector[1] & 3 == 0:
        return block[3:7, 3:7] << 14 - bits
    if vector[0] & 3:
        block = np.stack([block[:, i : i + 8] @ along_x for i in range(4)], axis=1) >> shift
        if vector[1] & 3 == 0:
            return block[3:7]
        shift = 6
    else:
        block = block[:, 3:7]
    return np.stack([along_y @ block[i : i + 8] for i in range(4)]) >> shift


def wrong_pixels(stream: Stream, off: int = 0) -> tuple[int, int]:
    """Of the lower right 4×4 of each inter-coded block: pixels that differ from prediction + residual, and all that were tried.

    `off`: quarter pixels that are added to all vectors.
    """
    top, middle, wrong, tried = (1 << stream.bits) - 1, 1 << stream.bits - 1, 0, 0
    for t, coded in enumerate(stream.coded):
        height, width = stream.luma[t].shape
        for row, column in np.argwhere(coded.used[: height // 8, : width // 8].any(axis=-1)):
            y, x = 8 * row + 4, 8 * column + 4
            parts = [
                predicted(
                    stream.luma[t + coded.poc_distance[row, column, which]],
                    x,
                    y,
                    coded.vectors[row, column, which].astype(int) + off,
                    stream.bits,
                )
                for which in np.flatnonzero(coded.used[row, column])
            ]
            shift = 14 - stream.bits + len(parts) - 1
            prediction = np.clip((sum(parts) + (1 << shift - 1)) >> shift, 0, top)
            alone = stream.residual[t][y : y + 4, x : x + 4]
            kept = (alone > 0) & (alone < top)
            made = np.clip(prediction + alone - middle, 0, top)
            wrong += int((made != stream.luma[t][y : y + 4, x : x + 4])[kept].sum())
            tried += int(kept.sum())
    return wrong, tried


def clip(n: int = 12, width: int = 96, height: int = 72) -> np.ndarray:
    """A texture that pans, a square that moves the other way, and noise."""
    rng = np.random.default_rng(0)
    frames = moving_texture(n, width, height).astype(int)
    for t, frame in enumerate(frames):
        frame[20:44, 60 - 3 * t : 84 - 3 * t] = np.roll(frames[0], 9, axis=0)[20:44, 10:34]
    return np.clip(frames + rng.normal(0, 2, frames.shape), 0, 255).astype(np.uint8)


QUICK = [
    ("yuv420p", "bframes=4:b-pyramid=1:rect=1:amp=1:weightp=0:ref=4:crf=24"),
    ("yuv420p", "bframes=0:weightp=0:slices=2:wpp=1:ctu=16:max-tu-size=16:tskip=1:qg-size=8:crf=12"),
    ("yuv420p10le", "bframes=3:weightp=0:cu-lossless=1:rd=5:tu-inter-depth=3:crf=30"),
    ("yuv444p", "bframes=2:weightp=0:no-signhide=1:max-merge=1:no-temporal-mvp=1"),
]
_SETTINGS = """
preset=ultrafast preset=superfast preset=fast preset=slow preset=veryslow:weightb=0 bframes=8:b-adapt=0
ctu=32:min-cu-size=16 ctu=16:min-cu-size=8 tu-intra-depth=4:tu-inter-depth=4 wpp=0 slices=2:ctu=16 lossless=1
crf=10 crf=18 crf=34 crf=45 constrained-intra=1 intra-refresh=1 aq-mode=3:qg-size=16 scaling-list=default
max-merge=5:rd=6 limit-tu=4 no-signhide=1 ref=6:bframes=3:b-pyramid=1:rect=1:amp=1 bframes=0:ref=1
hrd=1:vbv-bufsize=300:vbv-maxrate=300 strong-intra-smoothing=0 early-skip=1:fast-intra=1
"""
MORE = [("yuv420p", f"weightp=0:{params}") for params in _SETTINGS.split()] + [
    (pixels, "weightp=0:bframes=3") for pixels in ("yuv422p", "gray", "yuv420p12le", "yuv422p10le", "yuv444p12le")
]


def write_hevc(path: Path, pix_fmt: str, params: str, frames: np.ndarray | None = None) -> Path:
    options = dict(part.split("=", 1) if "=" in part else (part, "1") for part in params.split(":"))
    preset = options.pop("preset", "medium")
    joined = UNFILTERED + ":".join(f"{name}={value}" for name, value in options.items())
    return write_file(
        path, clip() if frames is None else frames, codec="libx265", pix_fmt=pix_fmt, preset=preset, x265_params=joined
    )


@pytest.mark.parametrize(("pix_fmt", "params"), [*QUICK, *(pytest.param(*one, marks=pytest.mark.slow) for one in MORE)])
def test_prediction_by_the_vectors_and_the_residual_make_the_picture(tmp_path, pix_fmt, params):
    stream = stream_of(write_hevc(tmp_path / "v.mp4", pix_fmt, params))
    wrong, tried = wrong_pixels(stream)
    assert wrong == 0 and tried > 5000
    assert wrong_pixels(stream, off=1)[0] > 0.03 * tried


def test_bits_add_up_and_lie_where_news_is(tmp_path):
    frames = np.full((8, 128, 128, 3), 90, np.uint8)
    rng = np.random.default_rng(1)
    frames[:, 32:64, 64:128] = rng.integers(0, 256, (8, 32, 64, 1))  # new in each frame
    stream = stream_of(write_hevc(tmp_path / "v.mp4", "yuv420p", "bframes=0:wpp=0:qp=30:aq-mode=0:ipratio=1", frames))
    for coded, packet in list(zip(stream.coded, stream.packets, strict=True))[1:]:
        assert 0 < 8 * len(packet) - coded.bits.sum() < 8 * 32  # a length and a header
        inside = coded.bits[4:8, 8:16]
        assert inside.sum() > 0.99 * coded.bits.sum() and inside.min() > 20 * np.delete(coded.bits, np.s_[4:8], axis=0).max()
        assert coded.skipped[:4].all() and not coded.skipped[4:8, 8:].any()
        assert (coded.qp[4:8, 8:] == 30).all()


def test_qp_follows_the_texture(tmp_path):
    frames = clip(4, 128, 128)
    frames[:, :, :64] = (frames[:, :, :64].astype(int) - 128) // 16 + 128
    coded = stream_of(
        write_hevc(tmp_path / "v.mp4", "yuv420p", "aq-mode=1:aq-strength=2:qg-size=16:no-cutree=1", frames)
    ).coded[0]
    assert coded.qp[:, 8:].mean() > coded.qp[:, :8].mean() + 3  # adaptive quantization is coarser where there is texture


def test_damage_is_told(tmp_path):
    path = write_hevc(tmp_path / "v.mp4", "yuv420p", "bframes=2")
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        header = bytes(stream.codec_context.extradata)
        packets = [bytes(packet) for packet in container.demux(stream) if packet.size]
    rng, outcomes = np.random.default_rng(0), {"read": 0, "refused": 0}
    for _ in range(300):
        reader, which = open_pictures(header), int(rng.integers(len(packets)))
        damaged = bytearray(packets[which])
        for at in rng.integers(6, len(damaged), 3):
            damaged[at] = rng.integers(256)
        try:
            for i, packet in enumerate(packets[: which + 1]):
                reader.read(bytes(damaged) if i == which else packet)
            outcomes["read"] += 1
        except (DamagedSlices, NoVectors):
            outcomes["refused"] += 1
    assert outcomes["refused"] > 200, outcomes
    cut = open_pictures(header)
    with pytest.raises(DamagedSlices, match="data of a slice"):
        cut.read(_cut(packets[0]))
    late = open_pictures(header)
    late.read(packets[0])
    with pytest.raises(DamagedSlices, match="missing"):
        late.read(packets[2])


def _cut(packet: bytes) -> bytes:
    """The packet's last NAL unit without its second half."""
    at = last = 0
    while at < len(packet):
        last, at = at, at + 4 + int.from_bytes(packet[at : at + 4], "big")
    piece = packet[last + 4 :]
    piece = piece[: len(piece) // 2]
    return packet[:last] + len(piece).to_bytes(4, "big") + piece
