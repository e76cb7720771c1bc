"""FFmpeg's own reading of H.264 and HEVC headers (its bitstream filter `trace_headers`): the other opinion on ours."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import av
from av import logging as av_logging

from ove.video.bitstream.nal import BitWriter, annex_b


class Field(NamedTuple):
    """A syntax element of a header."""

    at: int
    """Bits before it in the NAL unit, without emulation prevention."""
    name: str
    length: int
    value: int


class Tracer:
    """Reads the NAL units of one stream, one after the other; knows the parameter sets it has read before."""

    def __init__(self, stream: av.VideoStream) -> None:
        self._filter = av.BitStreamFilterContext("trace_headers", stream)

    def read(self, nal: bytes) -> list[Field]:
        """The fields of a NAL unit; an error of FFmpeg's if it is not valid."""
        with av_logging.Capture(True) as lines:
            self._filter.filter(av.Packet(annex_b([nal])))
        text = "".join(line for _, _, line in lines)
        found = re.findall(r"\n(\d+)\s+(\S+)\s+([01]+) = (-?\d+)", text)
        return [Field(int(at), name, len(bits), int(value)) for at, name, bits, value in found]


@contextmanager
def tracing(stream_file: Path) -> Iterator[Tracer]:
    """A tracer for streams of the kind (Annex B) of a small file."""
    level = av_logging.get_level()
    av_logging.set_level(av_logging.INFO)
    try:
        with av.open(str(stream_file)) as container:
            yield Tracer(container.streams.video[0])
    finally:
        av_logging.set_level(av_logging.PANIC if level is None else level)


class HeaderWriter(BitWriter):
    """A `BitWriter` that knows se(v) and flags."""

    def signed(self, value: int) -> None:
        """Appends a signed Exp-Golomb number se(v)."""
        self.unsigned(2 * value - 1 if value > 0 else -2 * value)

    def flag(self, value: object) -> bool:
        """Appends one bit, and returns it."""
        self.raw("1" if value else "0")
        return bool(value)
