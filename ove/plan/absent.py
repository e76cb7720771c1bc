"""Devices that are not here, to compile for: GPUs from a description of their hardware, TPUs from libtpu's.

Compilers for both run on a CPU. What in JAX itself asks the hardware while a program is traced is answered here, all of it.
"""

import contextlib
import importlib
import importlib.util
import os
from collections.abc import Iterator
from importlib import resources
from typing import Any

import jax
from jax.experimental import topologies

from ove.encoder.machine import Machine, tracing_for
from ove.errors import ConfigError, Unavailable

CAPABILITIES = {"a100": 8.0, "h100": 9.0, "h200": 9.0, "b200": 10.0}
"""Compute capability of the GPUs that ove/plan/gpus/ describes."""
TORUS = {"v4": 3, "v5p": 3, "v5e": 2, "v6e": 2}
"""Dimensions in which chips of a TPU slice are connected."""
SLICE = {"v4": 4096, "v5p": 4096, "v5e": 256, "v6e": 256}
"""Chips of the largest slice whose count is a power of two; more are several slices."""
GPUS_OF_HOST = 8
_LIBTPU = {
    "TPU_SKIP_MDS_QUERY": "1",  # else it asks Google Cloud's metadata server, for minutes, what machine it is on
    "TPU_WORKER_HOSTNAMES": "localhost",
    "TPU_ACCELERATOR_TYPE": "v5p-8",  # any known name does: the topology is asked for by its own
    "ALLOW_MULTIPLE_LIBTPU_LOAD": "1",  # else a lock file, which a process that is killed leaves behind
}


def absent_devices(kind: str, count: int) -> list[jax.Device]:
    """Returns devices to compile for: one host or several of 8 GPUs, or TPU slices; nothing can be put on them.

    ConfigError for a count that there is not; Unavailable without the compilers of requirements-compile.txt.
    """
    _check_installed(kind)
    if kind in CAPABILITIES:
        on_host = min(count, GPUS_OF_HOST)
        if count % on_host:
            raise ConfigError(
                f"{count} GPUs are no whole number of hosts; give 1 to {GPUS_OF_HOST}, or a multiple of {GPUS_OF_HOST}."
            )
        described = (resources.files("ove.plan") / "gpus" / f"{kind}.txtpb").read_text()
        hosts = f"1x{count // on_host}x{on_host}"
        return list(topologies.get_topology_desc(platform="cuda", target_config=described, topology=hosts).devices)
    for name, value in _LIBTPU.items():
        os.environ.setdefault(name, value)
    slices, shape = slice_shape(kind, count)
    options: dict[str, Any] = {"chips_per_host_bounds": (min(2, shape[0]), min(2, shape[1]), 1)}
    if kind == "v4":
        options["chip_config_name"] = "megacore"  # both cores of a chip as one device, which v5p does by itself
    if slices > 1:
        options["num_slices"] = slices
    name = f"{kind}:{'x'.join(map(str, shape))}"
    return list(topologies.get_topology_desc(platform="tpu", topology_name=name, **options).devices)


def slice_shape(kind: str, chips: int) -> tuple[int, tuple[int, ...]]:
    """Returns the number of slices and the sides of each, as equal as possible; ConfigError unless it is a power of two."""
    if chips & (chips - 1):
        raise ConfigError(f"{chips} chips are no TPU slice of {kind}; give a power of two.")
    of_slice, dimensions = min(chips, SLICE[kind]), TORUS[kind]
    twos = of_slice.bit_length() - 1
    sides = [2 ** (twos // dimensions + (axis < twos % dimensions)) for axis in range(dimensions)]
    # A host has 2 x 2 chips, in the first two axes.
    return chips // of_slice, tuple(sides if twos < dimensions else sorted(sides))


@contextlib.contextmanager
def traced_for(kind: str) -> Iterator[None]:
    """Makes the encoder and JAX trace, lower and compile for a kind of device that is not here."""
    if kind not in CAPABILITIES:
        with tracing_for(Machine("tpu")):
            yield
        return
    capability = CAPABILITIES[kind]
    with contextlib.ExitStack() as stack:
        for module, name, answer in _answers(capability):
            stack.enter_context(_replaced(module, name, answer))
        stack.enter_context(tracing_for(Machine("cuda", capability)))
        yield


def _answers(capability: float) -> Iterator[tuple[Any, str, Any]]:
    """Yields (module of jax, function, what takes its place); jax 0.10.2 to 0.11.2."""
    # jax.nn.dot_product_attention(implementation="cudnn") asks the local GPU for its capability.
    cudnn = importlib.import_module("jax._src.cudnn.fused_attention_stablehlo")
    yield cudnn, "check_compute_capability", lambda least: float(least) <= capability
    yield cudnn, "is_cuda_compute_capability_equal", lambda wanted: float(wanted) == capability
    # Pallas' Triton backend does since 0.11; before, it took 9.0 where there is no GPU.
    if importlib.util.find_spec("jax._src.pallas.triton.gpu_info"):
        triton = importlib.import_module("jax._src.pallas.triton.gpu_info")
        info = triton.GpuInfo(gpu_version=None, arch_name=str(capability), compute_capability=int(10 * capability))
        yield triton, "get_gpu_info", lambda: info
        yield triton, "get_device_platform", lambda: "gpu"


@contextlib.contextmanager
def _replaced(module: Any, name: str, answer: Any) -> Iterator[None]:
    before = getattr(module, name)
    setattr(module, name, answer)
    try:
        yield
    finally:
        setattr(module, name, before)


def _check_installed(kind: str) -> None:
    package, found = ("jax[cuda13]", "jax_cuda13_plugin") if kind in CAPABILITIES else ("jax[tpu]", "libtpu")
    if importlib.util.find_spec(found) is None:
        raise Unavailable(
            f"compiling for {kind} needs {package}, which is not installed: pip install -r requirements-compile.txt, "
            "best in an environment of its own."
        )
