"""Streams of video that bench/fuzz.py damages, and the readers of their headers and pictures."""

import io
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from fuzz_mutations import damaged
from fuzz_samples import picture

from ove.video.bitstream.codecs import GRAY_DECODERS
from ove.video.bitstream.hevc_slices.load import open_pictures


def streams(_: Path) -> dict[str, tuple[bytes, list[bytes]]]:
    """By codec: the stream's header, and its packets."""
    found = {}
    for name, encoder, options in (
        ("h264", "libx264", {"x264-params": "bframes=1:weightp=2:keyint=8"}),
        ("hevc", "libx265", {"x265-params": "weightp=1:bframes=1:keyint=8:log-level=none:pools=1"}),
        ("mpeg2video", "mpeg2video", {}),
        ("mpeg4", "mpeg4", {}),
    ):
        with av.open(file := io.BytesIO(), "w", format="mp4" if name != "mpeg2video" else "mpegts") as container:
            stream = container.add_stream(encoder, rate=Fraction(25), options=options)
            stream.width = stream.height = 64
            stream.pix_fmt = "yuv420p"
            for n in range(8):
                pixels = np.clip(np.roll(picture(1, 64), 3 * n, 1).astype(int) - 12 * n, 0, 255).astype(np.uint8)
                container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, "rgb24")))
            container.mux(stream.encode(None))
        file.seek(0)
        with av.open(file) as container:
            packets = [bytes(packet) for packet in container.demux(video=0) if packet.size]
            found[name] = container.streams.video[0].codec_context.extradata or b"", packets
    return found


def hevc_stream(folder: Path) -> tuple[bytes, list[bytes]]:
    """The HEVC stream of `streams`, with its reader compiled."""
    open_pictures(b"")
    return streams(folder)["hevc"]


def read_parameter_sets(samples: dict[str, tuple[bytes, list[bytes]]], rng: np.random.Generator, _: Path) -> None:
    """Opens a gray decoder with a damaged header, and reads damaged parameter sets."""
    codec = sorted(samples)[int(rng.integers(len(samples)))]
    headers = [header or packets[0] for header, packets in samples.values()]
    header = samples[codec][0] or samples[codec][1][0]
    gray = GRAY_DECODERS[codec](damaged(header, rng, headers))
    gray.observe(damaged(samples[codec][1][0], rng, headers), damaged(header, rng, headers) if rng.random() < 0.3 else b"")


def read_slices(samples: dict[str, tuple[bytes, list[bytes]]], rng: np.random.Generator, _: Path) -> None:
    """Decodes damaged pictures against gray."""
    codec = sorted(samples)[int(rng.integers(len(samples)))]
    header, packets = samples[codec]
    gray = GRAY_DECODERS[codec](header)
    gray.observe(packets[0])
    for packet in packets[1:3]:
        changed = packet[:4] + damaged(packet[4:], rng, packets) if rng.random() < 0.5 else damaged(packet, rng, packets)
        gray.observe(changed)
        luma, bits = gray.luma(changed)
        assert luma.ndim == 2 and bits >= 8
        gray.start_px(*luma.shape)


def read_slice_data(sample: tuple[bytes, list[bytes]], rng: np.random.Generator, _: Path) -> None:
    """Reads the slice data of an HEVC stream up to a damaged packet."""
    (header, packets), last = sample, int(rng.integers(len(sample[1])))
    reader = open_pictures(damaged(header, rng, packets) if rng.random() < 0.3 else header)
    for packet in packets[:last]:
        reader.read(packet)
    found = reader.read(packets[last][:4] + damaged(packets[last][4:], rng, packets))
    assert found is None or np.isfinite(found.bits).all()
