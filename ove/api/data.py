"""`ove.write_shards` and `ove.batches`: labelled files → shards → batches."""

import itertools
import multiprocessing
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ove.api.samples import PathLike, Samples, local_path, reading_of, rows_of
from ove.config import SelectionConfig, ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.errors import BadInput, ConfigError
from ove.files import write_json_lines
from ove.prefetch import prefetch
from ove.probing.dataset import UNKNOWN
from ove.records import MODES
from ove.shards.assemble import WriteSummary
from ove.shards.make import write_source
from ove.shards.shard_set import ShardSet
from ove.shards.write import WriteProgress
from ove.stream.modes import TokenView, to_tokens

PAPER_SHARE = 8
"""The paper keeps one patch in so many: 2,048 of 16,384."""


def write_shards(
    out: PathLike,
    samples: Samples,
    *,
    kind: Literal["video", "image"] = "video",
    size: int = 224,
    store: str | Sequence[str] = ("frames",),
    records_per_shard: int | None = None,
    path_column: str = "",
    label_column: str = "",
    label_folder: int = 0,
    root: PathLike = "",
    workers: int | None = None,
    replace: bool = False,
    progress: Callable[[WriteProgress], None] = lambda found: None,
    **video: Any,
) -> WriteSummary:
    """Writes videos or pictures with their labels into a folder of shards; called again, it goes on where it stopped.

    Args:
        out: the folder.
        samples: a folder whose subfolders are class names, a list (``.txt``, ``.csv``, ``.jsonl``), an archive, or an iterable
            of paths, ``(path, label)`` pairs or dictionaries with the keys of a list (docs/data_format.md).
        kind: what the files are.
        size: side in pixels of the square frames of videos.
        store: how frames are stored: ``"frames"`` (JPEG), ``"h264"``, ``"mosaics"``, or several.
        records_per_shard: by default 64 videos or 1,024 pictures.
        path_column: where a ``.csv`` or ``.jsonl`` list, or a dictionary, has the path; by default ``path``.
        label_column: the same for the class name; by default ``label``.
        label_folder: the class of a file is the n-th folder above it: 1, the folder that holds it; by default the topmost
            below ``samples``. In lists only where a file has no class name.
        root: the folder at which relative paths of a list start; by default the list's own.
        workers: processes, by default one a core; 0 for none but this one. Worker processes import the script that calls this:
            in a script, call it below ``if __name__ == "__main__":``.
        replace: write over a set of other samples or settings, which is deleted; otherwise it is refused.
        progress: called with how many files are done.
        **video: other keys of the video section (:class:`ove.config.VideoConfig`).

    Returns:
        What was written, and the files that were set aside with their reasons.

    Raises:
        BadClip: if no file can be used.
        ConfigError: for options that are unknown or do not go together.

    Examples:
        >>> ove.write_shards("shards", [("video.mp4", "run"), ("other.mp4", "jump")], size=84, workers=0).n_good
        2
    """
    if multiprocessing.parent_process() is not None:
        raise ConfigError(
            "ove.write_shards was called while a worker process imports your script; call it below "
            '`if __name__ == "__main__":`, or give workers=0.'
        )
    if kind not in ("video", "image"):
        raise ConfigError(f"kind = {kind!r} is none of video, image.")
    forms = tuple(store.split(",")) if isinstance(store, str) else tuple(store)
    shards = {"store": forms, "workers": workers, "records_per_shard": records_per_shard or (64 if kind == "video" else 1024)}
    reading = reading_of(path_column, label_column, label_folder, root)
    video_config = from_mapping(VideoConfig, {"size_px": size} | video, "video.")
    folder = local_path(out, "shards are written")
    if isinstance(samples, (str, os.PathLike)):
        config = from_mapping(ShardsConfig, shards | reading, "shards.")
        return write_source(kind, local_path(samples, "samples are read"), folder, video_config, config, progress, replace)
    config = from_mapping(ShardsConfig, shards, "shards.")
    rows = rows_of(samples, reading)
    if not rows:
        raise BadInput("samples is empty; give at least one file.")
    with tempfile.TemporaryDirectory(prefix="ove_") as scratch:
        listed = Path(scratch) / "samples.jsonl"
        write_json_lines(listed, rows)
        return write_source(kind, listed, folder, video_config, config, progress, replace)


