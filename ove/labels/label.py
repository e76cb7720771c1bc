"""Assigns labels to all records of a shard set, in chunks that are each made once."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import numpy as np
from jax.sharding import Mesh
from jaxtyping import Bool, Float32, Int32, Int64

from ove.distributed import broadcast_json, is_main
from ove.files import digest, write_array
from ove.labels.clusters.assign import nearest_blocks
from ove.labels.clusters.search import ScoreDtype, row_mesh
from ove.labels.embed import Embedded
from ove.labels.parts import WHOLE, WorkPart, name_of
from ove.shards.labels import NONE, fingerprint_of_array


def kept_points(embedded: Embedded, keep: Bool[np.ndarray, "R"] | None) -> Int64[np.ndarray, "n"]:
    """Returns the embeddings of kept records; all if `keep` is None."""
    if keep is None:
        return np.arange(len(embedded.records))
    return np.flatnonzero(keep[embedded.records])


@dataclass(frozen=True)
class LabelChunks:
    """The labels of a shard set, in files of `chunk_records` records each."""

    embedded: Embedded
    chosen: Int64[np.ndarray, "n"]
    """Embeddings whose records get labels (`kept_points`)."""
    centers: Float32[np.ndarray, "k E"]
    n_labels: int
    n_records: int
    """Of the shard set."""
    chunk_records: int
    scores: ScoreDtype
    folder: Path

    @cached_property
    def identity(self) -> str:
        """Digest of all that decides the labels and their chunks."""
        of = [self.embedded.identity, fingerprint_of_array(self.centers), fingerprint_of_array(self.chosen)]
        return digest([*of, self.n_labels, self.n_records, self.chunk_records, self.scores])

    @property
    def count(self) -> int:
        """Number of chunks."""
        return -(-self.n_records // self.chunk_records)

    def members(self, number: int) -> range:
        """Returns the records of a chunk."""
        return range(number * self.chunk_records, min((number + 1) * self.chunk_records, self.n_records))

    def path(self, number: int) -> Path:
        """Returns the file of a chunk."""
        return self.folder / f"{self._prefix}{number:06d}.npy"

    def lacking(self) -> list[int]:
        """Returns the missing chunks."""
        there = {path.name for path in self.folder.glob(f"{self._prefix}*.npy")}
        return [number for number in range(self.count) if self.path(number).name not in there]

    def forget_others(self) -> None:
        """Deletes chunks of other embeddings, centers or settings."""
        for old in self.folder.glob("labels-*.npy"):
            if not old.name.startswith(self._prefix):
                old.unlink(missing_ok=True)

    def assembled(self) -> Int32[np.ndarray, "R M"]:
        """Returns all chunks concatenated, mapped from an unlinked file."""
        path = self.folder / ".labels.tmp"
        rows = np.lib.format.open_memmap(path, "w+", np.int32, (self.n_records, self.n_labels))
        path.unlink()
        for number in range(self.count):
            rows[self.members(number)] = np.load(self.path(number))
        return rows

    @property
    def _prefix(self) -> str:
        return f"labels-{self.identity[:12]}-"


def label_records(
    chunks: LabelChunks,
    part: WorkPart = WHOLE,
    mesh: Mesh | None = None,
    progress: Callable[[int, int], None] = lambda done, total: None,
) -> int:
    """Writes the missing chunks: the nearest centers of each record; returns their number of records.

    −1 for records that are dropped, unreadable, or of zeros. `part` (i, n): every n-th chunk from the i-th on. `mesh`: by
    default of all devices; all its processes must call it, the first writes. `progress(done, total)` counts embeddings.
    """
    mesh = mesh or row_mesh()
    mine = set(range(part[0], chunks.count, part[1]))
    numbers = broadcast_json(mesh, [number for number in chunks.lacking() if number in mine] if is_main(mesh) else None)
    edges = np.searchsorted(chunks.embedded.records[chunks.chosen], np.arange(chunks.count + 1) * chunks.chunk_records)
    spans = [chunks.chosen[edges[number] : edges[number + 1]] for number in numbers]
    total, reached = sum(map(len, spans)), 0
    points = chunks.embedded.points.subset(np.concatenate([np.zeros(0, np.int64), *spans]))
    found = nearest_blocks(points, chunks.centers, chunks.n_labels, mesh, chunks.scores)
    rows = np.zeros((0, chunks.n_labels), np.int32)  # of points of the next chunks
    for number, span in zip(numbers, spans, strict=True):
        while len(rows) < len(span):
            rows = np.concatenate([rows, next(found)[1]])
        labels = np.full((len(chunks.members(number)), chunks.n_labels), NONE, np.int32)
        labels[chunks.embedded.records[span] - chunks.members(number).start] = rows[: len(span)]
        rows, reached = rows[len(span) :], reached + len(span)
        if is_main(mesh):
            write_array(chunks.path(number), labels, name_of(part))
        progress(reached, total)
    return sum(len(chunks.members(number)) for number in numbers)
