"""`ove show SHARDS [KEY]`: lists the keys of a shard folder, or prints and draws one record."""

import argparse
import difflib
import sys
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from ove.config import VideoConfig, limits
from ove.config.mapping import from_mapping
from ove.errors import BadShard, ConfigError
from ove.files import on_screen
from ove.paths import output_file
from ove.records import BANKS, Selection
from ove.shards.index import Name
from ove.shards.labels import NONE, read_labels
from ove.shards.remote.remote_shards import local_file
from ove.shards.schema import ImageRecord, Record, VideoRecord, decode_frames, decode_image
from ove.shards.shard_set import ShardSet
from ove.video.select import choose_patches
from ove.view.colours import masks
from ove.view.moments import moments
from ove.view.picture_file import was_drawn_here, write_picture
from ove.view.record import image_sheet, in_words, video_sheet
from ove.workers import Crew, Died

from .cli.command import command_parser, run_command
from .cli.numbers import number

_SUFFIX = ".arrayrecord"
_NEAR = 5
_BUDGET, _SHARE = 2048, 8
"""Patches shown for records without mosaics: 2,048 (spec §2), of small clips one in 8."""


def main(arguments: Sequence[str] | None = None) -> int:
    """Prints the keys, or prints and draws a record."""
    options = _parser().parse_args(arguments)
    shards, indices = open_shards(options.shards)
    if options.key is None and options.index is None:
        return _list(shards, indices, options.limit)
    index = options.index if options.key is None else find(shards, indices, options.key)
    if index not in indices:
        raise ConfigError(f"{options.shards}: has the records {indices.start} to {indices.stop - 1}, and none {index}.")
    record = shards.record(index)
    labels = labels_of(shards, index, record)
    print("\n".join(f"{name:15} {value}" for name, value in (("record", index), *fields_in_words(record, labels))))
    out = options.out or Path(f"{''.join(c if c.isalnum() or c in '-_.' else '_' for c in record.key)[-100:]}.png")
    out = output_file(out, "--out", (), was_drawn_here, options.replace)
    with Crew(partial(drawn, shards, record, labels), 1, limits().record_limit_s) as crew:
        picture = crew(options.budget)
    if isinstance(picture, Died):
        raise BadShard(f"{options.shards}: record {index} ({record.key}) cannot be drawn: {picture}; leave it out of the set.")
    write_picture(out, picture)
    print(f"drawn in        {out}")
    return 0


def open_shards(place: str) -> tuple[ShardSet, range]:
    """Opens a folder or URI, or one of its files; returns the shard set and the indices of the records."""
    if not place.endswith(_SUFFIX):
        shards = ShardSet.open(place)
        return shards, range(len(shards))
    folder, _, name = place.rpartition("/")
    shards, start = ShardSet.open(folder or "."), 0
    for shard in shards.manifest.shards:
        if shard.file == name:
            return shards, range(start, start + shard.records)
        start += shard.records
    raise BadShard(f"{place}: is none of the {len(shards.manifest.shards)} shards that the manifest of its folder names.")


def find(shards: ShardSet, indices: range, key: str) -> int:
    """Returns the index of the record with a key; ConfigError, naming similar keys, if there is none."""
    keys = []
    for index, (found, _) in _names(shards, indices):
        if found == key:
            return index
        keys.append(found)
    near = difflib.get_close_matches(key, keys, _NEAR) or [k for k in keys if key.lower() in k.lower()][:_NEAR]
    hint = f"did you mean {', '.join(near)}?" if near else "without KEY this command lists them."
    raise ConfigError(f"{shards.folder}: none of the {len(keys)} records has the key {key!r}; {hint}")


def labels_of(shards: ShardSet, index: int, record: Record) -> dict[str, np.ndarray]:
    """Returns the class centers of a record by bank, nearest first, from the label files, else from the record."""
    found = dict(record.labels)
    for bank in BANKS:
        if local_file(shards.folder, f"labels/{bank}.json").exists():
            row = np.asarray(read_labels(shards.folder, bank).labels[index])
            found[bank] = row[row != NONE]
    return found


