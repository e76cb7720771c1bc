"""Notices a save that fails in the background at once, and tells which process failed."""

import contextlib
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import orbax.checkpoint as ocp

from ove.errors import BadCheckpoint, ProcessLost
from ove.train.checkpoints import integrity


class SaveBarrier:
    """Where orbax's threads wait for those of other processes (`AsyncOptions.barrier_sync_fn`).

    By default a failed save still waits for the other processes (timeout: 20 minutes).
    """

    def __init__(self, folder: Path) -> None:
        """`folder` of the checkpoints."""
        self._folder = folder
        self._wait = ocp.multihost.get_barrier_sync_fn()
        self._failed: BaseException | None = None
        self._lost: jax.errors.JaxRuntimeError | None = None

    def __call__(self, *, key: str, timeout_ms: int) -> None:
        """Waits, unless it is called on the way out of a failure: then that is raised."""
        error = sys.exc_info()[1]
        if error is not None:
            self._failed = self._failed or error
            raise error
        try:
            self._wait(key=key, timeout_ms=timeout_ms)
        except jax.errors.JaxRuntimeError as error:
            self._lost = error
            raise

    @contextlib.contextmanager
    def watched(self, step: int | None) -> Iterator[None]:
        """Turns any failure within it, or of a save before it, into BadCheckpoint, or ProcessLost if another process failed.

        `step` that is being saved.
        """
        try:
            if self._failed is not None:
                raise self._failed
            yield
        except Exception as error:  # of the file system or of tensorstore, whatever its type
            if self._lost is not None:
                raise ProcessLost(
                    f"{self._folder}: step {step} could not be saved, for another process did not come to the end of it "
                    f"({integrity.first_line(self._lost)}); see its last message. Restarted, all resume from the one before."
                ) from error
            if isinstance(error, jax.errors.JaxRuntimeError):
                raise  # of the device, not of the files
            raise BadCheckpoint(
                f"{self._folder}: step {step} could not be saved ({integrity.first_line(error)}); make room or give another "
                "--workdir, and start again: the checkpoint before it is whole."
            ) from error
