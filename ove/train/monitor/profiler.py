"""Traces a few steps, for TensorBoard, xprof or Perfetto."""

import re
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import jax
from jaxtyping import Array

from ove.errors import ConfigError

FOLDER = "profile"


@dataclass(frozen=True)
class StepRange:
    """A range of steps to trace."""

    first: int
    count: int

    @property
    def last(self) -> int:
        """The last of them."""
        return self.first + self.count - 1


def parse_step_range(text: str) -> StepRange:
    """Parses `STEP:N`, N steps from STEP on, both at least 1; ConfigError for anything else."""
    found = re.fullmatch(r"([0-9]{1,12}):([0-9]{1,6})", text.strip())
    if not found or not int(found[1]) or not int(found[2]):
        raise ConfigError(f"--profile={text}: expected STEP:N, N steps from step STEP on, both at least 1; for example 20:3.")
    return StepRange(int(found[1]), int(found[2]))


class Profiler:
    """Traces the steps of a span into `workdir/profile`; without a span it does nothing."""

    def __init__(
        self, span: StepRange | None, workdir: Path, done: int, steps: int, report: Callable[[str], None], writes: bool = True
    ) -> None:
        """`done`: steps trained before this launch; `steps`: of the whole run. ConfigError if the span ends after them.

        A span that a resumed run has behind it is not traced, and `report` says so: the command that is started again after a
        preemption must not fail for it. Of several processes one `writes`.
        """
        if span and span.last > steps:
            raise ConfigError(
                f"--profile={span.first}:{span.count} asks for steps up to {span.last}; the run ends with step {steps}."
            )
        if span and span.first <= done:
            report(f"--profile={span.first}:{span.count}: nothing is traced, for this launch resumes at step {done + 1}.")
            span = None
        self.folder = workdir / FOLDER
        self._span = span if writes else None
        self._is_on = False

    def before(self, step: int) -> None:
        """Starts the trace if `step`, about to be dispatched, is its first."""
        if self._span and step == self._span.first:
            # The stacks of Python would fill the buffer of a long trace; what the host does is annotated by jax.
            options = jax.profiler.ProfileOptions()
            options.python_tracer_level = 0
            jax.profiler.start_trace(self.folder, create_perfetto_trace=True, profiler_options=options)
            self._is_on = True

    def after(self, step: int, result: Array) -> str | None:
        """Ends the trace if `step`, just dispatched and making `result`, is its last; returns a sentence to report then."""
        if not self._is_on or self._span is None or step != self._span.last:
            return None
        result.block_until_ready()
        self.close()
        return (
            f"steps {self._span.first} to {self._span.last} are traced in {self.folder} (docs/watching.md: how to look at it)"
        )

    def close(self) -> None:
        """Ends a trace that is still going on."""
        if self._is_on:
            self._is_on = False
            jax.profiler.stop_trace()
