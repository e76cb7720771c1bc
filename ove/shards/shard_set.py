"""A finished shard folder as one sequence of records, read in any order."""

import bisect
import errno
import functools
import itertools
import os
import threading
from collections import OrderedDict
from pathlib import Path
from typing import Any

from array_record.python.array_record_module import ArrayRecordReader

from ove.errors import BadShard, Unavailable
from ove.named import refuse_code
from ove.shards.index import read_index
from ove.shards.manifest import Manifest, Shard, read_manifest
from ove.shards.remote.remote_shards import RemoteShards, local_folder, origin
from ove.shards.schema import ImageRecord, Record, VideoRecord, unpack

_OPEN_SHARDS = 128
"""Files of a set that are open at a time: a process may open 1,024 by default, and trains on several sets."""
_RANDOM_ACCESS = "readahead_buffer_size:0,max_parallelism:0"
"""Reads only the requested record; reading by index is then thread-safe."""


class ShardSet:
    """All records of a folder; picklable and thread-safe."""

    def __init__(self, folder: Path, manifest: Manifest) -> None:
        """Trusts the manifest; `open` also checks the files."""
        self.folder = folder
        self.manifest = manifest
        self._starts = list(itertools.accumulate((shard.records for shard in manifest.shards), initial=0))
        self._readers: OrderedDict[int, ArrayRecordReader] = OrderedDict()
        self._lock = threading.Lock()
        uri = origin(folder)
        self._remote = None if uri is None else RemoteShards(folder, uri)

    @classmethod
    def open(cls, folder: Path | str) -> "ShardSet":
        """Opens the shards of a folder; BadShard if the folder, manifest or a shard is missing or not as written.

        The folder may be a URI (s3://…, gs://…, https://…): `folder` is then the local copy, into which shards are fetched
        when first read (docs/remote.md). Unavailable, here or later, for what cannot be fetched. BadShard too for a remote
        manifest that names code to import.
        """
        folder = local_folder(folder)
        try:
            manifest = read_manifest(folder)
        except BadShard as error:
            raise BadShard(str(error).replace(str(folder), origin(folder) or str(folder))) from error
        shards = cls(folder, manifest)
        if shards._starts[-1] != len(shards):
            raise BadShard(
                f"{folder}: its manifest says {len(shards)} records, and its shards together have {shards._starts[-1]}; run "
                "the same `ove shards` again."
            )
        if shards._remote is not None:
            refuse_code({"made_with": manifest.made_with, "mosaics": manifest.mosaics}, shards._remote.uri, BadShard)
            shards._remote.check_room(sum(shard.bytes for shard in manifest.shards))
            return shards
        for shard in manifest.shards:
            path = folder / shard.file
            if not path.is_file():
                raise BadShard(f"{path}: is missing, though {folder} lists it; run the same `ove shards` again.")
            size = path.stat().st_size
            if size != shard.bytes:
                raise BadShard(f"{path}: has {size} bytes, {shard.bytes} were written; run the same `ove shards` again.")
        return shards

    def __reduce__(self) -> tuple[Any, ...]:
        # Without the open files: the copy opens its own when it first reads.
        return ShardSet, (self.folder, self.manifest)

    def __len__(self) -> int:
        return self.manifest.records

    @property
    def fingerprint(self) -> str:
        """Returns what changes with any byte of any record."""
        return self.manifest.fingerprint

    @property
    def grid_tyx(self) -> tuple[int, int, int]:
        """Returns (T, Y, X) of every record; BadShard for a set of pictures, which have no grid in common."""
        if self.manifest.grid_tyx is None:
            raise BadShard(f"{self.folder}: holds pictures, and videos are needed here; give a folder of videos' shards.")
        return self.manifest.grid_tyx

    @property
    def kind(self) -> str:
        """Returns the kind of all records: "video" or "image"."""
        return self.manifest.kind

    @property
    def classes(self) -> list[str]:
        """Returns the class names of the records, sorted; empty without any."""
        return self.manifest.classes

    @functools.cached_property
    def names(self) -> tuple[tuple[str, str | None], ...]:
        """Returns key and class name of every record, in order: from the index or, without one, from all records.

        BadShard if the index, or a record that is read, is damaged.
        """
        if self.manifest.index:
            return read_index(self.folder, self.manifest)
        return tuple((record.key, record.label) for record in map(self.record, range(len(self))))

    def bytes_at(self, index: int) -> bytes:
        """Reads the packed record with index 0…len − 1, counted over all shards; BadShard if it is damaged."""
        if not 0 <= index < len(self):
            raise IndexError(f"record {index} of {self.folder}, which has {len(self)}")
        n = bisect.bisect_right(self._starts, index) - 1
        place = index - self._starts[n]
        try:
            if self._remote is not None and self._remote.native:
                return self._remote.read_in_place(self.manifest.shards[n].file, lambda: self._reader(n).read([place])[0])
            return self._reader(n).read([place])[0]
        except (RuntimeError, IndexError) as error:
            if os.strerror(errno.EMFILE) in str(error):
                raise Unavailable(
                    f"{self.folder}: this process has too many open files to read record {index}; raise `ulimit -n`."
                ) from error
            raise BadShard(
                f"{self.folder / self.manifest.shards[n].file}: record {place} is damaged ({error}); "
                "delete the file and run the same `ove shards` again."
            ) from error

    def record(self, index: int) -> Record:
        """Reads the record with index 0…len − 1; BadShard if it is damaged."""
        return unpack(self.bytes_at(index))

    def video(self, index: int) -> VideoRecord:
        """Reads the video with index 0…len − 1; BadShard if it is damaged or a picture."""
        record = self.record(index)
        if not isinstance(record, VideoRecord):
            raise BadShard(f"{self.folder}: {record.key} is a picture, and a video is needed here; give shards of videos.")
        return record

    def image(self, index: int) -> ImageRecord:
        """Reads the picture with index 0…len − 1; BadShard if it is damaged or a video."""
        record = self.record(index)
        if not isinstance(record, ImageRecord):
            raise BadShard(f"{self.folder}: {record.key} is a video, and a picture is needed here; give shards of pictures.")
        return record

    def _reader(self, n: int) -> ArrayRecordReader:
        with self._lock:
            if n in self._readers:
                self._readers.move_to_end(n)
                return self._readers[n]
        shard, remote = self.manifest.shards[n], self._remote
        path = str(self.folder / shard.file) if remote is None else remote.place(shard)
        # Outside the lock: a shard that is slow to open, or never opens, does not block the others.
        reader = ArrayRecordReader(path, options=_RANDOM_ACCESS)
        if not reader.ok():
            reader.read([0])  # raises, and says why
        if reader.num_records() != shard.records:
            raise RuntimeError(f"it holds {reader.num_records()} records, {shard.records} were written")
        with self._lock:
            while len(self._readers) >= _OPEN_SHARDS:
                self._readers.popitem(last=False)  # closed once no thread reads from it any more
            return self._readers.setdefault(n, reader)

    def copy_of(self, shard: Shard) -> Path:
        """Returns the local file of a shard, fetched if it is remote; Unavailable or BadShard if that fails."""
        if self._remote is not None:
            return self._remote.copy(shard)
        return self.folder / shard.file
