"""Single HEVC pictures decoded alone (spec §2, "Signals without a patched FFmpeg").

FFmpeg makes up references that are missing, in uniform mid-gray: a picture needs nothing but its parameter sets. Clause
numbers are those of ITU-T H.265 (08/2021).
"""

import numpy as np
from jaxtyping import UInt8, UInt16

from ove.video.bitstream import hevc_syntax as hevc
from ove.video.bitstream.gray import CannotIsolate, GrayDecoder, decode_one, luma_of, open_decoder
from ove.video.bitstream.hevc_weights import pps_without_weights, slice_without_weights
from ove.video.bitstream.nal import annex_b, packet_nals
from ove.video.bitstream.parameter_sets import ParameterSets

_LAST_SLICE, _SKIPPED_LEADING, _CRA = 31, (8, 9), 21
"""nal_unit_type (table 7-1): the largest of slices; of pictures left out where decoding began after their references; of those
where it may begin, with such pictures following."""
_READERS = {
    hevc.NAL_VPS: (hevc.read_vps_id, ""),
    hevc.NAL_SPS: (hevc.read_sps, "sps_id"),
    hevc.NAL_PPS: (hevc.read_pps, "pps_id"),
}


class GrayHevc(GrayDecoder):
    """Decodes single packets of an HEVC stream; which of their pixels are inter-coded FFmpeg does not tell."""

    has_vectors = False

    def __init__(self, extradata: bytes) -> None:
        """Takes the parameter sets from the stream's header (`hvcC` or Annex B), or raises CannotIsolate."""
        self._use(ParameterSets(hevc.kind, _READERS).updated(self._header(extradata)))

    def _header(self, extradata: bytes) -> list[bytes]:
        """The NAL units of a stream's header, which also says how packets are split."""
        self._length_bytes = 0
        try:
            if extradata[:1] == b"\x01":
                self._length_bytes, nals = hevc.split_hvcc(extradata)
                return nals
            return list(packet_nals(extradata, 0))
        except (ValueError, IndexError) as error:
            raise CannotIsolate(f"its parameter sets cannot be read ({error})") from error

    def _use(self, sets: ParameterSets) -> None:
        """Makes ready a decoder that knows these sets."""
        self._sets, self._sps, self._pps = sets, sets.of(hevc.NAL_SPS), sets.of(hevc.NAL_PPS)
        if not self._sps or not self._pps:
            return  # the first packet may bring them
        if any(pps.other_extensions for _, pps in self._pps.values()):
            raise CannotIsolate("it uses extensions for layers, depth or screen content")
        header = [nal for nal, _ in [*sets.of(hevc.NAL_VPS).values(), *self._sps.values()]]
        header += [pps_without_weights(nal, pps) for nal, pps in self._pps.values()]
        self._context = open_decoder("hevc", annex_b(header))

    def follow(self, packet: bytes, header: bytes = b"") -> None:
        """Takes over parameter sets that the packet brings; CannotIsolate where the order of decoding would matter."""
        found, first = self._header(header) if header else [], -1
        for nal in self._nals(packet):
            if 0 <= (first := hevc.kind(nal)) <= _LAST_SLICE:
                break
            found.append(nal)
        sets = self._sets.updated(found)
        if sets is not self._sets:
            if self._sets.replaced_in(sets) and not hevc.FIRST_IRAP <= first < _CRA:
                # Pictures shown earlier may be decoded later: only here is it sure which sets they mean.
                raise CannotIsolate("its parameter sets change between two pictures at which decoding may begin")
            self._use(sets)

    def luma(self, packet: bytes) -> tuple[UInt8[np.ndarray, "H W"] | UInt16[np.ndarray, "H W"], int]:
        """The packet's luma as decoded from gray references, and its bit depth; residual on inter-coded pixels only."""
        slices = []
        try:
            for nal in self._nals(packet):
                kind = hevc.kind(nal)
                if 0 <= kind <= _LAST_SLICE:
                    _, pps = self._pps[hevc.read_slice_pps_id(nal)]
                    if pps.weighted_p or pps.weighted_b:
                        nal = slice_without_weights(nal, self._sps[pps.sps_id][1], pps)
                    if kind in _SKIPPED_LEADING:  # becomes an ordinary trailing picture, which is decoded
                        nal = bytes([nal[0] - (_SKIPPED_LEADING[0] << 1)]) + nal[1:]
                    slices.append(nal)
        except (KeyError, ValueError, IndexError) as error:
            raise CannotIsolate("a picture of it names no known parameter set, or is damaged") from error
        return luma_of(decode_one(self._context, [annex_b(slices)]))

    def _nals(self, packet: bytes) -> list[bytes]:
        try:
            return list(packet_nals(packet, self._length_bytes))
        except ValueError as error:
            raise CannotIsolate(str(error)) from error
