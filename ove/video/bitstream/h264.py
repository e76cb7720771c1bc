"""Single H.264 pictures decoded after a synthetic gray one (spec §2, "Signals without a patched FFmpeg").

Clause numbers are those of ITU-T H.264 (08/2021).
"""

import numpy as np
from jaxtyping import UInt8, UInt16

from ove.video.bitstream import h264_syntax as h264
from ove.video.bitstream.gray import CannotIsolate, GrayDecoder, decode_one, luma_of, open_decoder
from ove.video.bitstream.h264_weights import pps_without_weights, slice_without_weights
from ove.video.bitstream.nal import BitWriter, annex_b, packet_nals, unescaped
from ove.video.bitstream.parameter_sets import ParameterSets

_SLICES = (h264.NAL_SLICE, h264.NAL_IDR)
_DATA_PARTITIONS = (2, 3, 4)
_X264_MARK = b"x264 - core"


_READERS = {h264.NAL_SPS: (h264.read_sps, "sps_id"), h264.NAL_PPS: (h264.read_pps, "pps_id")}


class GrayH264(GrayDecoder):
    """Decodes single packets of an H.264 stream against a gray reference."""

    def __init__(self, extradata: bytes) -> None:
        """Prepares the gray picture from the stream's header (`avcC` or Annex B), or raises CannotIsolate."""
        self._notes: list[bytes] = []
        self._use(ParameterSets(_kind, _READERS).updated(self._header(extradata)))

    def _header(self, extradata: bytes) -> list[bytes]:
        """The NAL units of a stream's header, which also says how packets are split."""
        self._length_bytes = 0
        try:
            if extradata[:1] == b"\x01":
                self._length_bytes, nals = h264.split_avcc(extradata)
                return nals
            return list(packet_nals(extradata, 0))
        except (ValueError, IndexError) as error:
            raise CannotIsolate(f"its parameter sets cannot be read ({error})") from error

    def _use(self, sets: ParameterSets) -> None:
        """Makes ready a decoder that knows these sets and a gray picture for each sequence."""
        self._sets, self._sps, self._pps = sets, sets.of(h264.NAL_SPS), sets.of(h264.NAL_PPS)
        if not self._sps or not self._pps:
            return  # the first packet may bring them
        if any(picture.slice_groups > 1 for _, picture in self._pps.values()):
            raise CannotIsolate("it uses slice groups")
        self._sequence = next(iter(self._sps.values()))[1]
        self.pairs = any(sequence.pairs for _, sequence in self._sps.values())
        free = iter([i for i in range(255, -1, -1) if i not in self._pps])
        self._gray = {i: gray_access_unit(sequence, next(free)) for i, (_, sequence) in self._sps.items()}
        header = [nal for nal, _ in self._sps.values()]
        header += [pps_without_weights(nal, pps) if _weighted(pps) else nal for nal, pps in self._pps.values()]
        self._context = open_decoder("h264", annex_b(header))

    def follow(self, packet: bytes, header: bytes = b"") -> None:
        """Takes over parameter sets that the packet brings; CannotIsolate where the order of decoding would matter."""
        found, piece = self._header(header) if header else [], b""
        for nal in self._nals(packet):
            kind = _kind(nal)
            if kind == h264.NAL_SEI and _X264_MARK in nal and not self._notes:
                self._notes = [nal]  # FFmpeg works around errors of old x264 versions by it
            elif kind in _SLICES:
                piece = nal
                break
            else:
                found.append(nal)
        sets = self._sets.updated(found)
        if sets is not self._sets:
            if self._sets.replaced_in(sets) and _kind(piece) != h264.NAL_IDR:
                # Pictures shown earlier may be decoded later: only at an IDR picture is it sure which sets they mean.
                raise CannotIsolate("its parameter sets change between two IDR pictures")
            self._use(sets)
        if len(self._sps) > 1 and piece:
            self._sequence = self._headers(piece)[0]

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """The packet's luma as decoded after a gray picture, and its bit depth; valid on inter-coded pixels only."""
        slices = []
        for nal in self._nals(packet):
            kind = _kind(nal)
            if kind in _DATA_PARTITIONS:
                raise CannotIsolate("it uses data partitions")
            if kind in _SLICES:
                sps, pps = self._headers(nal)
                slices.append(self._plain_slice(nal, sps, pps))
        if not slices:
            raise CannotIsolate("a packet of it holds no picture")
        return luma_of(decode_one(self._context, [annex_b(self._notes + self._gray[sps.sps_id]), annex_b(slices)]))

    def _headers(self, nal: bytes) -> tuple[h264.SequenceHeader, h264.PictureHeader]:
        """The parameter sets that a slice refers to."""
        try:
            pps = self._pps[h264.read_slice_pps_id(nal)][1]
            return self._sps[pps.sps_id][1], pps
        except (KeyError, ValueError) as error:
            raise CannotIsolate("a picture of it names no known parameter set") from error

    def _plain_slice(self, nal: bytes, sps: h264.SequenceHeader, pps: h264.PictureHeader) -> bytes:
        """The slice's NAL unit without explicit weights."""
        if sps.frames_only and not _weighted(pps):
            return nal
        payload = unescaped(nal)
        try:
            header = h264.read_slice(payload, sps, pps)
        except (ValueError, IndexError) as error:
            raise CannotIsolate(f"a picture of it cannot be read ({error})") from error
        if header.field:
            raise CannotIsolate("it holds pictures of single fields")
        return slice_without_weights(payload, header, pps.cabac) if header.end else nal

    def start_px(self, height: int, width: int) -> tuple[int, int]:
        """Where a shown picture of this size begins in the coded one: FFmpeg may crop less at the left than the stream asks."""
        sps = self._sequence
        down = 16 * sps.rows - sps.crop_bottom_px - height
        right = 16 * sps.columns - sps.crop_right_px - width
        if min(down, right) < 0:
            raise CannotIsolate(f"its pictures of {width}×{height} pixels are larger than its header says")
        if sps.pairs and down % 32 >= 16:
            raise CannotIsolate("its pictures are coded in pairs of macroblocks, and the crop cuts a pair in two")
        return down, right

    def _nals(self, packet: bytes) -> list[bytes]:
        try:
            return list(packet_nals(packet, self._length_bytes))
        except ValueError as error:
            raise CannotIsolate(str(error)) from error


