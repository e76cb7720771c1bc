"""`ove.write_shards` and `ove.batches`: labelled files → shards → batches."""

import itertools
import json
import os
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from pathlib import Path
from typing import Any, Literal

import numpy as np

from ove.api.arguments import arguments, folder_to_write, local_path, path_given, refuse
from ove.api.samples import PathLike, Samples, check_listing, materialised, reading_of, rows_of
from ove.config import SelectionConfig, ShardsConfig, VideoConfig
from ove.config.mapping import from_mapping
from ove.config.section import Count, Natural, hints_of
from ove.errors import BadInput, ConfigError, OveError
from ove.files import write_text
from ove.paths import uri_of
from ove.prefetch import prefetch
from ove.probing.dataset import UNKNOWN
from ove.records import MODES
from ove.shards.assemble import WriteSummary
from ove.shards.make import write_source
from ove.shards.shard_set import ShardSet
from ove.shards.write import WriteProgress
from ove.stream.modes import TokenView, to_tokens
from ove.workers import check_may_start

PAPER_SHARE = 8
"""The paper keeps one patch in so many: 2,048 of 16,384."""


@arguments(video__size_px="size")
def write_shards(
    out: PathLike,
    samples: Samples,
    *,
    kind: Literal["video", "image"] = "video",
    size: Count | None = None,
    store: str | Sequence[str] | None = None,
    records_per_shard: Count | None = None,
    path_column: str = "",
    label_column: str = "",
    label_folder: Natural = 0,
    root: PathLike = "",
    workers: Natural | None = None,
    replace: bool = False,
    progress: Callable[[WriteProgress], None] = lambda found: None,
    **settings: Any,
) -> WriteSummary:
    """Writes videos or pictures with their labels into a folder of shards; called again, it goes on where it stopped.

    Args:
        out: the folder.
        samples: a folder whose subfolders are class names, a list (``.txt``, ``.csv``, ``.jsonl``), an archive, or an iterable
            of paths, ``(path, label)`` pairs or dictionaries with the keys of a list (docs/data_format.md).
        kind: what the files are.
        size: of videos: side in pixels of the square frames, by default 224.
        store: of videos: how frames are stored: ``"frames"`` (JPEG, the default), ``"h264"``, ``"mosaics"``, or several.
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
        **settings: other keys of the video section (:class:`ove.config.VideoConfig`), for videos, and of the shards section
            (:class:`ove.config.ShardsConfig`), such as ``jpeg_quality=95``.

    Returns:
        What was written, and the files that were set aside with their reasons.

    Raises:
        BadClip: if no file can be used.
        ConfigError: for options that are unknown or do not go together, and an ``out`` that cannot be written to.

    Examples:
        >>> ove.write_shards("shards", [("video.mp4", "run"), ("other.mp4", "jump")], size=84, workers=0).n_good
        2
    """
    check_may_start()
    reading = reading_of(path_column, label_column, label_folder, root)
    video, others = _sections(kind, size, store, settings)
    count = records_per_shard or (64 if kind == "video" else 1024)
    shards = others | {"workers": workers, "records_per_shard": count}
    samples = materialised(samples, "samples")
    if isinstance(samples, (str, os.PathLike)):
        check_listing(samples, reading)
        config = from_mapping(ShardsConfig, shards | reading, "shards.")
        source = local_path(samples, "samples", "samples are read")
        folder = folder_to_write(out, "out", [source])
        return write_source(kind, source, folder, video, config, progress, replace)
    config = from_mapping(ShardsConfig, shards, "shards.")
    rows = rows_of(samples, reading)
    if not rows:
        raise BadInput("samples is empty; give at least one file.")
    folder = folder_to_write(out, "out")
    with tempfile.TemporaryDirectory(prefix="ove_") as scratch:
        listed = Path(scratch) / "samples.jsonl"
        write_text(listed, "".join(json.dumps(row) + "\n" for row in rows))
        try:
            return write_source(kind, listed, folder, video, config, progress, replace)
        except OveError as error:
            error.args = (str(error).replace(str(listed), "samples"), *error.args[1:])
            raise


