"""Single H.264 pictures decoded after a synthetic gray one (spec §2, "Signals without a patched FFmpeg").

Clause numbers are those of ITU-T H.264 (08/2021).
"""

import numpy as np
from jaxtyping import UInt8, UInt16

from ove.video.bitstream import h264_syntax as h264
from ove.video.bitstream.gray import NoBitstreamSignals, check_picture, decode_one, luma_of, open_decoder
from ove.video.bitstream.gray_nal import GrayNal, ParameterSets
from ove.video.bitstream.nal import BitWriter, annex_b, clear_bits, cut_bits, escaped, splice_bits, unescaped

_SLICES = (h264.NAL_SLICE, h264.NAL_IDR)
_DATA_PARTITIONS = (2, 3, 4)
_X264_MARK = b"x264 - core"
_READERS = {h264.NAL_SPS: (h264.read_sps, "sps_id"), h264.NAL_PPS: (h264.read_pps, "pps_id")}


class GrayH264(GrayNal):
    """Decodes single packets of an H.264 stream against a gray reference."""

    split_header = staticmethod(h264.split_avcc)

    def __init__(self, extradata: bytes) -> None:
        """`extradata`: the stream header, `avcC` or Annex B. Raises NoBitstreamSignals if it cannot be read."""
        self._sei: list[bytes] = []
        super().__init__(extradata, ParameterSets(_nal_unit_type, _READERS))

    def _use(self, sets: ParameterSets) -> None:
        """Prepares a decoder that knows these sets, and a gray picture for each SPS."""
        self._sets, self._sps, self._pps = sets, sets.of(h264.NAL_SPS), sets.of(h264.NAL_PPS)
        if not self._sps or not self._pps:
            return  # the first packet may bring them
        if any(pps.num_slice_groups > 1 for _, pps in self._pps.values()):
            raise NoBitstreamSignals("it uses slice groups")
        self._shown_sps = next(iter(self._sps.values()))[1]
        self.mbaff = any(sps.mbaff for _, sps in self._sps.values())
        free = [i for i in range(255, -1, -1) if i not in self._pps]
        if len(free) < len(self._sps):
            raise NoBitstreamSignals("its picture parameter sets leave no number for that of a gray picture")
        self._gray = {i: gray_access_unit(sps, own) for own, (i, (_, sps)) in zip(free, self._sps.items(), strict=False)}
        header = [nal for nal, _ in self._sps.values()]
        header += [clear_bits(nal, pps.weighted_pred_bit, 3) if _weighted(pps) else nal for nal, pps in self._pps.values()]
        self._context = open_decoder("h264", annex_b(header))

    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Updates the parameter sets; NoBitstreamSignals where it is uncertain which of them a picture refers to."""
        found, piece = self._header(header) if header else [], b""
        for nal in self._nals(packet):
            kind = _nal_unit_type(nal)
            if kind == h264.NAL_SEI and _X264_MARK in nal and not self._sei:
                self._sei = [nal]  # FFmpeg works around errors of old x264 versions by it
            elif kind in _SLICES:
                piece = nal
                break
            else:
                found.append(nal)
        sets = self._sets.updated(found)
        if sets is not self._sets:
            if self._sets.replaced_in(sets) and _nal_unit_type(piece) != h264.NAL_IDR:
                # Pictures shown earlier may be decoded later: only at an IDR picture is it sure which sets they mean.
                raise NoBitstreamSignals("its parameter sets change between two IDR pictures")
            self._use(sets)
        if len(self._sps) > 1 and piece:
            self._shown_sps = self._headers(piece)[0]

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """Returns the packet's luma as decoded after a gray picture, and its bit depth; valid on inter-coded pixels only."""
        slices = []
        for nal in self._nals(packet):
            kind = _nal_unit_type(nal)
            if kind in _DATA_PARTITIONS:
                raise NoBitstreamSignals("it uses data partitions")
            if kind in _SLICES:
                sps, pps = self._headers(nal)
                slices.append(self._plain_slice(nal, sps, pps))
        if not slices:
            raise NoBitstreamSignals("a packet of it holds no picture")
        return luma_of(decode_one(self._context, [annex_b(self._sei + self._gray[sps.sps_id]), annex_b(slices)]))

    def _headers(self, nal: bytes) -> tuple[h264.Sps, h264.Pps]:
        """Returns the parameter sets that a slice refers to."""
        try:
            pps = self._pps[h264.read_slice_pps_id(nal)][1]
            return self._sps[pps.sps_id][1], pps
        except (KeyError, ValueError) as error:
            raise NoBitstreamSignals("a picture of it refers to an unknown parameter set") from error

    def _plain_slice(self, nal: bytes, sps: h264.Sps, pps: h264.Pps) -> bytes:
        """Returns the slice's NAL unit without explicit weights."""
        if sps.frame_mbs_only and not _weighted(pps):
            return nal
        payload = unescaped(nal)
        try:
            header = h264.read_slice(payload, sps, pps)
        except (ValueError, IndexError) as error:
            raise NoBitstreamSignals(f"a picture of it cannot be read ({error})") from error
        if header.field:
            raise NoBitstreamSignals("it holds pictures of single fields")
        return slice_without_weights(payload, header, pps.cabac) if header.end else nal

    def start_px(self, height: int, width: int) -> tuple[int, int]:
        """Returns where a shown picture of this size begins in the coded one; FFmpeg may crop less at the left than the SPS."""
        sps = self._shown_sps
        down = 16 * sps.height_mbs - sps.crop_bottom_px - height
        right = 16 * sps.width_mbs - sps.crop_right_px - width
        if min(down, right) < 0:
            raise NoBitstreamSignals(f"its pictures of {width}×{height} pixels are larger than its header says")
        if sps.mbaff and down % 32 >= 16:
            raise NoBitstreamSignals("its pictures are coded in pairs of macroblocks (MBAFF), and the crop cuts a pair in two")
        return down, right


