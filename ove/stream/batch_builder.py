"""Builds batches row by row in a thread, which is abandoned when a record exceeds the time limit."""

import threading
import time
from collections.abc import Sequence
from typing import Any

from ove.records import Batch
from ove.stream.head_stream import BadRecord, HeadStream

Bad = tuple[int, BadRecord]
"""A row of a batch, and a bad record drawn for it."""


class BatchBuilder:
    """Builds this host's rows of the batches of one head; picklable."""

    def __init__(self, stream: HeadStream, batch_size: int, rows: range, limit_s: float) -> None:
        """Builds `rows` of the `batch_size` of a batch; replaces records that take longer than `limit_s`."""
        self.stream, self.batch_size, self.rows, self.limit_s = stream, batch_size, rows, limit_s

    def make(self, step: int) -> dict[str, Any]:
        """Builds the rows of a step (from 0): the fields of Batch by name, and the list `bad`."""
        places = [step * self.batch_size + row for row in self.rows]
        filling = _Filling(self.stream, places, self.stream.empty(len(places)), 0, [])
        filling.start()
        while filling.is_alive():
            row, source, record, began = filling.at
            left = began + self.limit_s - time.monotonic()
            if left < 0:
                self.stream.slow.add((source, record))
                filling = filling.resume_after(row)
                filling.start()
            else:
                filling.join(left + 0.01)
        if filling.error is not None:
            raise filling.error
        return {**vars(filling.batch), "bad": filling.bad}


class _Filling(threading.Thread):
    """Fills the rows of a batch, from `row` on."""

    def __init__(self, stream: HeadStream, places: Sequence[int], batch: Batch, row: int, bad: list[Bad]) -> None:
        super().__init__(name="batch", daemon=True)
        self.stream, self.places, self.batch, self.row, self.bad = stream, places, batch, row, bad
        self.at = (row, -1, -1, time.monotonic())
        """Current row, source and record, and since when."""
        self.error: BaseException | None = None

    def run(self) -> None:
        """Fills the rows; leaves an exception in `error` for the waiting thread to raise."""
        try:
            for row in range(self.row, len(self.places)):

                def begins(source: int, record: int, row: int = row) -> None:
                    self.at = (row, source, record, time.monotonic())

                found = self.stream.fill(self.batch, row, self.places[row], begins)
                self.bad = self.bad + [(row, bad) for bad in found]
        except BaseException as error:
            self.error = error

    def resume_after(self, row: int) -> "_Filling":
        """Returns a new thread that resumes at `row`, with copies of the arrays that this thread may still write."""
        batch = Batch(**{name: array.copy() for name, array in vars(self.batch).items()})
        return _Filling(self.stream, self.places, batch, row, [entry for entry in self.bad if entry[0] < row])