def _sections(
    kind: str, size: int | None, store: str | Sequence[str] | None, settings: dict[str, Any]
) -> tuple[VideoConfig, dict[str, Any]]:
    """Returns the video section and keys of the shards section; ConfigError for what this kind of shards does not have."""
    others = {name: value for name, value in settings.items() if name in hints_of(ShardsConfig)}
    video = {name: value for name, value in settings.items() if name not in others}
    if "size_px" in video:
        raise ConfigError(f"unexpected argument size_px; give size={video['size_px']!r:.60}.")
    made = from_mapping(VideoConfig, ({} if size is None else {"size_px": size}) | video, "video.")
    if kind == "image":
        of_videos = {name: others.get(name) for name in ("h264_crf", "budget_tokens")}
        refuse({"size": size, "store": store, **video, **of_videos}, "videos", "kind = 'image'")
        return made, others
    refuse({"max_side_px": others.get("max_side_px")}, "pictures", "kind = 'video'")
    forms = ("frames",) if store is None else tuple(store.split(",")) if isinstance(store, str) else tuple(store)
    for name, form in {"jpeg_quality": "frames", "h264_crf": "h264", "budget_tokens": "mosaics"}.items():
        if form not in forms:
            refuse({name: others.get(name)}, f"store = {form!r}", f"store = {', '.join(map(str, forms))}")
    return made, others | {"store": forms}


@arguments(selection="", budget_tokens="budget")
def batches(
    shards: PathLike,
    *,
    batch_size: Count = 16,
    mode: Literal["codec", "frames", "tiling", "image"] | None = None,
    budget: Count | None = None,
    image_size: Count | None = None,
    shuffle: bool = False,
    seed: Natural = 0,
    epochs: Count = 1,
    drop_last: bool = False,
    threads: Count = 2,
    **selection: Any,
) -> Iterator[dict[str, Any]]:
    """Yields batches of patches, positions and class indices from a folder of shards, each record once an epoch.

    For pretraining against banks of centers see :class:`ove.stream.pipeline.Pipeline`, which resumes exactly.

    Args:
        shards: the folder, or its URI.
        batch_size: samples of a batch.
        mode: how records become patches; by default ``"codec"`` for videos, ``"image"`` for pictures.
        budget: patches of a clip, by default one in 8; not of pictures (mode image).
        image_size: of shards of pictures: side in pixels of the square to which they are brought, by default 224.
        shuffle: draw the records of each epoch in another order, a function of ``seed``.
        seed: of ``shuffle``; without it, nothing is random.
        epochs: how often all records are read.
        drop_last: leave out a last batch that is not full.
        threads: read ahead by so many threads.
        **selection: in mode codec, keys of the selection section (:class:`ove.config.SelectionConfig`), such as
            ``iframe_policy="score"``.

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
    given = path_given(shards, "shards")
    found = ShardSet.open(given if uri_of(given) else local_path(given, "shards", "shards are read"))
    chosen = mode or ("codec" if found.kind == "video" else "image")
    if found.kind == "image" and chosen != "image":
        raise ConfigError(f"mode = {chosen!r} does not fit {found.folder}, which holds {found.kind}s; leave it out.")
    chosen_patches = from_mapping(SelectionConfig, selection, "selection.")
    if chosen == "image":
        refuse({"budget": budget}, "clips", "mode = 'image' takes whole pictures")
    if chosen != "codec":
        refuse(selection, "mode codec", f"mode = {chosen!r}")
    if found.kind == "video":
        refuse({"image_size": image_size}, "shards of pictures", f"{found.folder} holds videos of one size")
        view = TokenView(budget or int(np.prod(found.grid_tyx)) // PAPER_SHARE, chosen_patches)
        view.check(found.grid_tyx, {MODES.index(chosen)})
    else:
        view = TokenView(1, size_px=image_size or 224)
        if view.size_px % view.patch_px:
            raise ConfigError(f"image_size = {image_size} is not a multiple of the patch side {view.patch_px}.")
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
