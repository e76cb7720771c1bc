"""Several folders of shards as one set, for probes."""

import bisect
import functools
import itertools
from collections.abc import Sequence
from dataclasses import replace

from ove.errors import BadShard
from ove.files import digest
from ove.shards.schema import Record, VideoRecord
from ove.shards.shard_set import ShardSet


class JoinedShards:
    """The records of several sets, one set after the other; keys begin with the folder, as it was given, and a slash."""

    def __init__(self, folders: Sequence[str], sets: Sequence[ShardSet]) -> None:
        """BadShard for two sets of another kind, grid or patch size, or for one given twice; names the two folders."""
        for number, (folder, shards) in enumerate(zip(folders, sets, strict=True)):
            if _looks(shards) != _looks(sets[0]):
                raise BadShard(
                    f"{folders[0]} holds {_looks(sets[0])} and {folder} {_looks(shards)}; join sets of one kind and size only."
                )
            if shards.fingerprint in (earlier.fingerprint for earlier in sets[:number]):
                twin = next(n for n, earlier in enumerate(sets) if earlier.fingerprint == shards.fingerprint)
                raise BadShard(f"{folders[twin]} and {folder} hold the same records; name each set once.")
        self._folders, self.sets = tuple(folders), tuple(sets)
        self._starts = list(itertools.accumulate(map(len, sets), initial=0))

    def __len__(self) -> int:
        return self._starts[-1]

    @property
    def folder(self) -> str:
        """Returns all folders, for messages."""
        return ", ".join(self._folders)

    @property
    def fingerprint(self) -> str:
        """Returns what changes with any byte of any record, and with the order of the sets."""
        return digest({"joined": [shards.fingerprint for shards in self.sets]})

    @property
    def kind(self) -> str:
        """Returns the kind of all records: "video" or "image"."""
        return self.sets[0].kind

    @property
    def grid_tyx(self) -> tuple[int, int, int]:
        """Returns (T, Y, X) of every record; BadShard for pictures."""
        return self.sets[0].grid_tyx

    @property
    def classes(self) -> list[str]:
        """Returns the class names of all sets, sorted."""
        return sorted({name for shards in self.sets for name in shards.classes})

    @functools.cached_property
    def names(self) -> tuple[tuple[str, str | None], ...]:
        """Returns key and class name of every record, in order; as `ShardSet.names`."""
        pairs = zip(self._folders, self.sets, strict=True)
        return tuple((f"{folder}/{key}", label) for folder, shards in pairs for key, label in shards.names)

    def record(self, index: int) -> Record:
        """Reads the record with index 0…len − 1, counted over all sets; BadShard if it is damaged."""
        number, place = self._place(index)
        record = self.sets[number].record(place)
        return replace(record, key=f"{self._folders[number]}/{record.key}")

    def video(self, index: int) -> VideoRecord:
        """Reads the video with index 0…len − 1, counted over all sets; BadShard if it is damaged or a picture."""
        number, place = self._place(index)
        record = self.sets[number].video(place)
        return replace(record, key=f"{self._folders[number]}/{record.key}")

    def _place(self, index: int) -> tuple[int, int]:
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {self.folder}, which have {len(self)}")
        number = bisect.bisect_right(self._starts, index) - 1
        return number, index - self._starts[number]


Shards = ShardSet | JoinedShards
"""One set or several."""


def sets_of(shards: Shards) -> tuple[ShardSet, ...]:
    """Returns the sets that are joined, or the one."""
    return shards.sets if isinstance(shards, JoinedShards) else (shards,)


def open_shards(folders: str | Sequence[str]) -> Shards:
    """Opens a folder (or URI) of shards, or several as one set; errors as `ShardSet.open` and `JoinedShards`."""
    given = (folders,) if isinstance(folders, str) else tuple(folders)
    sets = [ShardSet.open(folder) for folder in given]
    return sets[0] if len(sets) == 1 else JoinedShards(given, sets)


def _looks(shards: ShardSet) -> str:
    made = shards.manifest
    if made.grid_tyx is None:
        return f"{made.kind}s"
    return f"{made.kind}s of {'×'.join(map(str, made.grid_tyx))} patches of {made.patch_px} px"