def fields_in_words(record: Record, labels: dict[str, np.ndarray]) -> Iterator[tuple[str, str]]:
    """Yields (name, value in words) of every field."""
    for name, value in vars(record).items():
        if name == "labels":
            for bank, ids in labels.items():
                yield f"labels {bank}", in_words(ids, len(ids))
            if not labels:
                yield "labels", "none"
        elif name == "frame_index":
            yield name, f"{_words(value)}, {len(np.unique(value))} differ"
        else:
            yield name, _words(value)


def _words(value: Any) -> str:
    if isinstance(value, bytes):
        return f"{len(value):,} bytes" if value else "none"
    if isinstance(value, list):
        sizes = [len(data) for data in value]
        return f"{len(sizes)} JPEG files of {min(sizes):,} to {max(sizes):,} bytes" if sizes else "none"
    if isinstance(value, np.ndarray):
        if not value.size:
            return "none"
        shape = " × ".join(map(str, value.shape))
        if value.dtype == bool:
            kept = f": {', '.join(map(str, np.flatnonzero(value)))}" if value.ndim == 1 else ""
            return f"{shape}, {int(value.sum())} of {value.size} true{kept}"
        low, high, mean = (f"{float(f(value.astype(np.float64))):.4g}" for f in (np.min, np.max, np.mean))
        return f"{shape} {value.dtype}, {low} … {high}, mean {mean}"
    return "none" if value is None or value == "" else str(value)


def drawn(shards: ShardSet, record: Record, labels: dict[str, np.ndarray], budget: int | None) -> np.ndarray:
    """Draws the record (RGB)."""
    if isinstance(record, ImageRecord):
        return image_sheet(record, decode_image(record), labels)
    selection = shown_selection(shards, record, budget)
    shown = moments(masks(selection.flat, selection.grid_tyx), columns=8)
    return video_sheet(record, shown, decode_frames(record, [int(t) for t in shown]), selection, labels)


def shown_selection(shards: ShardSet, record: VideoRecord, budget: int | None) -> Selection:
    """Returns the patches of the record's mosaics, or without them or for another budget, a selection as in training."""
    if len(record.mosaic_flat) and budget is None:
        return Selection(record.mosaic_flat.astype(np.int32), record.grid_tyx)
    n_patches = int(np.prod(record.grid_tyx))
    whole = n_patches // len(record.is_i_frame) * int(record.is_i_frame.sum())
    made_with = from_mapping(VideoConfig, shards.manifest.made_with.get("video", {}), "made_with.video.")
    tokens = budget or max(whole, min(_BUDGET, n_patches // _SHARE))
    return choose_patches(record.scored, record.is_i_frame, tokens, made_with.selection)


def _list(shards: ShardSet, indices: range, limit: int | None) -> int:
    for index, (key, label) in _names(shards, indices if limit is None else indices[:limit]):
        print(index, on_screen(key), on_screen(label or ""), sep="\t")
    if limit is not None and limit < len(indices):
        print(f"… and {len(indices) - limit:,} more", file=sys.stderr)
    return 0


def _names(shards: ShardSet, indices: range) -> Iterator[tuple[int, Name]]:
    """Yields names from the index; in a set without one those of readable records, the others are named on stderr."""
    for index in indices:
        if shards.manifest.index:
            yield index, shards.names[index]
            continue
        try:
            record = shards.record(index)
            yield index, (record.key, record.label)
        except BadShard as error:
            print(f"record {index}: {error}", file=sys.stderr)


def _parser() -> argparse.ArgumentParser:
    parser = command_parser("show", __doc__)
    parser.add_argument("shards", metavar="SHARDS", help="a shard folder, one of its .arrayrecord files, or the URI of either")
    parser.add_argument("key", nargs="?", metavar="KEY", help="of the record to show; without it all keys are listed")
    parser.add_argument("--index", type=number(0), metavar="N", help="the record by its number instead of its key (faster)")
    parser.add_argument("--limit", type=number(1), metavar="N", help="list no more than so many keys")
    parser.add_argument("--budget", type=number(1), metavar="N", help="patches shown as kept (default: as stored, else 2048)")
    parser.add_argument("--out", type=Path, metavar="FILE", help="name of the picture (default: the key with .png)")
    parser.add_argument("--replace", action="store_true", help="overwrite a file that this command has not written")
    return parser


if __name__ == "__main__":
    run_command(main)
