"""Packets of a video before decoding: the order, size and kind of their pictures."""

from collections.abc import Sequence

import av
import numpy as np
from av.video.stream import VideoStream
from jaxtyping import Float64, Shaped

from ove.video.bitstream.nal import BitReader, packet_nals, unescaped

_WINDOW = 7
_AV1_PADDING = 15
"""obu_type of OBU_PADDING (AV1, 6.2.2)."""
_HEAD_BYTES = 16
"""Of a NAL unit: more than the fields read here can take."""


class PacketTable:
    """Collects the packets of one stream as they are demuxed."""

    def __init__(self) -> None:
        self._places: list[int | None] = []
        self._times_s: list[float | None] = []
        self._sizes: list[int] = []
        self._kinds: list[str] = []

    def add(self, packet: av.Packet) -> None:
        """Adds a packet whose picture is shown."""
        context, base = packet.stream.codec_context, packet.time_base
        kind = picture_kind(context.codec.canonical_name, context.extradata or b"", bytes(packet), packet.is_keyframe)
        self._places.append(packet.pos)
        self._times_s.append(float(packet.pts * base) if packet.pts is not None and base is not None else None)
        self._sizes.append(packet.size)
        self._kinds.append(kind)

    def arrange(self, shown: Sequence[tuple[int | None, float | None]]) -> None:
        """Puts packets without true timestamps into display order: (place in the file, time) of each frame."""
        at = {place: number for number, place in enumerate(self._places)}
        order = [(at[place], time_s) for place, time_s in shown if place in at]
        self._times_s = [time_s for _, time_s in order]
        self._places = [self._places[number] for number, _ in order]
        self._sizes = [self._sizes[number] for number, _ in order]
        self._kinds = [self._kinds[number] for number, _ in order]

    def energies(self, times_s: Sequence[float | None] | None = None) -> Float64[np.ndarray, "n"]:
        """Returns the energy (`news`) of each frame, in display order.

        `times_s` are the frames' times, if not every packet gave a frame; 0 for a frame without a packet. Packets come in
        decoding order, and timestamps give display order. Streams without timestamps are taken to have one order, which is
        wrong by a few frames where there are B-frames.
        """
        known = [time for time in self._times_s if time is not None]
        order = np.argsort(known, kind="stable") if len(known) == len(self._sizes) else np.arange(len(self._sizes))
        energies = news(np.array(self._sizes, np.float64)[order], np.array(self._kinds)[order])
        if times_s is None:
            return energies
        if len(known) < len(self._sizes) or None in times_s:
            return np.pad(energies, (0, max(0, len(times_s) - len(energies))))[: len(times_s)]
        of_time = dict(zip(np.array(known)[order].tolist(), energies.tolist(), strict=True))
        return np.array([of_time.get(time, 0.0) for time in times_s])


def news(sizes: Float64[np.ndarray, "n"], kinds: Shaped[np.ndarray, "n"]) -> Float64[np.ndarray, "n"]:
    """Returns log(size / usual size) of each packet in display order; usual: the median of the 7 nearest of its kind.

    Of its kind, so that an I-frame does not win for being one; of the nearest, because sizes follow the content and grow with
    the distance from an I-frame. Windows of 5 to 31 were compared as in `bench/sampling.py`.
    """
    usual = np.empty_like(sizes)
    for kind in np.unique(kinds):
        where = np.flatnonzero(kinds == kind)
        width = min(_WINDOW, len(where))
        medians = np.median(np.lib.stride_tricks.sliding_window_view(sizes[where], width), axis=1)
        usual[where] = medians[np.clip(np.arange(len(where)) - width // 2, 0, len(medians) - 1)]
    return np.log(sizes / usual)


def without_padding(stream: VideoStream, packet: bytes) -> bytes:
    """Returns a packet without the padding units of AV1, which encoders of constant bit rate fill with zeros.

    Open bitstream units (AV1, 5.3): a header of one or two bytes, their size, their contents. Of other codecs, all of it.
    """
    if stream.codec.canonical_name != "av1":
        return packet
    kept, at = [], 0
    while at < len(packet):
        kind, begin = packet[at] >> 3 & 15, at
        has_size = packet[at] & 2
        at += 2 if packet[at] & 4 else 1
        size, shift = 0, 0
        while has_size and at < len(packet):
            size |= (packet[at] & 127) << shift
            shift, at = shift + 7, at + 1
            if packet[at - 1] < 128 or shift > 56:
                break
        at = at + size if has_size else len(packet)
        if kind != _AV1_PADDING:
            kept.append(packet[begin:at])
    return b"".join(kept)


def picture_kind(codec: str, extradata: bytes, packet: bytes, is_key: bool) -> str:
    """Returns a name for pictures that are coded alike, from the packet's first bytes.

    H.264: slice type and nal_ref_idc; HEVC: nal_unit_type; MPEG-1, MPEG-2 and MPEG-4 part 2: picture type; other codecs: "key"
    or "other".
    """
    if codec in ("mpeg1video", "mpeg2video"):
        at = packet.find(b"\x00\x00\x01\x00")
        if 0 <= at < len(packet) - 5:
            return str(packet[at + 5] >> 3 & 7)
    if codec == "mpeg4":
        at = packet.find(b"\x00\x00\x01\xb6")
        if 0 <= at < len(packet) - 4:
            return str(packet[at + 4] >> 6)
    if codec in ("h264", "hevc"):
        try:
            return _h264_kind(extradata, packet) if codec == "h264" else _hevc_kind(extradata, packet)
        except (ValueError, IndexError, StopIteration):
            pass  # no readable slice: as of other codecs
    return "key" if is_key else "other"


def _h264_kind(extradata: bytes, packet: bytes) -> str:
    length_bytes = (extradata[4] & 3) + 1 if extradata[:1] == b"\x01" else 0
    nal = next(nal for nal in packet_nals(packet, length_bytes) if nal and nal[0] & 31 in (1, 2, 5))
    fields = BitReader(unescaped(nal[1:_HEAD_BYTES]))
    fields.unsigned()  # first_mb_in_slice
    slice_type = "PBI"[min(fields.unsigned() % 5, 2)]
    return slice_type + ("" if nal[0] & 96 else " unused")


def _hevc_kind(extradata: bytes, packet: bytes) -> str:
    length_bytes = (extradata[21] & 3) + 1 if extradata[:1] == b"\x01" else 0
    nal_type = next(nal[0] >> 1 & 63 for nal in packet_nals(packet, length_bytes) if nal and nal[0] >> 1 & 63 < 32)
    return "I" if nal_type >= 16 else "referred" if nal_type % 2 else "unused"
