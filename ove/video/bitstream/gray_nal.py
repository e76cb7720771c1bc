"""What gray decoding of H.264 and HEVC has in common: NAL units, and the parameter sets in force."""

from abc import abstractmethod
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ove.video.bitstream.gray import GrayDecoder, NoBitstreamSignals
from ove.video.bitstream.nal import packet_nals

SetReader = tuple[Callable[[bytes], Any], str]
"""A parameter set's parser, and the name of the id in its result (empty: the result is the id)."""


@dataclass(frozen=True)
class ParameterSets:
    """NAL units and their parsed form, by (nal_unit_type, id)."""

    nal_unit_type: Callable[[bytes], int]
    readers: Mapping[int, SetReader]
    """By nal_unit_type."""
    found: dict[tuple[int, int], tuple[bytes, Any]] = field(default_factory=dict)

    def updated(self, nals: Iterable[bytes]) -> "ParameterSets":
        """Returns these sets with those among the NAL units; the same object if nothing changes."""
        found = dict(self.found)
        for nal in nals:
            kind = self.nal_unit_type(nal)
            if kind in self.readers:
                read, name = self.readers[kind]
                try:
                    parsed = read(nal)
                except (ValueError, IndexError) as error:
                    raise NoBitstreamSignals(f"its parameter sets cannot be read ({error})") from error
                found[kind, getattr(parsed, name) if name else parsed] = (nal, parsed)
        return self if found == self.found else ParameterSets(self.nal_unit_type, self.readers, found)

    def of(self, kind: int) -> dict[int, tuple[bytes, Any]]:
        """Returns the sets of one nal_unit_type, by id."""
        return {i: one for (its_kind, i), one in self.found.items() if its_kind == kind}

    def replaced_in(self, later: "ParameterSets") -> bool:
        """Returns whether `later`, an update of these, redefines one of them."""
        return any(later.found[key] != one for key, one in self.found.items())


class GrayNal(GrayDecoder):
    """A gray decoder of a codec whose packets are NAL units."""

    def __init__(self, extradata: bytes, sets: ParameterSets) -> None:
        """Reads the parameter sets of the stream header (MP4's record or Annex B), or raises NoBitstreamSignals."""
        self._length_bytes = 0
        self._use(sets.updated(self._header(extradata)))

    @staticmethod
    @abstractmethod
    def split_header(extradata: bytes) -> tuple[int, list[bytes]]:
        """Returns the bytes of a length prefix, and the NAL units, of the record in an MP4 file."""

    @abstractmethod
    def _use(self, sets: ParameterSets) -> None:
        """Prepares a decoder that knows these sets."""

    def _header(self, extradata: bytes) -> list[bytes]:
        """Returns the NAL units of a stream header, which also tells how packets are split."""
        self._length_bytes = 0
        try:
            if extradata[:1] == b"\x01":
                self._length_bytes, nals = self.split_header(extradata)
                return nals
            return list(packet_nals(extradata, 0))
        except (ValueError, IndexError) as error:
            raise NoBitstreamSignals(f"its parameter sets cannot be read ({error})") from error

    def _nals(self, packet: bytes) -> list[bytes]:
        try:
            return list(packet_nals(packet, self._length_bytes))
        except ValueError as error:
            raise NoBitstreamSignals(str(error)) from error