def _kind(nal: bytes) -> int:
    """nal_unit_type (7.3.1); 0 of an empty unit."""
    return nal[0] & 31 if nal else 0


def _weighted(pps: h264.PictureHeader) -> bool:
    return pps.weighted_p or pps.weighted_b == 1


def gray_access_unit(sps: h264.SequenceHeader, pps_id: int) -> list[bytes]:
    """The NAL units (PPS, IDR slice) of a uniform mid-gray frame for streams with these sequence parameters.

    Every macroblock is Intra 16×16 with DC prediction and no coefficients: without neighbours, or with gray ones, DC predicts
    2^(bits−1). `pps_id` must be one that the stream does not use. (Syntax 7.3.2.2, 7.3.3, 7.3.4, 7.3.5, 9.2.1.)
    """
    pps = BitWriter(0x68)
    pps.unsigned(pps_id)
    pps.unsigned(sps.sps_id)
    pps.raw("00", "1", "1", "1")  # CAVLC, no field order; one slice group; one reference in either list
    pps.raw("000", "1", "1", "1", "100")  # no weights; QP offsets 0; deblocking control present; nothing else

    piece = BitWriter(0x65)
    for value in (0, 7, pps_id):  # first macroblock, all slices are I, parameter set
        piece.unsigned(value)
    piece.raw("00" if sps.separate_planes else "", "0" * sps.frame_num_bits)
    piece.raw("" if sps.frames_only else "0")  # a frame, not a field
    piece.unsigned(0)  # idr_pic_id
    piece.raw("0" * sps.order_count_bits)
    piece.raw("1" if sps.order_count_type == 1 and not sps.order_delta_always_zero else "")
    piece.raw("00", "1", "010")  # not long-term; QP delta 0; deblocking off
    has_chroma_mode = sps.chroma_format in (1, 2)
    luma_like_planes = 3 if sps.chroma_format == 3 and not sps.separate_planes else 1
    macroblock = "00100" + ("1" if has_chroma_mode else "") + "1" + "1" * luma_like_planes
    n_macroblocks = sps.columns * sps.rows
    piece.raw(("0" + 2 * macroblock) * (n_macroblocks // 2) if sps.pairs else macroblock * n_macroblocks)
    return [pps.nal(), piece.nal()]
