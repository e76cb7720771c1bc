"""Evaluates the encoder during training, and handles failures of evaluations."""

import logging
import time
from collections.abc import Callable, Mapping

import jax
from jax.experimental import multihost_utils

from ove.config import EncoderConfig
from ove.distributed import Processes
from ove.encoder.encoder import Params
from ove.errors import OveError

Evaluate = Callable[[EncoderConfig, Params], Mapping[str, float]]
"""An encoder, its parameters as NumPy arrays → the scores, by name."""
_FAILURES = (OveError, OSError, RuntimeError, ValueError, ArithmeticError, LookupError, MemoryError)
"""Errors of data, storage, memory and devices, after which training goes on. Any other ends the run."""
_EXPECTED = (OveError, OSError, MemoryError)
"""Of these the message says enough; others may be mistakes in the program and are logged with their traceback."""
GIVE_UP = 3
"""Consecutive failures after which evaluation is disabled."""


class Evaluations:
    """Evaluates every `every` steps; if an evaluation fails, training goes on.

    The caller saves a checkpoint before each evaluation, so that not even a crash in one loses a step. Of several processes the
    first evaluates, on its own devices, and the others wait for it.
    """

    def __init__(
        self,
        evaluate: Evaluate | None,
        every: int,
        report: Callable[[str], None],
        processes: Processes | None = None,
        limit_s: float = 0.0,
    ) -> None:
        """`every`: steps between two evaluations, 0 for none. `limit_s`: how long the others wait, 0 for no limit."""
        self._evaluate, self._every, self._report = evaluate, every, report
        self._processes, self._limit_s = processes, limit_s
        self._failed = 0

    def is_due(self, step: int) -> bool:
        """Returns whether an evaluation follows this step; equal in all processes."""
        return self._evaluate is not None and self._every > 0 and step % self._every == 0

    def after(self, step: int, config: EncoderConfig, params: Params) -> dict[str, float]:
        """Returns `eval/NAME`, `eval/seconds` and `eval/failed` (0 or 1), and nothing in processes after the first.

        Must be called by every process. A failure is reported and gives `eval/failed` alone; after three in a row
        evaluation is disabled.
        """
        if self._evaluate is None or self._failed >= GIVE_UP:
            return {}
        before = time.perf_counter()
        several = self._processes is not None and self._processes.count > 1
        on_host = multihost_utils.process_allgather(params, tiled=True) if several else jax.device_get(params)
        values = {}
        if self._processes is None or self._processes.index == 0:
            values = self._tried(self._evaluate, step, config, on_host, before)
        failed = bool(values.get("eval/failed"))
        if self._processes is not None:
            # All count alike: they must agree on when evaluation is disabled.
            said = self._processes.all_gather(f"the end of the evaluation after step {step}", str(failed), self._limit_s)
            failed = said[0] == str(True)
        self._failed = self._failed + 1 if failed else 0
        return values

    def _tried(self, evaluate: Evaluate, step: int, config: EncoderConfig, on_host: Params, before: float) -> dict[str, float]:
        try:
            scores = evaluate(config, on_host)
        except _FAILURES as error:
            if not isinstance(error, _EXPECTED):
                logging.getLogger(__name__).error("the evaluation after step %d failed", step, exc_info=error)
            is_last = self._failed + 1 >= GIVE_UP
            then = "evaluation is disabled until the run is restarted" if is_last else "the run goes on"
            self._report(f"EVALUATION FAILED at step {step} ({type(error).__name__}: {_beginning(error)}); {then}.")
            return {"eval/failed": 1.0}
        values = {f"eval/{name}": float(value) for name, value in scores.items()}
        seconds = time.perf_counter() - before
        self._report(f"step {step}: {', '.join(f'{name} {value:.4g}' for name, value in scores.items())} ({seconds:.0f} s)")
        return values | {"eval/seconds": seconds, "eval/failed": 0.0}


def _beginning(error: BaseException) -> str:
    return (str(error).splitlines() or [""])[0][:300]
