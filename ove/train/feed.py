"""Prefetches batches to the devices: a thread makes, checks and moves them ahead of the step that takes them."""

import queue
import threading
from collections.abc import Mapping
from dataclasses import dataclass

import jax
from jax.sharding import Sharding
from jaxtyping import Array

from ove.centers.sample import check_labels
from ove.records import Batch
from ove.stream.batch_pipeline import Pipeline, StreamProgress

_NAMES = "patches", "positions", "labels"
_LOOK_S = 0.5
"""Seconds between two checks of a waiting thread whether to end."""


@dataclass(frozen=True)
class DeviceBatch:
    """A batch of every bank, on the host and on the devices."""

    batches: dict[str, Batch]
    """By bank; this process's rows."""
    arrays: dict[str, dict[str, Array]]
    """By bank: `patches` (B, N, P) uint8, `positions` (B, N, 3) and `labels` (B, M) int32, of all processes."""
    progress: StreamProgress
    """Position in the stream after this batch; saved with the checkpoint of its step."""


class DevicePrefetcher:
    """Endless `DeviceBatch`, `depth` of them ahead of the one that was handed out last."""

    def __init__(self, pipeline: Pipeline, sharding: Sharding, n_centers: Mapping[str, int], depth: int = 2) -> None:
        """Starts to read at the pipeline's position; until `close` the pipeline must not be used by others.

        `sharding` of the samples of a batch over the devices of all processes; BadInput comes with the first batch that has a
        label which is not −1 … `n_centers` − 1.
        """
        self._pipeline, self._sharding, self._n_centers = pipeline, sharding, dict(n_centers)
        self._ready: queue.Queue[DeviceBatch | BaseException] = queue.Queue(max(depth, 1))
        self._ends = threading.Event()
        self._thread = threading.Thread(target=self._run, name="feed", daemon=True)
        self._thread.start()

    def __iter__(self) -> "DevicePrefetcher":
        return self

    def __next__(self) -> DeviceBatch:
        """Returns the next batch; an error in making it is raised here, after all earlier batches."""
        while True:
            try:
                batch = self._ready.get(timeout=_LOOK_S)
                break
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("the prefetcher is closed, or has raised before") from None
        if isinstance(batch, BaseException):
            raise batch
        return batch

    def close(self) -> None:
        """Ends the thread after the batch it is making; the pipeline stays open."""
        self._ends.set()
        self._thread.join()

    def _run(self) -> None:
        try:
            while not self._ends.is_set():
                batches = next(self._pipeline)
                self._put(DeviceBatch(batches, to_devices(batches, self._sharding, self._n_centers), self._pipeline.progress))
        except BaseException as error:
            self._put(error)

    def _put(self, batch: DeviceBatch | BaseException) -> None:
        while not self._ends.is_set():
            try:
                self._ready.put(batch, timeout=_LOOK_S)
                break
            except queue.Full:
                continue


def to_devices(batches: Mapping[str, Batch], sharding: Sharding, n_centers: Mapping[str, int]) -> dict[str, dict[str, Array]]:
    """Returns this process's batches as arrays over the devices of all processes; pixels travel as uint8.

    BadInput for labels that are not −1 … `n_centers` − 1 of their bank.
    """
    moved = {}
    for bank, batch in batches.items():
        check_labels(batch.labels, n_centers[bank], bank)
        moved[bank] = {name: jax.make_array_from_process_local_data(sharding, getattr(batch, name)) for name in _NAMES}
    return moved