def batches(
    shards: PathLike,
    *,
    batch_size: int = 16,
    mode: Literal["codec", "frames", "tiling", "image"] | None = None,
    budget: int | None = None,
    image_size: int = 224,
    shuffle: bool = False,
    seed: int = 0,
    epochs: int = 1,
    drop_last: bool = False,
    threads: int = 2,
    **selection: Any,
) -> Iterator[dict[str, Any]]:
    """Yields batches of patches, positions and class indices from a folder of shards, each record once an epoch.

    For pretraining against banks of centers see :class:`ove.stream.pipeline.Pipeline`, which resumes exactly.

    Args:
        shards: the folder, or its URI.
        batch_size: samples of a batch.
        mode: how records become patches; by default ``"codec"`` for videos, ``"image"`` for pictures.
        budget: patches of a clip; by default one in 8.
        image_size: side in pixels of the square to which pictures are brought.
        shuffle: draw the records of each epoch in another order, a function of ``seed``.
        epochs: how often all records are read.
        drop_last: leave out a last batch that is not full.
        threads: read ahead by so many threads.
        **selection: keys of the selection section (:class:`ove.config.SelectionConfig`), such as ``iframe_policy="score"``.

    Yields:
        A dictionary: ``patches`` (B, N, P) uint8, ``positions`` (B, N, 3) int32, ``labels`` (B,) int32, the index of the class
        name in ``ShardSet.open(shards).classes`` or -1 for none, and ``keys``, what the records are called.

    Raises:
        BadShard: for a folder or a record that is missing or damaged.
        ConfigError: for options that do not fit the shards.

    Examples:
        >>> for batch in ove.batches("shards", batch_size=2):
        ...     print(batch["patches"].shape, batch["labels"])
        (2, 288, 588) [0 1]
    """
    found = ShardSet.open(shards if isinstance(shards, str) else Path(shards))
    chosen = mode or ("codec" if found.kind == "video" else "image")
    if chosen not in MODES or (found.kind == "image" and chosen != "image"):
        raise ConfigError(f"mode = {chosen!r} does not fit {found.folder}, which holds {found.kind}s; leave it out.")
    for name, value in {"batch_size": batch_size, "epochs": epochs, "threads": threads}.items():
        if value < 1:
            raise ConfigError(f"{name} = {value} must be at least 1.")
    view = TokenView(budget or 1, from_mapping(SelectionConfig, selection, "selection."), size_px=image_size)
    if found.kind == "video":
        view = TokenView(budget or int(np.prod(found.grid_tyx)) // PAPER_SHARE, view.selection)
        view.check(found.grid_tyx, {MODES.index(chosen)})
    classes = {name: index for index, name in enumerate(found.classes)}

    def sample(index: int) -> dict[str, Any]:
        record = found.record(index)
        patches, positions = to_tokens(record, MODES.index(chosen), view, None)
        label = UNKNOWN if record.label is None else classes[record.label]
        return {"patches": patches, "positions": positions, "labels": np.int32(label), "keys": record.key}

    return _batched(sample, _order(len(found), shuffle, seed, epochs), batch_size, drop_last, threads)


def _order(n: int, shuffle: bool, seed: int, epochs: int) -> list[list[int]]:
    if not shuffle:
        return [list(range(n))] * epochs
    return [np.random.default_rng((seed, epoch)).permutation(n).tolist() for epoch in range(epochs)]


def _batched(
    sample: Callable[[int], dict[str, Any]], order: list[list[int]], batch_size: int, drop_last: bool, threads: int
) -> Iterator[dict[str, Any]]:
    """Stacks samples; no batch spans two epochs."""
    for epoch in order:
        with closing(prefetch(sample, epoch, threads, 2 * batch_size)) as samples:
            while now := list(itertools.islice(samples, batch_size)):
                if len(now) < batch_size and drop_last:
                    break
                stacked = {name: np.stack([one[name] for one in now]) for name in ("patches", "positions", "labels")}
                yield stacked | {"keys": [one["keys"] for one in now]}
