"""What a training run does at the wish of whoever starts it, by means that do not belong to training."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ove.records import Batch
from ove.train.monitor.evaluation import Evaluate
from ove.train.monitor.profiler import Span

Draw = Callable[[int, Mapping[str, Batch]], list[Path]]
"""A step and its batches → the pictures made of them."""


@dataclass(frozen=True)
class Hooks:
    """Each may be missing."""

    draw: Draw | None = None
    """Is shown the batches of every step by the first process, before the step."""
    evaluate: Evaluate | None = None
    """Is called every `train.eval_every` steps by every process."""
    profile: Span | None = None
    """Steps that are traced."""


NO_HOOKS = Hooks()
"""A run by itself."""
