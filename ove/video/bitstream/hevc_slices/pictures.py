"""Packets of an HEVC stream in decoding order → the motion, block map and information of each picture; no pixel is decoded.

Clause numbers are those of ITU-T H.265 (08/2021).
"""

from dataclasses import dataclass, replace

import numpy as np
from jaxtyping import Int64

from ove.video.bitstream.coded import CodedPicture, DamagedSlices, NoVectors, SliceReader
from ove.video.bitstream.hevc_pps import CtbOrder, Pps, ctb_order, read_pps
from ove.video.bitstream.hevc_slice_header import FIRST_IRAP, INTRA, LAST_IRAP, SliceHeader, read_slice, read_slice_pps_id
from ove.video.bitstream.hevc_slices.kernel import CODER, PARAMS, Picture, References, Scratch
from ove.video.bitstream.hevc_slices.parameters import check_sps, values_of
from ove.video.bitstream.hevc_slices.slices import keep_motion, read_slice_data
from ove.video.bitstream.hevc_slices.tables import N_STATES
from ove.video.bitstream.hevc_slices.vectors import NO_REFS, UNUSED
from ove.video.bitstream.hevc_syntax import NAL_PPS, NAL_SPS, Sps, nal_unit_type, read_sps, split_hvcc
from ove.video.bitstream.nal import packet_nals, unescaped

_END_OF_SEQUENCE, _LAST_SLICE, _RASL, _CRA = (36, 37), 21, (8, 9), 21
_SUB_LAYER_NON_REFERENCE, _LEADING = range(0, 15, 2), range(6, 10)
"""nal_unit_type (table 7-1)."""
_HEADER_BYTES = 1 << 16
"""Of a parameter set, more than any has."""


@dataclass(frozen=True)
class _Kept:
    """The motion of a decoded picture, as long as others refer to it."""

    size: tuple[int, int]
    vectors: Int64[np.ndarray, "n"]
    motion: np.ndarray


class _Current:
    """The picture that is being read."""

    def __init__(self, sps: Sps, pps: Pps, order: CtbOrder, poc: int) -> None:
        self.sps, self.pps, self.order, self.poc = sps, pps, order, poc
        self.header: SliceHeader | None = None
        self.lists: list[Int64[np.ndarray, "4 16"]] = []
        self.n_ctbs = 0
        self.before: list[tuple[int, bool]] = []
        self.after: list[tuple[int, bool]] = []
        self.long_term: list[tuple[int, bool]] = []
        cells, blocks, n_ctbs = (sps.width >> 2) * (sps.height >> 2), (sps.width >> 3) * (sps.height >> 3), sps.num_ctbs
        ctbs = np.stack([np.full(n_ctbs, -1), order.tile, np.zeros(n_ctbs), order.first_column]).astype(np.int32)
        self.arrays = Picture(
            ctbs,
            np.zeros(cells, np.int64),
            np.full(cells, NO_REFS, np.uint16),
            np.ones(cells, np.uint8),
            np.zeros(blocks, np.uint8),
            np.zeros(blocks, np.int8),
            np.zeros(blocks, np.float32),
        )


