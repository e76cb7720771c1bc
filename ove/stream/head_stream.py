"""Fills the rows of batches: draws a record, reads it, turns it into tokens, and replaces it if that fails."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from ove.config import BatchesConfig, HeadConfig
from ove.errors import BadShard, ConfigError
from ove.records import BANKS, IMAGE, Batch
from ove.shards.labels import NONE
from ove.shards.schema import Record
from ove.stream.labelled import common_size, open_source
from ove.stream.modes import TokenView, to_tokens
from ove.stream.order import Order, schedule

_TRIES = 100
"""Maximum number of records tried per sample."""


@dataclass(frozen=True)
class BadRecord:
    """A record that could not be used."""

    shards: str
    """Folder of its set."""
    record: int
    """Index in its set."""
    key: str
    """Empty if it cannot be read."""
    reason: str


class HeadStream:
    """All samples of one head, by index; picklable."""

    def __init__(self, config: BatchesConfig, head: HeadConfig) -> None:
        """Opens the shards and labels of the head.

        BadShard if they are missing, ConfigError if they do not fit each other, the budget or the sizes.
        """
        folders = head.shards or ((config.shards,) if config.shards else ())
        if not folders:
            raise ConfigError(f"head {head.bank}: names no shards, and batches.shards is empty; name a folder.")
        self.bank: str = head.bank
        self.sources = tuple(open_source(Path(folder), head.bank) for folder in folders)
        self.shares = head.shares or (1.0,) * len(folders)
        self.n_centers = self._common_centers()
        self.n_labels = max(source.n_labels for source in self.sources)
        self.slow: set[tuple[int, int]] = set()
        """(source, record) of records that exceeded the time limit."""
        self._seed = config.seed, BANKS.index(head.bank)
        self._order = Order([len(source) for source in self.sources], self.shares, self._seed)
        is_video = head.bank == "vid"
        self.modes = schedule((config.share_codec, config.share_frames, config.share_tiling)) if is_video else (IMAGE,)
        size = 0 if is_video else common_size(self.sources, head.size_px, head.bank)
        self.view = TokenView(
            head.budget_tokens or config.budget_tokens,
            config.selection,
            config.patch_px,
            size,
            {"obj": "crop", "ocr": "centre", "vid": "none"}[head.bank] if head.augment == "auto" else head.augment,
        )
        self._check(config.patch_px)
        self.n_tokens = self.view.budget_tokens if is_video else (size // config.patch_px) ** 2

    def _common_centers(self) -> int:
        found = {str(source.shards.folder): source.n_centers for source in self.sources}
        if len(set(found.values())) > 1:
            raise ConfigError(
                f"head {self.bank}: its shard sets have different numbers of class centers, {found}; label all with the same."
            )
        return self.sources[0].n_centers

    def _check(self, patch_px: int) -> None:
        for source in self.sources:
            manifest = source.shards.manifest
            if manifest.patch_px not in (None, patch_px):
                raise ConfigError(
                    f"{source.shards.folder}: has patches of {manifest.patch_px} pixels, batches.patch_px is {patch_px}."
                )
            if self.modes != (IMAGE,):
                self.view.check(source.shards.grid_tyx, set(self.modes))

    def empty(self, rows: int) -> Batch:
        """Allocates a batch."""
        return Batch(
            patches=np.empty((rows, self.n_tokens, 3 * self.view.patch_px**2), np.uint8),
            positions=np.empty((rows, self.n_tokens, 3), np.int32),
            labels=np.full((rows, self.n_labels), NONE, np.int32),
            mode=np.empty(rows, np.int32),
            replaced=np.zeros(rows, bool),
            source=np.empty(rows, np.int32),
            record=np.empty(rows, np.int64),
        )

    def fill(self, batch: Batch, row: int, place: int, begins: Callable[[int, int], None]) -> list[BadRecord]:
        """Writes the sample with index `place` into a row of a batch; returns the bad records met.

        A record that cannot be used, or has no label, is replaced by another of its source, drawn by the place alone.
        `begins(source, record)` is called before each read. BadShard after too many bad records.
        """
        draw = self._order[place]
        source, mode = self.sources[draw.source], self.modes[draw.sample_index % len(self.modes)]
        bad: list[BadRecord] = []
        index = source.record_of(draw.item)
        others: np.random.Generator | None = None
        for attempt in range(_TRIES):
            begins(draw.source, index)
            key = ""
            try:
                record = self._read(draw.source, index)
                key = record.key
                labels = source.labels_of(index, record)
                if (labels != NONE).any():
                    rng = np.random.default_rng((*self._seed, 0, draw.source, index, draw.epoch))
                    _, batch.positions[row] = to_tokens(record, mode, self.view, rng, batch.patches[row])
                    batch.labels[row, : len(labels)], batch.labels[row, len(labels) :] = labels, NONE
                    batch.mode[row], batch.replaced[row] = mode, attempt > 0
                    batch.source[row], batch.record[row] = draw.source, index
                    return bad
            except BadShard as error:
                bad.append(BadRecord(str(source.shards.folder), index, key, str(error)))
            others = others or np.random.default_rng((*self._seed, 1, draw.source, draw.sample_index))
            index = source.record_of(int(others.integers(len(source))))
        raise BadShard(
            f"{source.shards.folder}: {_TRIES} records in a row cannot be used for the head {self.bank}"
            + (f" (the last: {bad[-1].reason})" if bad else f", for they have no labels of the bank {self.bank}")
            + "; check the folder with `ove verify`."
        )

    def _read(self, number: int, index: int) -> Record:
        shards = self.sources[number].shards
        if (number, index) in self.slow:
            raise BadShard(f"{shards.folder}: record {index} took longer than batches.decode_limit_s allows.")
        return shards.record(index)
