"""Which codecs give their signals from the bitstream, and what is reported where one does not."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import NamedTuple

from ove.errors import BadClip
from ove.video.bitstream.coded import NoVectors, SliceReader
from ove.video.bitstream.gray import GrayDecoder, NoBitstreamSignals
from ove.video.bitstream.h264 import GrayH264
from ove.video.bitstream.hevc import GrayHevc
from ove.video.bitstream.hevc_slices.load import open_pictures
from ove.video.bitstream.mpeg4 import GrayMpeg4
from ove.video.bitstream.mpeg12 import GrayMpeg12
from ove.video.demux import Survey

GRAY_DECODERS: dict[str, Callable[[bytes], GrayDecoder]] = {
    "h264": GrayH264,
    "mpeg1video": partial(GrayMpeg12, "mpeg1video"),
    "mpeg2video": partial(GrayMpeg12, "mpeg2video"),
    "mpeg4": partial(GrayMpeg4, "mpeg4"),
    "hevc": GrayHevc,
}
"""FFmpeg's name of a codec → what opens a decoder against a gray reference, given the stream's header."""
SLICE_READERS: dict[str, Callable[[bytes], SliceReader]] = {"hevc": open_pictures}
"""Those of them whose vectors FFmpeg does not export → what reads them from the slice data, given the stream's header."""
_VECTORS_ALONE = frozenset(["h263", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "snow"])
"""Codecs whose vectors FFmpeg exports but whose residual has no gray reference."""
_log = logging.getLogger(__name__)


class BitstreamReader(NamedTuple):
    """What gives the signals of a file from its bitstream."""

    gray: Callable[[], GrayDecoder]
    """Opens a gray decoder."""
    slices: Callable[[], SliceReader] | None
    """Opens a reader of slice data; None: vectors are those that the decoder exports, or of a transcode."""


def bitstream_readers(path: Path, found: Survey, source: str) -> list[BitstreamReader]:
    """Returns what may give the signals of a file, to be tried in order; none where its frames are to be transcoded.

    `source` is the setting `video.source`: auto, bitstream or transcode. BadClip if it is bitstream and there are no vectors of
    the codec, or pictures cannot be decoded alone.
    """
    opener = GRAY_DECODERS.get(found.codec)
    if source == "bitstream" and opener is None:
        lacks = "residual is not available" if found.codec in _VECTORS_ALONE else "motion vectors FFmpeg does not export"
        raise BadClip(
            f"{path}: video.source is bitstream, but its codec is {found.codec}, whose {lacks}; set it to auto or transcode. "
            f"(Codecs with both: {', '.join(sorted(GRAY_DECODERS))}.)"
        )
    if opener is None or source == "transcode":
        return []
    gray, slices = partial(opener, found.extradata), SLICE_READERS.get(found.codec)
    readers = [BitstreamReader(gray, partial(slices, found.extradata))] if slices else []
    return readers if source == "bitstream" and readers else [*readers, BitstreamReader(gray, None)]


def fall_back_or_raise(path: Path, found: Survey, source: str, reason: NoBitstreamSignals) -> None:
    """Logs why a file is transcoded after all; BadClip if the bitstream was asked for."""
    why = f"{path}: its {found.codec} bitstream gives no exact motion and residual: {reason}"
    if source == "bitstream":
        raise BadClip(f"{why}; set video.source to auto or transcode.") from reason
    what = "its vectors are those of a transcode" if isinstance(reason, NoVectors) else "the sampled frames are transcoded"
    _log.warning("%s; %s.", why, what)
