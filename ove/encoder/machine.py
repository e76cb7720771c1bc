"""The machine that programs are traced for: its attention kernels, and how it computes norms, GELU and products (cpu.py)."""

from typing import NamedTuple

import jax


class Machine(NamedTuple):
    """A kind of machine, as far as implementations are chosen by it."""

    kind: str
    """cuda, rocm, tpu, cpu, another name of JAX's for a platform, or `plain`."""
    capability: float = 0.0
    """Compute capability of an NVIDIA GPU."""


PLAIN = Machine("plain")
"""None in particular: `jax.numpy` throughout, which JAX differentiates in forward mode too (`jax.jvp`, `jax.linearize`)."""

tracing_for = jax.make_user_context(None)
"""`with tracing_for(PLAIN): …` traces for this Machine instead of that of the default device; `jax.jit` keeps both programs."""


def current() -> Machine:
    """Returns the machine that is traced for: that of `tracing_for`, else the default device's.

    A GPU is told by its compute capability, which other makers' do not have as a number.
    """
    if tracing_for.value is not None:
        return tracing_for.value
    default = getattr(jax.config, "jax_default_device")  # noqa: B009  (the types of some versions of jax lack it)
    device = default if isinstance(default, jax.Device) else jax.local_devices(backend=default)[0]
    if device.platform not in ("gpu", "cuda"):
        return Machine(device.platform)
    try:
        return Machine("cuda", float(getattr(device, "compute_capability", "")))
    except ValueError:
        return Machine("rocm")
