"""From embeddings to the labels of every record of a shard set; taken up where it was interrupted."""

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import Bool, Float32, Int32, Int64

from ove.labels.assign import nearest_blocks
from ove.labels.embed import Embedded
from ove.labels.search import Scores
from ove.shards.labels import NONE, fingerprint_of_array
from ove.shards.manifest import digest, write_json

_STATE = "assign.json"
_LABELS = "assign.npy"
_BLOCKS_A_SAVE = 64


def kept_points(embedded: Embedded, keep: Bool[np.ndarray, "R"] | None) -> Int64[np.ndarray, "n"]:
    """Which of the embeddings are of records that are kept; all, if nobody has looked for duplicates."""
    if keep is None:
        return np.arange(len(embedded.records))
    return np.flatnonzero(keep[embedded.records])


def label_records(
    embedded: Embedded,
    keep: Bool[np.ndarray, "R"] | None,
    centers: Float32[np.ndarray, "k E"],
    n_labels: int,
    n_records: int,
    workdir: Path,
    scores: Scores = "float32",
    on_point: Callable[[int, int], None] = lambda done, total: None,
) -> Int32[np.ndarray, "R M"]:
    """The `n_labels` nearest centers of each record of the shard set, mapped from a file in `workdir`.

    −1 for records that are not kept, could not be read, or have no direction. A call with the same inputs goes on where an
    earlier one had got to. `on_point` is told how many embeddings of how many are done.
    """
    chosen = kept_points(embedded, keep)
    settings = digest(
        [embedded.identity, fingerprint_of_array(centers), n_labels, n_records, fingerprint_of_array(chosen), scores]
    )
    path, state = workdir / _LABELS, workdir / _STATE
    workdir.mkdir(parents=True, exist_ok=True)
    done = _done(state, path, settings)
    if done == 0:
        state.unlink(missing_ok=True)  # lest an older state speak of the new file
        fresh = np.lib.format.open_memmap(path, "w+", np.int32, (n_records, n_labels))
        fresh[:] = NONE
        fresh.flush()
        write_json(state, {"settings": settings, "done": 0})
    labels = np.lib.format.open_memmap(path, "r+")
    rest = embedded.points.subset(chosen[done:])
    for number, (start, block) in enumerate(nearest_blocks(rest, centers, n_labels, scores=scores)):
        reached = done + start + len(block)
        labels[embedded.records[chosen[done + start : reached]]] = block
        on_point(reached, len(chosen))
        if number % _BLOCKS_A_SAVE == _BLOCKS_A_SAVE - 1:
            labels.flush()
            write_json(state, {"settings": settings, "done": reached})
    labels.flush()
    write_json(state, {"settings": settings, "done": len(chosen)})
    return labels


def _done(state: Path, path: Path, settings: str) -> int:
    """Embeddings whose labels are in the file already."""
    if not (state.is_file() and path.is_file()):
        return 0
    about = json.loads(state.read_text(encoding="utf-8"))
    return about["done"] if about["settings"] == settings else 0
