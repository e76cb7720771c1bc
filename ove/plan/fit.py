"""Finds the settings with which a run fits into the memory of its devices."""

import math
from collections.abc import Iterator
from dataclasses import replace

from ove.config import RunConfig
from ove.errors import ConfigError
from ove.plan.costs import RunShape, memory, total
from ove.train.sharding import axis_sizes, check_division

_GIB = 2**30


def setting_that_fits(at: RunShape, memory_gib: float) -> tuple[str, float] | None:
    """Returns the settings that bring the peak below the memory of a device, as `key = value`, and the peak then, in GiB.

    The fewest microbatches that are enough; else the encoder's state over more devices; else both. None if nothing of this is.
    """
    for config in _with_less_memory(at):
        peak = total(memory(replace(at, config=config))) / _GIB
        if peak <= memory_gib:
            before, after = at.config, config
            steps, fsdp = after.train.grad_accum_steps, after.mesh.fsdp
            changed = [f"train.grad_accum_steps = {steps}"] * (steps != before.train.grad_accum_steps)
            changed += [f"mesh.fsdp = {fsdp}"] * (fsdp != before.mesh.fsdp)
            return " and ".join(changed), peak
    return None


def _with_less_memory(at: RunShape) -> Iterator[RunConfig]:
    """Yields the configurations that the devices allow: more microbatches first, then a larger axis fsdp with each of them."""
    config, n = at.config, at.n_devices
    on_device = math.gcd(*(head.batch_size for head in config.batches.heads)) // n
    for fsdp in range(config.mesh.fsdp, n + 1):
        for steps in range(config.train.grad_accum_steps, on_device + 1):
            tried = replace(config, train=replace(config.train, grad_accum_steps=steps), mesh=replace(config.mesh, fsdp=fsdp))
            try:
                check_division(tried, n)
                axis_sizes(tried.mesh, n)
            except ConfigError:  # of this pair of numbers
                continue
            yield tried