class PictureReader(SliceReader):
    """Reads the pictures of one HEVC stream."""

    def __init__(self, extradata: bytes) -> None:
        """`extradata`: the stream header, `hvcC` or Annex B. NoVectors if its pictures cannot be read."""
        self._sps: dict[int, Sps] = {}
        self._pps: dict[int, Pps] = {}
        self._orders: dict[tuple[int, int], CtbOrder] = {}
        self._kept: dict[int, _Kept] = {}
        self._current: _Current | None = None
        self._previous_poc, self._length_bytes = 0, 0
        self._begins_sequence, self._drops_rasl, self._has_begun = True, True, False
        self._coder, self._params = np.zeros(1, CODER)[0], np.zeros(1, PARAMS)[0]
        self._contexts = np.zeros(N_STATES, np.uint8)
        self._scratch = Scratch(
            vectors=np.zeros(6, np.int64),
            refs=np.zeros(6, np.int64),
            numbers=np.zeros(8, np.int64),
            transforms=np.zeros((32, 8), np.int64),
            quads=np.zeros((32, 4), np.int64),
            saved=np.zeros((2, N_STATES), np.uint8),
        )
        self._no_references = References(np.zeros((4, 16), np.int64), np.zeros(1, np.int64), np.zeros((1, 3), np.int32))
        self.take_header(extradata)

    def take_header(self, extradata: bytes) -> None:
        """Reads the parameter sets of a stream header."""
        try:
            if extradata[:1] == b"\x01":
                self._length_bytes, nals = split_hvcc(extradata)
            else:
                self._length_bytes, nals = 0, list(packet_nals(extradata, 0))
            for nal in nals:
                self._take_parameter_set(nal)
        except (ValueError, IndexError) as error:
            raise NoVectors(f"its parameter sets cannot be read ({error})") from error

    def read(self, packet: bytes) -> CodedPicture | None:
        """Returns the picture of a packet; None where decoders drop it. DamagedSlices, NoVectors: it cannot be read.

        After either the stream cannot be read on.
        """
        try:
            for nal in packet_nals(packet, self._length_bytes):
                kind = nal_unit_type(nal)
                if kind in _END_OF_SEQUENCE or (len(nal) == 2 and nal[0] >> 1 in _END_OF_SEQUENCE):
                    self._begins_sequence = True
                elif 0 <= kind <= _LAST_SLICE:
                    self._take_slice(kind, nal)
                else:
                    self._take_parameter_set(nal)
            current, self._current = self._current, None
            return None if current is None else self._finished(current)
        except (ValueError, IndexError, KeyError) as error:
            if isinstance(error, DamagedSlices):
                raise
            raise DamagedSlices(f"a picture of it cannot be read ({type(error).__name__}: {error})") from error

    def _take_parameter_set(self, nal: bytes) -> None:
        kind = nal_unit_type(nal)
        if kind == NAL_SPS:
            sps = read_sps(nal[:_HEADER_BYTES])
            check_sps(sps)
            self._sps[sps.sps_id] = sps
            self._orders.clear()
        elif kind == NAL_PPS:
            pps = read_pps(nal[:_HEADER_BYTES])
            if pps.other_extensions:
                raise NoVectors("it uses extensions for layers, depth or screen content")
            self._pps[pps.pps_id] = pps
            self._orders.clear()

    def _take_slice(self, kind: int, nal: bytes) -> None:
        payload = unescaped(nal)
        pps = self._pps[read_slice_pps_id(nal)]
        sps = self._sps[pps.sps_id]
        header = read_slice(nal, payload, sps, pps)
        if header.is_first:
            if self._current is not None:
                raise DamagedSlices("a packet of it holds two pictures")
            self._begin(kind, nal, header, sps, pps)
        current = self._current
        if current is None:
            return
        if current.pps is not pps and (current.sps is not sps):
            raise DamagedSlices("two slices of a picture refer to different parameter sets")
        if header.dependent:
            if current.header is None:
                raise DamagedSlices("a picture of it begins with a dependent slice segment")
            header = replace(current.header, dependent=True, address=header.address, end=header.end)
        else:
            current.lists.append(self._reference_lists(current, header))
        references = self._references(current, header)
        if not header.dependent:
            current.header = header
            self._slice_address = header.address
        values = values_of(current.sps, pps, header, current.lists[-1], current.poc) | {
            "slice_address": self._slice_address,
            "slice_index": len(current.lists) - 1,
            "has_collocated": references.vectors is not self._no_references.vectors,
        }
        for name, value in values.items():
            self._params[name] = value
        begin = header.end // 8 + 1  # byte_alignment (7.3.2.12) is a one and zeros
        words = np.frombuffer(payload + bytes(8 + -len(payload) % 4), ">u4").astype(np.uint32)
        n_ctbs = read_slice_data(
            words,
            begin,
            len(payload),
            self._coder,
            self._contexts,
            self._params,
            current.arrays,
            references,
            current.order.raster,
            current.order.tile_scan,
            self._scratch,
        )
        if n_ctbs < 0:
            raise DamagedSlices(f"the data of a slice are damaged within its first {-n_ctbs} blocks")
        if payload[int(self._coder["end"]) :].strip(b"\x00\x03"):
            raise DamagedSlices("the data of a slice end before its last byte")
        current.n_ctbs += n_ctbs

    def _begin(self, kind: int, nal: bytes, header: SliceHeader, sps: Sps, pps: Pps) -> None:
        """Begins a picture: its POC (8.3.1) and reference picture set (8.3.2); none for pictures that decoders drop."""
        is_irap = FIRST_IRAP <= kind <= LAST_IRAP
        begins = is_irap and (kind < _CRA or self._begins_sequence)
        if is_irap:
            self._drops_rasl, self._begins_sequence, self._has_begun = begins, False, True
        if not self._has_begun or (kind in _RASL and self._drops_rasl):
            return
        references, period = header.references, 1 << sps.poc_lsb_bits
        poc = references.poc_lsb
        if not begins:
            high = self._previous_poc - self._previous_poc % period
            apart = poc - self._previous_poc % period
            poc += high + (period if apart <= -period // 2 else -period if apart > period // 2 else 0)
        temporal_id = (nal[1] & 7) - 1
        if temporal_id == 0 and kind not in _LEADING and kind not in _SUB_LAYER_NON_REFERENCE:
            self._previous_poc = poc
        if begins:
            self._kept = {}
        key = sps.sps_id, pps.pps_id
        if key not in self._orders:
            self._orders[key] = ctb_order(sps, pps)
        current = _Current(sps, pps, self._orders[key], poc)
        for distance, used in references.short_term:
            if used:
                (current.before if distance < 0 else current.after).append((poc + distance, False))
        keep = {poc + distance for distance, _ in references.short_term}
        for picture in references.long_term:
            if picture.msb_cycles is None:
                its = next((kept for kept in self._kept if kept % period == picture.poc_lsb), picture.poc_lsb)
            else:
                its = picture.poc_lsb + poc - picture.msb_cycles * period - poc % period
            keep.add(its)
            if picture.used:
                current.long_term.append((its, True))
        self._kept = {its: kept for its, kept in self._kept.items() if its in keep}
        self._current = current

    @staticmethod
    def _reference_lists(current: _Current, header: SliceHeader) -> Int64[np.ndarray, "4 16"]:
        """Returns the POCs of both lists, and whether they are long-term references (8.3.4)."""
        table = np.zeros((4, 16), np.int64)
        orders = (
            current.before + current.after + current.long_term,
            current.after + current.before + current.long_term,
        )
        for which, number in enumerate(header.lists.num_ref_idx):
            pictures = orders[which]
            if not pictures:
                raise DamagedSlices("a predicted picture of it has no reference")
            entries = header.lists.entries[which] or range(number)
            for i, entry in enumerate(entries):
                table[which, i], table[2 + which, i] = pictures[entry % len(pictures)]
        return table

    def _references(self, current: _Current, header: SliceHeader) -> References:
        """Returns the lists of a slice, and the motion of its collocated picture."""
        lists = current.lists[-1]
        if header.slice_type == INTRA or not header.references.temporal_mvp:
            return self._no_references._replace(lists=lists)
        poc = int(lists[0 if header.lists.collocated_from_l0 else 1, header.lists.collocated_ref_idx])
        kept = self._kept.get(poc)
        if kept is None:  # lost: all that follows would be wrong in silence
            raise DamagedSlices("the picture from which vectors are predicted is missing")
        if kept.size != (current.sps.width, current.sps.height):
            return self._no_references._replace(lists=lists)
        return References(lists, kept.vectors, kept.motion)

    def _finished(self, current: _Current) -> CodedPicture:
        """Returns what was read of a picture, and keeps what later ones may need."""
        sps, arrays = current.sps, current.arrays
        if current.n_ctbs != sps.num_ctbs:
            raise DamagedSlices(f"{current.n_ctbs} of a picture's {sps.num_ctbs} blocks are there")
        tables = np.stack(current.lists)
        n_kept = ((sps.width + 15) >> 4) * ((sps.height + 15) >> 4)
        kept = _Kept((sps.width, sps.height), np.empty(n_kept, np.int64), np.zeros((n_kept, 3), np.int32))
        keep_motion(self._params, arrays, tables, kept.vectors, kept.motion)
        self._kept[current.poc] = kept
        wide, high = sps.width >> 3, sps.height >> 3
        # Of two prediction blocks in an 8×8 block the lower or right one counts.
        lower_right = np.s_[1::2, 1::2]
        vectors = arrays.vectors.reshape(2 * high, 2 * wide)[lower_right].copy().view(np.int16).reshape(high, wide, 2, 2)
        refs = arrays.refs.reshape(2 * high, 2 * wide)[lower_right]
        index = np.stack([refs & UNUSED, refs >> 8], axis=-1)
        used = index != UNUSED
        column, row = np.arange(wide) >> (sps.ctb_size_bits - 3), np.arange(high) >> (sps.ctb_size_bits - 3)
        slices = arrays.ctbs[2].reshape(-1, -(-sps.width >> sps.ctb_size_bits))[row[:, None], column]
        pocs = tables[slices[..., None], np.arange(2), np.where(used, index, 0)]
        return CodedPicture(
            vectors,
            used,
            np.where(used, pocs - current.poc, 0),
            (arrays.depths >> 7).astype(bool).reshape(high, wide),
            arrays.qps.reshape(high, wide),
            arrays.bits.reshape(high, wide),
        )