def _nal_unit_type(nal: bytes) -> int:
    """nal_unit_type (7.3.1); 0 of an empty unit."""
    return nal[0] & 31 if nal else 0


def _weighted(pps: h264.Pps) -> bool:
    """Returns whether slices carry explicit weights; implicit ones (weighted_bipred_idc 2) keep a uniform gray."""
    return pps.weighted_pred or pps.weighted_bipred_idc == 1


def slice_without_weights(payload: bytes, header: h264.SliceHeader, cabac: bool) -> bytes:
    """Returns a slice's NAL unit without pred_weight_table, from its payload; macroblocks are coded alike with and without.

    With CABAC slice data begin at a whole byte, and the shorter header is padded with ones (7.3.4); with CAVLC all that
    follows moves forward.
    """
    if not cabac:
        return escaped(cut_bits(payload, *header.weights).rstrip(b"\x00"))
    data = payload[-(-header.end // 8) :]
    return escaped(splice_bits(payload, header.weights, header.end, stop="", fill="1") + data)


def gray_access_unit(sps: h264.Sps, pps_id: int) -> list[bytes]:
    """Returns the NAL units (PPS, IDR slice) of a uniform mid-gray frame for streams with this SPS.

    Every macroblock is Intra 16×16 with DC prediction and no coefficients: without neighbours, or with gray ones, DC predicts
    2^(bits−1). `pps_id` must be one that the stream does not use. (Syntax 7.3.2.2, 7.3.3, 7.3.4, 7.3.5, 9.2.1.)
    """
    check_picture(16 * sps.width_mbs, 16 * sps.height_mbs)
    pps = BitWriter(0x68)
    pps.unsigned(pps_id)
    pps.unsigned(sps.sps_id)
    pps.raw("00", "1", "1", "1")  # CAVLC, no field order; one slice group; one reference in either list
    pps.raw("000", "1", "1", "1", "100")  # no weights; QP offsets 0; deblocking control present; nothing else

    piece = BitWriter(0x65)
    for value in (0, 7, pps_id):  # first macroblock, all slices are I, parameter set
        piece.unsigned(value)
    piece.raw("00" if sps.separate_colour_plane else "", "0" * sps.frame_num_bits)
    piece.raw("" if sps.frame_mbs_only else "0")  # a frame, not a field
    piece.unsigned(0)  # idr_pic_id
    piece.raw("0" * sps.poc_lsb_bits)
    piece.raw("1" if sps.poc_type == 1 and not sps.delta_pic_order_always_zero else "")
    piece.raw("00", "1", "010")  # not long-term; QP delta 0; deblocking off
    has_chroma_mode = sps.chroma_format_idc in (1, 2)
    luma_like_planes = 3 if sps.chroma_format_idc == 3 and not sps.separate_colour_plane else 1
    macroblock = "00100" + ("1" if has_chroma_mode else "") + "1" + "1" * luma_like_planes
    n_macroblocks = sps.width_mbs * sps.height_mbs
    piece.raw(("0" + 2 * macroblock) * (n_macroblocks // 2) if sps.mbaff else macroblock * n_macroblocks)
    return [pps.nal(), piece.nal()]
