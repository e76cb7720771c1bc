"""Shards → a resumable, endless iterator of one Batch a head: grain reads, decodes and batches in threads.

Which record comes at which place of the stream is a function of (seed, place); what a bad record is replaced by, too. So the
state of the stream is one integer, the number of steps taken, whatever the number of hosts and threads.
"""

import dataclasses
import hashlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import grain
import numpy as np
from absl import logging
from grain.experimental import ElasticIterator

from ove.batches.modes import IMAGE, View, schedule, see
from ove.config import BatchesConfig, HeadConfig
from ove.errors import BadShard, ConfigError, TrainingStopped
from ove.records import Batch, Example
from ove.shards.labels import Labels, read_labels
from ove.shards.read import ShardSet

_REPLACEMENTS = 16
"""Other records tried in the place of a bad one."""
_JUDGE_AFTER = 200
"""Samples before the share of bad ones is judged."""


class _Load:
    """(place in the stream, record) → example as a dictionary; what replaces a bad record depends on the place alone."""

    def __init__(self, shards: ShardSet, labels: np.ndarray, pattern: tuple[int, ...], view: View, seed: int) -> None:
        self.shards, self.labels, self.pattern, self.view, self.seed = shards, labels, pattern, view, seed

    def __call__(self, place: int, record: int) -> dict[str, np.ndarray]:
        mode = self.pattern[place % len(self.pattern)]
        rng = np.random.default_rng((self.seed, place))
        replaced = False
        for _ in range(_REPLACEMENTS):
            try:
                patches, positions = see(self.shards.record(record), mode, self.view, rng)
            except BadShard as error:
                logging.warning("record %d set aside: %s", record, error)
                replaced = True
                record = int(rng.integers(len(self.shards)))
                continue
            example = Example(patches, positions, self.labels[record], mode, replaced, record)
            return {field.name: np.asarray(getattr(example, field.name)) for field in dataclasses.fields(example)}
        raise BadShard(
            f"{self.shards.folder}: {_REPLACEMENTS} records in a row are bad; run launch.shards again for this folder."
        )


class Pipeline:
    """Endless batches of every head, this process's part of them; `step` is all there is to save and restore."""

    def __init__(self, config: BatchesConfig, process_index: int = 0, process_count: int = 1) -> None:
        """Opens the shards and labels that `config` names.

        BadShard if they are missing, ConfigError if the budget or a batch size does not fit.
        """
        folder = Path(config.shards)
        shards = ShardSet.open(folder)
        labels: dict[str, Labels] = {head.bank: read_labels(folder, head.bank) for head in config.heads}
        self.config = config
        self.n_centers = {bank: found.n_centers for bank, found in labels.items()}
        self.step = 0
        self.seen = 0
        self.replaced = 0
        self._iterators: dict[str, Any] = {}
        view = View(config.budget_tokens, config.gop_frames, config.iframe_policy)
        view.frames_of_budget(shards.grid_tyx)
        for number, head in enumerate(config.heads):
            if head.batch_size % process_count:
                raise ConfigError(
                    f"batch_size {head.batch_size} of head {head.bank} cannot be split over {process_count} processes."
                )
            load = _Load(shards, labels[head.bank].labels, _pattern(config, head), view, config.seed + 1000 * number)
            records = grain.MapDataset.range(len(shards)).seed(config.seed + number).shuffle().repeat()
            self._iterators[head.bank] = ElasticIterator(
                records.map_with_index(load),
                head.batch_size,
                grain.sharding.ShardOptions(process_index, process_count),
                read_options=grain.ReadOptions(num_threads=config.threads, prefetch_buffer_size=2 * config.threads),
            )
        self.fingerprint = _fingerprint(config, shards, labels)

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> dict[str, Batch]:
        batches = {bank: Batch(**next(iterator)) for bank, iterator in self._iterators.items()}
        self.step += 1
        self.seen += sum(len(batch.replaced) for batch in batches.values())
        self.replaced += sum(int(batch.replaced.sum()) for batch in batches.values())
        if self.seen >= _JUDGE_AFTER and self.replaced > self.config.max_bad_share * self.seen:
            raise TrainingStopped(
                f"{self.replaced} of {self.seen} records were bad, more than batches.max_bad_share = "
                f"{self.config.max_bad_share:g} allows; check the shards in {self.config.shards}."
            )
        return batches

    def restore(self, step: int) -> None:
        """Continues as if `step` batches had been taken."""
        self.step = step
        for head in self.config.heads:
            self._iterators[head.bank].set_state({"global_next_index": step * head.batch_size})

    def close(self) -> None:
        """Stops the threads."""
        for iterator in self._iterators.values():
            iterator.close()


def _pattern(config: BatchesConfig, head: HeadConfig) -> tuple[int, ...]:
    if head.bank == "obj":
        return (IMAGE,)
    return schedule((config.share_codec, config.share_frames, config.share_tiling))


def _fingerprint(config: BatchesConfig, shards: ShardSet, labels: Mapping[str, Labels]) -> str:
    """Of all that decides which sample comes when; a run that resumes with another one would not be the same run."""
    decides = dataclasses.asdict(config)
    for free in ("shards", "threads", "max_bad_share"):
        decides.pop(free)
    decides["data"] = shards.fingerprint
    decides["labels"] = {bank: hashlib.sha256(found.labels.tobytes()).hexdigest() for bank, found in labels.items()}
    return hashlib.sha256(json.dumps(decides, sort_keys=True).encode()).hexdigest()[:16]
