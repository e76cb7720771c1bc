"""Opens the shard sets of a head with the labels of its bank."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from jaxtyping import Int, Int32

from ove.errors import BadShard, ConfigError
from ove.files import digest
from ove.records import BANKS
from ove.shards.labels import NONE, blocks, read_labels
from ove.shards.remote.remote_shards import local_file
from ove.shards.schema import Record
from ove.shards.shard_set import ShardSet


@dataclass(frozen=True)
class LabelledShards:
    """One shard set of a head."""

    shards: ShardSet
    bank: str
    labels: Int32[np.ndarray, "N L"] | None
    """Labels of all records, mapped from the label file; None: stored within the records."""
    labelled: Int[np.ndarray, "n"] | None
    """Ascending indices of the labelled records; None: all records, or unknown before they are read."""
    n_labels: int
    """L, the most labels of a record."""
    n_centers: int
    labels_fingerprint: str

    def __len__(self) -> int:
        """Returns the number of records that can be drawn."""
        return len(self.shards) if self.labelled is None else len(self.labelled)

    def record_of(self, item: int) -> int:
        """Returns the index in the shard set of item 0 … len − 1."""
        return item if self.labelled is None else int(self.labelled[item])

    def labels_of(self, index: int, record: Record) -> Int32[np.ndarray, "l"]:
        """Returns the labels of a record; −1 marks missing ones."""
        if self.labels is not None:
            return self.labels[index]
        return record.labels.get(self.bank, np.empty(0, np.int32))


def open_source(folder: Path, bank: str) -> LabelledShards:
    """Opens the shards of a folder with their labels of a bank, from its label file, or else from the records.

    A label file also tells which records have none, and leaves these out. BadShard for missing or damaged shards or labels, and
    if no record has a label.
    """
    name = next(known for known in BANKS if known == bank)
    shards = ShardSet.open(folder)
    folder, manifest = shards.folder, shards.manifest
    # Labels beside the shards are newer than those within.
    if bank in manifest.banks and not local_file(folder, f"labels/{bank}.json").exists():
        n_labels = manifest.labels_per_record[bank][1]
        return LabelledShards(
            shards, bank, None, None, n_labels, manifest.banks[bank], digest({"within": manifest.fingerprint})
        )
    found = read_labels(folder, name)
    has_label = np.concatenate([(block != NONE).any(axis=1) for _, block in blocks(found.labels)])
    if not has_label.any():
        raise BadShard(f"{folder}: no record has a label of the bank {bank}; label it again or leave it out.")
    labelled = None if has_label.all() else np.flatnonzero(has_label)
    fingerprint = found.info["labels"]["sha256"]
    return LabelledShards(shards, bank, found.labels, labelled, found.labels.shape[1], found.n_centers, fingerprint)


def common_size(sources: tuple[LabelledShards, ...], size_px: int, bank: str) -> int:
    """Returns the side in pixels of the squares of a head: `size_px`, or if that is 0 the size of all clips.

    ConfigError if the records have no size in common.
    """
    sizes = {source.shards.manifest.size_px for source in sources}
    if size_px:
        return size_px
    if len(sizes) > 1 or None in sizes:
        folders = ", ".join(str(source.shards.folder) for source in sources)
        raise ConfigError(
            f"head {bank}: the pictures of {folders} are of several sizes; set size_px of the head, for example 224."
        )
    return int(sizes.pop() or 0)
