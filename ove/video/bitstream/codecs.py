"""Where a file's signals come from: the codecs whose bitstream tells them, and what is said where it does not."""

import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path

from ove.errors import BadClip
from ove.video.bitstream.gray import CannotIsolate, GrayDecoder
from ove.video.bitstream.h264 import GrayH264
from ove.video.bitstream.hevc import GrayHevc
from ove.video.bitstream.mpeg4 import GrayMpeg4
from ove.video.bitstream.mpeg12 import GrayMpeg12
from ove.video.demux import Survey

GRAY_DECODERS: dict[str, Callable[[bytes], GrayDecoder]] = {
    "h264": GrayH264,
    "mpeg1video": partial(GrayMpeg12, codec="mpeg1video"),
    "mpeg2video": partial(GrayMpeg12, codec="mpeg2video"),
    "mpeg4": GrayMpeg4,
    "hevc": GrayHevc,
}
"""From FFmpeg's name of the codec and a stream's header to a decoder against a gray reference."""
_WITH_VECTORS = frozenset(["h264", "mpeg1video", "mpeg2video", "mpeg4"])
"""Those of them whose motion vectors FFmpeg exports."""
_VECTORS_ALONE = frozenset(["h263", "flv1", "msmpeg4v2", "msmpeg4v3", "wmv1", "wmv2", "snow"])
"""Codecs whose vectors FFmpeg exports, too, but for whose residual there is no gray reference."""
_log = logging.getLogger(__name__)


def bitstream_reader(path: Path, found: Survey, source: str) -> Callable[[], GrayDecoder] | None:
    """What opens a decoder against a gray reference for a file; None where its frames are to be encoded anew.

    `source` is the setting `video.source`: auto, bitstream or transcode. BadClip if it asks for the bitstream of a codec that
    tells no vectors.
    """
    opener = GRAY_DECODERS.get(found.codec)
    if source == "bitstream" and found.codec not in _WITH_VECTORS:
        why = (
            "pictures cannot be decoded one by one"
            if found.codec in _VECTORS_ALONE
            else "motion vectors are not told by FFmpeg's decoder"
        )
        raise BadClip(
            f"{path}: video.source is bitstream, but its codec is {found.codec}, whose {why}; set it to auto or transcode. "
            f"(Bitstreams that tell both motion and residual: {', '.join(sorted(_WITH_VECTORS))}.)"
        )
    return None if opener is None or source == "transcode" else partial(opener, found.extradata)


def told_or_refused(path: Path, found: Survey, source: str, reason: CannotIsolate) -> None:
    """Logs why a file's signals come from a transcode after all; BadClip if the bitstream was asked for."""
    why = f"{path}: its {found.codec} bitstream does not tell motion and residual exactly: {reason}"
    if source == "bitstream":
        raise BadClip(f"{why}; set video.source to auto or transcode.") from reason
    _log.warning("%s; the sampled frames are encoded anew.", why)
