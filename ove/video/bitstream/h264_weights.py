"""H.264 without its explicit prediction weights, which would turn a uniform gray reference into another gray.

The flags in a picture parameter set are cleared and the tables cut out of the slice headers. Nothing else depends on them:
macroblocks are coded alike with and without weights (ITU-T H.264 (08/2021), 7.3.2.2, 7.3.3, 7.3.5).
"""

from ove.video.bitstream.h264_syntax import PictureHeader, SliceHeader
from ove.video.bitstream.nal import BitWriter, cut_bits, escaped, unescaped


def pps_without_weights(nal: bytes, pps: PictureHeader) -> bytes:
    """The parameter set's NAL unit with weighted_pred_flag and weighted_bipred_idc 0."""
    payload = unescaped(nal)
    shift = 8 * len(payload) - pps.weights_at - 3
    cleared = int.from_bytes(payload, "big") & ~(0b111 << shift)
    return escaped(cleared.to_bytes(len(payload), "big"))


def slice_without_weights(payload: bytes, header: SliceHeader, cabac: bool) -> bytes:
    """A slice's NAL unit without its table of weights, from the unit without emulation prevention.

    With CABAC the data after the header begins at a whole byte: the shorter header is filled with ones, the data stay (7.3.4).
    With CAVLC all that follows moves forward.
    """
    start, end = header.weights
    if not cabac:
        return escaped(cut_bits(payload, start, end).rstrip(b"\x00"))
    data_byte = -(-header.end // 8)
    before = int.from_bytes(payload[:data_byte], "big")
    total = 8 * data_byte
    writer = BitWriter()
    writer.number(before >> (total - start), start)
    after = header.end - end
    writer.number((before >> (total - header.end)) & ((1 << after) - 1), after)
    return escaped(writer.aligned(stop="", fill="1") + payload[data_byte:])
