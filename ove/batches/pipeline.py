"""Shards → a resumable, endless iterator of one Batch a head: grain reads, decodes and batches in threads.

Which record comes at which place of the stream is a function of (seed, place); what a bad record is replaced by, too. So the
stream can be taken up at any step, whatever the number of hosts and threads.
"""

import hashlib
import json
import zlib
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import grain
import numpy as np
from grain.experimental import ElasticIterator

from ove.batches.modes import IMAGE, View, schedule, see
from ove.config import BatchesConfig, HeadConfig
from ove.errors import BadShard, ConfigError, TrainingStopped
from ove.records import Batch, Example
from ove.shards.labels import Labels, read_labels
from ove.shards.read import ShardSet

OnBad = Callable[[int, str], None]
"""Is told the index of a bad record and what is wrong with it, once a record; called from the reading threads."""
_REPLACEMENTS = 16
"""Other records tried in the place of a bad one."""
_JUDGE_AFTER = 200
"""Samples before the share of bad ones is judged."""


@dataclass(frozen=True)
class Progress:
    """How far a stream has been read; all that a checkpoint must hold of it. JSON by `dataclasses.asdict`."""

    step: int = 0
    """Batches taken of each head."""
    replaced: int = 0
    """Samples of this process that stood in for bad records."""
    order: int = 0
    """CRC-32 of the indices of all records taken so far: equal for two runs that have seen the same data."""


class Pipeline:
    """Endless batches of every head, this process's part of them."""

    def __init__(
        self, config: BatchesConfig, process_index: int = 0, process_count: int = 1, on_bad: OnBad | None = None
    ) -> None:
        """Opens the shards and labels that `config` names.

        BadShard if they are missing, ConfigError if the budget or a batch size does not fit.
        """
        folder = Path(config.shards)
        shards = ShardSet.open(folder)
        labels: dict[str, Labels] = {head.bank: read_labels(folder, head.bank) for head in config.heads}
        view = View(config.budget_tokens, config.gop_frames, config.iframe_policy)
        self.config = config
        self.n_centers = {bank: found.n_centers for bank, found in labels.items()}
        self.fingerprint = _fingerprint(shards, labels)
        self.progress = Progress()
        self._samples = sum(head.batch_size for head in config.heads) // process_count
        self._iterators: dict[str, ElasticIterator] = {}
        for number, head in enumerate(config.heads):
            if head.batch_size % process_count:
                raise ConfigError(
                    f"batch_size {head.batch_size} of head {head.bank} cannot be split over {process_count} processes."
                )
            pattern = _pattern(config, head)
            view.check(shards.grid_tyx, set(pattern))
            load = _Load(shards, labels[head.bank].labels, pattern, view, config.seed + 1000 * number, on_bad)
            records = grain.MapDataset.range(len(shards)).seed(config.seed + number).shuffle().repeat()
            # A thread makes a whole batch, so `threads + 1` batches of this head are held in memory at most.
            self._iterators[head.bank] = ElasticIterator(
                records.map_with_index(load),
                head.batch_size,
                grain.sharding.ShardOptions(process_index, process_count),
                read_options=grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=config.threads + 1),
            )

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> dict[str, Batch]:
        """The next batch by bank; TrainingStopped past `max_bad_share`, BadShard if no replacement can be found."""
        batches = {bank: Batch(**next(iterator)) for bank, iterator in self._iterators.items()}
        before, order = self.progress, self.progress.order
        for batch in batches.values():
            order = zlib.crc32(batch.record.tobytes(), order)
        replaced = before.replaced + sum(int(batch.replaced.sum()) for batch in batches.values())
        self.progress = Progress(before.step + 1, replaced, order)
        seen = self.progress.step * self._samples
        if seen >= _JUDGE_AFTER and replaced > self.config.max_bad_share * seen:
            raise TrainingStopped(
                f"{replaced} of {seen} records were bad, more than batches.max_bad_share = {self.config.max_bad_share:g} "
                f"allows; check the shards with `python -m launch.shards --verify --out {self.config.shards}`."
            )
        return batches

    def restore(self, progress: Progress) -> None:
        """Continues where a stream of the same configuration and data had got to."""
        self.progress = progress
        for head in self.config.heads:
            self._iterators[head.bank].set_state({"global_next_index": progress.step * head.batch_size})

    def close(self) -> None:
        """Stops the threads."""
        for iterator in self._iterators.values():
            iterator.close()


class _Load:
    """(place in the stream, record) → example as a dictionary; what replaces a bad record depends on the place alone."""

    def __init__(
        self, shards: ShardSet, labels: np.ndarray, pattern: tuple[int, ...], view: View, seed: int, on_bad: OnBad | None
    ) -> None:
        self.shards, self.labels, self.pattern, self.view, self.seed = shards, labels, pattern, view, seed
        self.on_bad = on_bad
        self.known_bad: set[int] = set()

    def __call__(self, place: int, record: int) -> dict[str, Any]:
        mode = self.pattern[place % len(self.pattern)]
        rng = np.random.default_rng((self.seed, place))
        replaced = False
        for _ in range(_REPLACEMENTS):
            try:
                patches, positions = see(self.shards.video(record), mode, self.view, rng)
            except BadShard as error:
                self._set_aside(record, str(error))
                replaced = True
                record = int(rng.integers(len(self.shards)))
                continue
            example = Example(patches, positions, self.labels[record], mode, replaced, record)
            return {**vars(example), "mode": np.int32(mode)}
        raise BadShard(
            f"{self.shards.folder}: {_REPLACEMENTS} records in a row are bad; run launch.shards again for this folder."
        )

    def _set_aside(self, record: int, reason: str) -> None:
        if record not in self.known_bad:
            self.known_bad.add(record)
            if self.on_bad is not None:
                self.on_bad(record, reason)


def _pattern(config: BatchesConfig, head: HeadConfig) -> tuple[int, ...]:
    if head.bank == "obj":
        return (IMAGE,)
    return schedule((config.share_codec, config.share_frames, config.share_tiling))


def _fingerprint(shards: ShardSet, labels: Mapping[str, Labels]) -> str:
    """Of the records and their labels; a run that resumes with others would not be the same run."""
    data = {"shards": shards.fingerprint}
    data |= {bank: hashlib.sha256(found.labels.tobytes()).hexdigest() for bank, found in labels.items()}
    return hashlib.sha256(json.dumps(data, sort_keys=True).encode()).hexdigest()[:16]
