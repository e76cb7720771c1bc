"""What the text tags do to one shard: `read` its pictures, `count` the words, `tag` the records.

Each is a `process(argument, path)` of `ove.labels.engines`: it depends on its argument and the files named there alone.
"""

import functools
import json
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from ove.config import TextConfig
from ove.errors import BadShard
from ove.labels.text.ocr import OcrReader
from ove.labels.text.vocabulary import cached_vocabulary, tags_of, write_counts
from ove.labels.text.words import script, words
from ove.shards.manifest import read_manifest
from ove.shards.schema import ImageRecord, Record, decode_frames, decode_image
from ove.shards.shard_set import ShardSet


@dataclass(frozen=True)
class ShardText:
    """One shard to read, count or tag."""

    folder: Path
    fingerprint: str
    """Of the shard set."""
    first: int
    """Index of the shard's first record in the set."""
    records: int
    config: TextConfig
    texts: Path
    """Output of `read` (for `count` and `tag`)."""
    vocabulary: Path | None = None
    vocabulary_fingerprint: str = ""
    """For `tag`."""


def read(shard: ShardText, path: Path) -> dict[str, Any]:
    """Reads the text in a shard's pictures, or the middle frames of its videos, as a JSON line `{key, lines}` for each record.

    `lines`: all pairs of text and confidence; low ones are dropped later. BadShard for a record that cannot be decoded.
    """
    shards, reader = _open(shard.folder, shard.fingerprint), _reader(shard.config.side_px, shard.config.turned)
    with_text = n_lines = 0
    with path.open("w", encoding="utf-8", newline="\n") as handle:
        for index in range(shard.first, shard.first + shard.records):
            record = shards.record(index)
            lines = [[line.text, line.confidence] for line in reader.lines(_picture(record))]
            handle.write(json.dumps({"key": record.key, "lines": lines}, ensure_ascii=False) + "\n")
            with_text += bool(lines)
            n_lines += len(lines)
    return {"pictures": shard.records, "with_lines": with_text, "lines": n_lines}


def count(shard: ShardText, path: Path) -> dict[str, Any]:
    """Counts the words of a shard's texts (`ove.labels.text.vocabulary.write_counts`); returns them by script."""
    counts: Counter[str] = Counter()
    with_words = 0
    for _, found in _records(shard):
        counts.update(found)
        with_words += bool(found)
    write_counts(path, counts)
    scripts: Counter[str] = Counter()
    for word, times in counts.items():
        scripts[script(word)] += times
    return {
        "pictures": shard.records,
        "with_words": with_words,
        "words": counts.total(),
        "scripts": dict(sorted(scripts.items())),
    }


def tag(shard: ShardText, path: Path) -> dict[str, Any]:
    """Writes the tags of a shard's records as a NumPy array, int32 (records, n_tags); −1 where a record has none."""
    assert shard.vocabulary is not None
    vocabulary = cached_vocabulary(shard.vocabulary, shard.vocabulary_fingerprint)
    config = shard.config
    tags = [tags_of(found, vocabulary, config.n_tags, config.seed, key) for key, found in _records(shard)]
    if len(tags) != shard.records:
        raise BadShard(f"{shard.texts}: holds {len(tags)} records, the shard {shard.records}; delete the file and start again.")
    rows = np.stack(tags)
    with path.open("wb") as handle:
        np.save(handle, rows)
    return {"pictures": shard.records, "tagged": int((rows[:, 0] >= 0).sum())}


def _records(shard: ShardText) -> Iterator[tuple[str, list[str]]]:
    """Yields (key, words of lines of sufficient confidence) for each record."""
    with shard.texts.open(encoding="utf-8", newline="\n") as handle:
        for row in handle:
            record = json.loads(row)
            sure = [text for text, confidence in record["lines"] if confidence >= shard.config.min_confidence]
            yield record["key"], [word for text in sure for word in words(text)]


def _picture(record: Record) -> np.ndarray:
    if isinstance(record, ImageRecord):
        return decode_image(record)
    return decode_frames(record, [len(record.frame_index) // 2])[0]


@functools.lru_cache(maxsize=1)
def _reader(side_px: int, turned: bool) -> OcrReader:
    return OcrReader(side_px, turned)


@functools.lru_cache(maxsize=4)
def _open(folder: Path, fingerprint: str) -> ShardSet:
    """Opens a shard set once per process, without checking its shards."""
    manifest = read_manifest(folder)
    if manifest.fingerprint != fingerprint:
        raise BadShard(f"{folder}: its shards have changed since this step began; start the command again.")
    return ShardSet(folder, manifest)
