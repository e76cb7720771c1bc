"""Batches built ahead by grain, in threads or in processes that end with this one."""

import ctypes
import logging
import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterator, Sequence
from typing import Any

import cv2
import grain
from absl import flags

from ove.errors import TrainingStopped
from ove.stream.batch_builder import BatchBuilder

_log = logging.getLogger(__name__)

_WORKER_DIED = "Worker process was terminated"
"""Beginning of grain's message when one of its processes is gone."""
_M_TRIM_THRESHOLD, _M_MMAP_THRESHOLD = -1, -3
"""Of malloc.h."""
_MOST_DEATHS = 3
"""Restarts of processes in a row without a batch in between."""


class ReadAhead:
    """The parts of all steps, (step 0, head 0), (step 0, head 1) … without end, built ahead."""

    def __init__(self, builders: Sequence[BatchBuilder], threads: int, processes: int) -> None:
        """Builds in `processes` of `threads` each; without processes in this one; without threads nothing ahead."""
        self._elements = _Elements(tuple(builders))
        self._threads, self._processes = threads, processes
        self._next = 0
        self._iterator: grain.DatasetIterator | None = None

    def __iter__(self) -> Iterator[dict[str, Any]]:
        return self

    def __next__(self) -> dict[str, Any]:
        """Returns what `BatchBuilder.make` does; restarts killed processes without losing a batch.

        TrainingStopped if they die several times in a row.
        """
        for _ in range(_MOST_DEATHS):
            try:
                if self._iterator is None:
                    self._iterator = self._begin()
                element = next(self._iterator)
            except RuntimeError as error:
                if _WORKER_DIED not in str(error):
                    raise
                _log.warning("a process that builds batches has died; all are restarted (%s)", error)
                self.close()
                continue
            self._next += 1
            return element
        raise TrainingStopped(
            f"the processes that build batches died {_MOST_DEATHS} times in a row (killed, or out of memory); lower "
            "batches.num_workers or batches.threads, or set batches.num_workers = 0 to find the cause."
        )

    def go_to(self, step: int) -> None:
        """Continues with the first head of a step."""
        self.close()
        self._next = step * len(self._elements.builders)

    def close(self) -> None:
        """Ends threads and processes."""
        if self._iterator is not None:
            self._iterator.close()
        self._iterator = None

    def _begin(self) -> Any:
        threads, heads = self._threads, len(self._elements.builders)
        _settle()
        # One batch in each thread, and those of one step waiting.
        options = grain.ReadOptions(num_threads=threads, prefetch_buffer_size=threads + heads if threads else 0)
        elements = grain.MapDataset.source(self._elements)[self._next :].to_iter_dataset(options)
        if self._processes:
            if not flags.FLAGS.is_parsed():  # grain asks them when it starts processes
                flags.FLAGS(sys.argv[:1])
            elements = elements.mp_prefetch(
                grain.MultiprocessingOptions(num_workers=self._processes), worker_init_fn=_begin_worker
            )
        return iter(elements)


class _Elements:
    """All parts of all steps as one sequence of whole batches, as grain's cost is by the element."""

    def __init__(self, builders: tuple[BatchBuilder, ...]) -> None:
        self.builders = builders

    def __len__(self) -> int:
        return sys.maxsize

    def __getitem__(self, index: int) -> dict[str, Any]:
        step, head = divmod(int(index), len(self.builders))
        return self.builders[head].make(step)


def _settle() -> None:
    """Sets this process up for many threads that allocate and free about the same amounts repeatedly.

    OpenCV: threads work on different pictures, not on parts of one. glibc: memory of records (up to 32 MiB, the most that can
    be set) is kept for the next ones, not returned and fetched again page by page: reading a record of 0.6 MB then takes
    0.12 ms, otherwise 0.12 or 0.8 ms, by chance.
    """
    cv2.setNumThreads(1)
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # other C libraries have none
    if mallopt is not None:
        mallopt(_M_MMAP_THRESHOLD, 32 << 20)
        mallopt(_M_TRIM_THRESHOLD, 64 << 20)


def _begin_worker(index: int, count: int) -> None:
    """Makes a process die with the trainer, and leave Ctrl-C to it.

    Not by PR_SET_PDEATHSIG, which kills at the end of the thread that started the process, and does nothing if the trainer
    has already ended. Watches the pipe to the parent instead.
    """
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_die_with, args=(parent,), name="parent", daemon=True).start()
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _settle()


def _die_with(parent: Any) -> None:
    parent.join()
    os.kill(os.getpid(), signal.SIGKILL)
