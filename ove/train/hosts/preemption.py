"""SIGTERM: the cluster wants its machines back. All processes of the run stop after the same step."""

import signal
import threading
from types import FrameType, TracebackType
from typing import Any

import jax
from jax.experimental import multihost_utils


class Preemption:
    """Notices SIGTERM while it is entered; with several processes all stop when one of them is told to."""

    def __init__(self) -> None:
        self._alone = jax.process_count() == 1
        self._told = False
        self._before: Any = None

    def __enter__(self) -> "Preemption":
        # With several processes jax has its own handler, which tells the other processes too.
        if self._alone and threading.current_thread() is threading.main_thread():
            self._before = signal.signal(signal.SIGTERM, self._note)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if self._before is not None:
            signal.signal(signal.SIGTERM, self._before)

    def stops_after(self, step: int) -> bool:
        """Whether the run is to be saved after this step and end; to be asked by every process, once a step.

        With several processes the step is one that none of them has passed, some steps after the signal.
        """
        return self._told if self._alone else multihost_utils.reached_preemption_sync_point(step)

    def _note(self, number: int, frame: FrameType | None) -> None:
        self._told = True
