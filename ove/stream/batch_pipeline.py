"""Shards → a resumable, endless iterator of one Batch a head.

The record at each place of the stream, its crop, and its replacement if it is bad are functions of (seed, place). So the stream
can be resumed at any step, by any number of hosts, processes and threads; its whole state is the step.
"""

import json
import zlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ove.config import BatchesConfig
from ove.errors import BadShard, ConfigError, TrainingStopped
from ove.files import digest
from ove.records import Batch
from ove.stream.batch_builder import BatchBuilder
from ove.stream.head_stream import BadRecord, HeadStream
from ove.stream.readahead import ReadAhead

OnBad = Callable[[BadRecord], None]
"""Called once per bad record, when the first affected batch is consumed."""
_JUDGE_AFTER = 200
"""Samples before `max_bad_share` applies."""


@dataclass(frozen=True)
class StreamProgress:
    """How far a stream has been read; `step` is its whole state, the rest is for logs. JSON by `asdict`."""

    step: int = 0
    """Batches taken of each head."""
    replaced: int = 0
    """Samples of this process that replaced bad records."""
    order: int = 0
    """CRC-32 of all records of this process so far: equal for runs that have seen the same data."""


class Pipeline:
    """Endless batches of every head, of which this process builds its rows."""

    def __init__(
        self, config: BatchesConfig, process_index: int = 0, process_count: int = 1, on_bad: OnBad | None = None
    ) -> None:
        """Opens the shards and labels that `config` names.

        Process i of n builds the i-th of n equal blocks of rows. BadShard if shards or labels are missing, ConfigError if they,
        the budget, a size or a batch size do not fit.
        """
        _check_shards_are_read(config)
        self.config = config
        self.streams = {str(head.bank): HeadStream(config, head) for head in config.heads}
        self.n_centers = {bank: stream.n_centers for bank, stream in self.streams.items()}
        self.mixture = _mixture(config, self.streams)
        self.fingerprint = digest(self.mixture)[:16]
        self.progress = StreamProgress()
        self._on_bad, self._told = on_bad, set[tuple[str, int]]()
        self._builders = [
            BatchBuilder(
                self.streams[head.bank],
                head.batch_size,
                _rows(head.bank, head.batch_size, process_index, process_count),
                config.decode_limit_s,
            )
            for head in config.heads
        ]
        self._samples = sum(len(builder.rows) for builder in self._builders)
        self._ahead = ReadAhead(self._builders, config.threads, config.num_workers)

    def __iter__(self) -> "Pipeline":
        return self

    def __next__(self) -> dict[str, Batch]:
        """Returns the next batch by bank; TrainingStopped above `max_bad_share`, BadShard if no replacement is found."""
        before, order, replaced = self.progress, self.progress.order, self.progress.replaced
        batches = {}
        for bank in self.streams:
            part = next(self._ahead)
            bad = part.pop("bad")
            batch = batches[bank] = Batch(**part)
            order = zlib.crc32(batch.record.tobytes(), zlib.crc32(batch.source.tobytes(), order))
            replaced += len({row for row, _ in bad})
            self._tell(record for _, record in bad)
        self.progress = StreamProgress(before.step + 1, replaced, order)
        self._judge()
        return batches

    def restore(self, progress: StreamProgress) -> None:
        """Continues where a stream of the same mixture stopped."""
        self.progress = progress
        self._ahead.go_to(progress.step)

    def key_of(self, bank: str, source: int, record: int) -> str:
        """Returns the key of a record, or FOLDER#INDEX for a damaged one."""
        shards = self.streams[bank].sources[source].shards
        try:
            return shards.record(record).key
        except BadShard:
            return f"{shards.folder}#{record}"

    def close(self) -> None:
        """Ends the threads and processes."""
        self._ahead.close()

    def _tell(self, found: Iterator[BadRecord]) -> None:
        for bad in found:
            if self._on_bad is not None and (bad.shards, bad.record) not in self._told:
                self._told.add((bad.shards, bad.record))
                self._on_bad(bad)

    def _judge(self) -> None:
        seen, replaced = self.progress.step * self._samples, self.progress.replaced
        if seen >= _JUDGE_AFTER and replaced > self.config.max_bad_share * seen:
            folders = {str(source.shards.folder) for stream in self.streams.values() for source in stream.sources}
            raise TrainingStopped(
                f"{replaced} of {seen} records were bad, more than batches.max_bad_share = {self.config.max_bad_share:g} "
                f"allows; check the shards with `ove verify {' '.join(sorted(folders))}`."
            )


def _check_shards_are_read(config: BatchesConfig) -> None:
    """Raises ConfigError for a `batches.shards` that no head reads, since each names its own."""
    if config.shards and config.heads and all(head.shards for head in config.heads):
        own = "; ".join(f"{head.bank}: {', '.join(head.shards)}" for head in config.heads)
        raise ConfigError(
            f"batches.shards = {config.shards!r} is not read: every head names shards of its own ({own}); set shards in "
            "batches.heads, or take it out of each head that is to read batches.shards."
        )


def mixture_differences(saved: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """Returns `heads.vid.sources[0].labels: 1a2b3c → 4d5e6f` for each difference of two mixtures (`Pipeline.mixture`)."""
    before, after = dict(_flat(saved)), dict(_flat(now))
    return [
        f"{name}: {_short(before.get(name))} → {_short(after.get(name))}"
        for name in sorted(before.keys() | after.keys())
        if before.get(name) != after.get(name)
    ]


def _mixture(config: BatchesConfig, streams: Mapping[str, HeadStream]) -> dict[str, Any]:
    """Returns as JSON all settings that decide which sample comes when, and its contents."""
    heads = {
        head.bank: {
            "batch_size": head.batch_size,
            "modes": list(streams[head.bank].modes),
            "view": streams[head.bank].view.about(),
            "sources": [
                {"shards": source.shards.fingerprint, "labels": source.labels_fingerprint, "share": share}
                for source, share in zip(streams[head.bank].sources, streams[head.bank].shares, strict=True)
            ],
        }
        for head in config.heads
    }
    return json.loads(json.dumps({"seed": config.seed, "heads": heads}))


def _rows(bank: str, batch_size: int, process_index: int, process_count: int) -> range:
    if batch_size % process_count:
        raise ConfigError(f"batch_size {batch_size} of head {bank} cannot be split over {process_count} processes.")
    rows = batch_size // process_count
    return range(process_index * rows, (process_index + 1) * rows)


def _flat(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _flat(item, f"{name}.{key}" if name else key)
    elif isinstance(value, Sequence) and not isinstance(value, str) and any(isinstance(item, Mapping) for item in value):
        for index, item in enumerate(value):
            yield from _flat(item, f"{name}[{index}]")
    else:
        yield name, value


def _short(value: Any) -> str:
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 40 else f"{text[:12]}…"
