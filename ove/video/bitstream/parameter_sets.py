"""The parameter sets of an H.264 or HEVC stream that are in force, and what becomes of them as packets bring others."""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ove.video.bitstream.gray import CannotIsolate


@dataclass(frozen=True)
class ParameterSets:
    """NAL units and what they say, by (kind, id)."""

    kind: Callable[[bytes], int]
    """nal_unit_type of a NAL unit."""
    readers: Mapping[int, tuple[Callable[[bytes], Any], str]]
    """For each kind of set, what reads its header, and the name of the header's id; no name: the header is the id."""
    found: dict[tuple[int, int], tuple[bytes, Any]] = field(default_factory=dict)

    def updated(self, nals: Iterable[bytes]) -> "ParameterSets":
        """These sets with those among the NAL units; the same object if nothing changes."""
        found = dict(self.found)
        for nal in nals:
            kind = self.kind(nal)
            if kind in self.readers:
                read, name = self.readers[kind]
                try:
                    header = read(nal)
                except (ValueError, IndexError) as error:
                    raise CannotIsolate(f"its parameter sets cannot be read ({error})") from error
                found[kind, getattr(header, name) if name else header] = (nal, header)
        return self if found == self.found else ParameterSets(self.kind, self.readers, found)

    def of(self, kind: int) -> dict[int, tuple[bytes, Any]]:
        """The sets of one kind, by id."""
        return {i: one for (its_kind, i), one in self.found.items() if its_kind == kind}

    def replaced_in(self, later: "ParameterSets") -> bool:
        """Whether `later`, an update of these, says something else about one of them."""
        return any(later.found[key] != one for key, one in self.found.items())
