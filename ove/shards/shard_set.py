"""A finished folder of shards as one sequence of records, read in any order."""

import bisect
import functools
import itertools
import threading
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from ove.errors import BadShard
from ove.shards.manifest import Manifest, Shard, read_manifest
from ove.shards.remote.remote_shards import RemoteShards, local_folder, origin
from ove.shards.schema import ImageRecord, Record, VideoRecord, unpack

_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
"""Reads what is asked for and nothing else; reading by index is then safe from several threads."""


class ShardSet:
    """All records of a folder; picklable, and usable by several threads at once."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """A set that trusts its manifest; `open` also looks at the files."""
        self.folder = folder
        self.manifest = manifest
        self._starts = list(itertools.accumulate((shard.records for shard in manifest.shards), initial=0))
        self._readers: dict[int, ArrayRecordReader] = {}
        self._lock = threading.Lock()
        uri = origin(folder)
        self._remote = None if uri is None else RemoteShards(folder, uri)

    @classmethod
    def open(cls, folder: Path | str) -> "ShardSet":
        """The shards of a folder; a missing folder, manifest or shard, or one of another size or version, raises BadShard.

        The folder may be a URI (s3://…, gs://…, https://…): `folder` of the set then is the local copy, into which shards come
        when they are first read (docs/remote.md). What cannot be fetched raises Unavailable, here or later.
        """
        folder = local_folder(folder)
        manifest = read_manifest(folder)
        shards = cls(folder, manifest)
        if shards._remote is not None:
            shards._remote.check_room(sum(shard.bytes for shard in manifest.shards))
            return shards
        for shard in manifest.shards:
            path = folder / shard.file
            if not path.is_file():
                raise BadShard(f"{path}: is missing, though {folder} lists it; run the same `python -m launch.shards` again.")
            size = path.stat().st_size
            if size != shard.bytes:
                raise BadShard(
                    f"{path}: has {size} bytes, {shard.bytes} were written; run the same `python -m launch.shards` again."
                )
        return shards

    def __reduce__(self) -> tuple[Any, ...]:
        # Open files stay where they are; the copy opens its own when it first reads.
        return ShardSet, (self.folder, self.manifest)

    def __len__(self) -> int:
        return self.manifest.records

    @property
    def fingerprint(self) -> str:
        """Changes with any byte of any record."""
        return self.manifest.fingerprint

    @property
    def grid_tyx(self) -> tuple[int, int, int]:
        """(T, Y, X) of every record; BadShard for a set of pictures, which have no grid in common."""
        if self.manifest.grid_tyx is None:
            raise BadShard(f"{self.folder}: holds pictures, and videos are needed here; give a folder of videos' shards.")
        return self.manifest.grid_tyx

    @property
    def kind(self) -> str:
        """Of all records: "video" or "image"."""
        return self.manifest.kind

    @property
    def classes(self) -> list[str]:
        """Class names of the records, sorted; empty where the inputs gave none."""
        return self.manifest.classes

    @functools.cached_property
    def names(self) -> tuple[tuple[str, str | None], ...]:
        """Key and class name of every record, in order. Reads all records, once; BadShard if one is damaged."""
        return tuple((record.key, record.label) for record in map(self.record, range(len(self))))

    def bytes_at(self, index: int) -> bytes:
        """The packed record with index 0…len − 1, counted over all shards; a damaged one raises BadShard."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {self.folder}, which has {len(self)}")
        n = bisect.bisect_right(self._starts, index) - 1
        place = index - self._starts[n]
        try:
            if self._remote is not None and self._remote.native:
                return self._remote.read_in_place(self.manifest.shards[n].file, lambda: self._reader(n).read([place])[0])
            return self._reader(n).read([place])[0]
        except (RuntimeError, IndexError) as error:
            raise BadShard(
                f"{self.folder / self.manifest.shards[n].file}: record {place} is damaged ({error}); "
                "delete the file and run the same `python -m launch.shards` again."
            ) from error

    def record(self, index: int) -> Record:
        """The record with index 0…len − 1; a damaged one raises BadShard."""
        return unpack(self.bytes_at(index))

    def video(self, index: int) -> VideoRecord:
        """The record with index 0…len − 1, which must be a video; a damaged or another one raises BadShard."""
        record = self.record(index)
        if not isinstance(record, VideoRecord):
            raise BadShard(f"{self.folder}: {record.key} is a picture, and a video is needed here; give shards of videos.")
        return record

    def image(self, index: int) -> ImageRecord:
        """The record with index 0…len − 1, which must be a picture; a damaged or another one raises BadShard."""
        record = self.record(index)
        if not isinstance(record, ImageRecord):
            raise BadShard(f"{self.folder}: {record.key} is a video, and a picture is needed here; give shards of pictures.")
        return record

    def _reader(self, n: int) -> ArrayRecordReader:
        if n in self._readers:
            return self._readers[n]
        shard, remote = self.manifest.shards[n], self._remote
        path = str(self.folder / shard.file) if remote is None else remote.place(shard.file, shard.bytes, shard.sha256)
        # Outside of the lock: what is slow to open, or never opens, keeps no one from the other shards.
        reader = ArrayRecordReader(path, options=_RANDOM_ACCESS)
        if not reader.ok():
            reader.read([0])  # raises, and says why
        if reader.num_records() != shard.records:
            raise RuntimeError(f"it holds {reader.num_records()} records, {shard.records} were written")
        with self._lock:
            return self._readers.setdefault(n, reader)

    def copy_of(self, shard: Shard) -> Path:
        """The file of a shard on this machine, fetched if it is remote; Unavailable or BadShard if that fails."""
        if self._remote is not None:
            return self._remote.copy(shard.file, shard.bytes, shard.sha256)
        return self.folder / shard.file
