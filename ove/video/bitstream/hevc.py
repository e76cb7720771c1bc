"""Single HEVC pictures decoded alone (spec §2, "Signals without a patched FFmpeg").

FFmpeg fills in missing reference pictures with uniform mid-gray, so a picture needs nothing but its parameter sets. Clause
numbers are those of ITU-T H.265 (08/2021).
"""

import numpy as np
from jaxtyping import UInt8, UInt16

from ove.video.bitstream import hevc_syntax as hevc
from ove.video.bitstream.gray import NoBitstreamSignals, decode_one, luma_of, open_decoder
from ove.video.bitstream.gray_nal import GrayNal, ParameterSets
from ove.video.bitstream.hevc_pps import Pps, read_pps
from ove.video.bitstream.hevc_slice_header import FIRST_IRAP, read_slice, read_slice_pps_id
from ove.video.bitstream.nal import annex_b, clear_bits, escaped, splice_bits, unescaped

_LAST_SLICE, _RASL, _CRA = 31, (8, 9), 21
"""nal_unit_type (table 7-1): the largest of a slice; RASL pictures, which decoders skip where decoding began at the CRA picture
before them; that CRA picture."""
_READERS = {
    hevc.NAL_VPS: (hevc.read_vps_id, ""),
    hevc.NAL_SPS: (hevc.read_sps, "sps_id"),
    hevc.NAL_PPS: (read_pps, "pps_id"),
}


class GrayHevc(GrayNal):
    """Decodes single packets of an HEVC stream; FFmpeg exports neither vectors nor which of their pixels are inter-coded."""

    has_vectors = False
    split_header = staticmethod(hevc.split_hvcc)

    def __init__(self, extradata: bytes) -> None:
        """`extradata`: the stream header, `hvcC` or Annex B. Raises NoBitstreamSignals if it cannot be read."""
        super().__init__(extradata, ParameterSets(hevc.nal_unit_type, _READERS))

    def _use(self, sets: ParameterSets) -> None:
        """Prepares a decoder that knows these sets."""
        self._sets, self._sps, self._pps = sets, sets.of(hevc.NAL_SPS), sets.of(hevc.NAL_PPS)
        if not self._sps or not self._pps:
            return  # the first packet may bring them
        self._shown_sps = next(iter(self._sps.values()))[1]
        if any(pps.other_extensions for _, pps in self._pps.values()):
            raise NoBitstreamSignals("it uses extensions for layers, depth or screen content")
        header = [nal for nal, _ in [*sets.of(hevc.NAL_VPS).values(), *self._sps.values()]]
        header += [clear_bits(nal, pps.weighted_pred_bit, 2) for nal, pps in self._pps.values()]
        self._context = open_decoder("hevc", annex_b(header))

    def observe(self, packet: bytes, header: bytes = b"") -> None:
        """Updates the parameter sets; NoBitstreamSignals where it is uncertain which of them a picture means."""
        found, first, nal = self._header(header) if header else [], -1, b""
        for nal in self._nals(packet):
            if 0 <= (first := hevc.nal_unit_type(nal)) <= _LAST_SLICE:
                break
            found.append(nal)
        sets = self._sets.updated(found)
        if sets is not self._sets:
            if self._sets.replaced_in(sets) and not FIRST_IRAP <= first < _CRA:
                # Pictures shown earlier may be decoded later: only at an IRAP picture other than a CRA is their set certain.
                raise NoBitstreamSignals("its parameter sets change between two pictures at which decoding may begin")
            self._use(sets)
        if len(self._sps) > 1 and 0 <= first <= _LAST_SLICE:
            try:
                self._shown_sps = self._sps[self._pps[read_slice_pps_id(nal)][1].sps_id][1]
            except (KeyError, ValueError) as error:
                raise NoBitstreamSignals("a picture of it refers to an unknown parameter set") from error

    def start_px(self, height: int, width: int) -> tuple[int, int]:
        """Returns where a shown picture of this size begins in the coded one; FFmpeg may crop less at the left than the SPS."""
        below, right = self._shown_sps.crop_end_px
        start = self._shown_sps.height - below - height, self._shown_sps.width - right - width
        if min(start) < 0:
            raise NoBitstreamSignals(f"its pictures of {width}×{height} pixels are larger than its header says")
        return start

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """Returns the packet's luma as decoded from gray references, and its bit depth; valid on inter-coded pixels only."""
        slices = []
        try:
            for nal in self._nals(packet):
                kind = hevc.nal_unit_type(nal)
                if 0 <= kind <= _LAST_SLICE:
                    _, pps = self._pps[read_slice_pps_id(nal)]
                    if pps.weighted_pred or pps.weighted_bipred:
                        nal = slice_without_weights(nal, self._sps[pps.sps_id][1], pps)
                    if kind in _RASL:  # becomes a trailing picture, which is decoded
                        nal = bytes([nal[0] - (_RASL[0] << 1)]) + nal[1:]
                    slices.append(nal)
        except (KeyError, ValueError, IndexError) as error:
            raise NoBitstreamSignals("a picture of it refers to an unknown parameter set, or is damaged") from error
        return luma_of(decode_one(self._context, [annex_b(slices)]))


def slice_without_weights(nal: bytes, sps: hevc.Sps, pps: Pps) -> bytes:
    """Returns a slice's NAL unit without pred_weight_table; ValueError if its header is invalid."""
    payload = unescaped(nal)
    header = read_slice(nal, payload, sps, pps)
    if header.weights is None:
        return nal
    # byte_alignment (7.3.2.12) is a one and zeros: where the header ended a byte, it filled one of its own.
    return escaped(splice_bits(payload, header.weights, header.end, stop="1", fill="0") + payload[header.end // 8 + 1 :])
