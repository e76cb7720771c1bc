"""Measures the speed of a run: time of a step, operations per second (MFU), and memory (docs/watching.md)."""

import contextlib
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from resource import getpagesize

import jax
from jaxtyping import Array

from ove.centers.gradient import loss_of
from ove.config import EncoderConfig, HeadConfig, RunConfig
from ove.train.init import n_negatives


class Clock:
    """Times steps that are dispatched ahead of the host.

    For each step: `batch_asked()`, fetch the batch, `batch_there()`, dispatch it `with dispatching():`, `dispatched(result)`,
    read its result `with waiting():`, `step_done()`.
    """

    def __init__(self) -> None:
        self._watcher = ThreadPoolExecutor(1, thread_name_prefix="clock")
        self._finished: Future[float] | None = None
        self._asked = 0.0
        self.restart()

    def restart(self) -> None:
        """Begins a new span; the time since the last one (compilation, saving) counts to no step."""
        self._begun = self._seen = time.perf_counter()
        self._data_idle_s, self._host_idle_s, self._waited_s, self._steps = 0.0, 0.0, 0.0, 0

    def batch_asked(self) -> None:
        """Notes that the host starts to wait for a batch."""
        self._host_idle_s += self._idle_s()
        self._asked = self._seen

    def batch_there(self) -> None:
        """Notes that the batch has arrived; the time in which the device had no work counts as `data_wait`."""
        self._data_idle_s += self._idle_s()
        self._waited_s += self._seen - self._asked

    @contextlib.contextmanager
    def dispatching(self) -> Iterator[None]:
        """Times the host giving a step to the device."""
        idle_s = self._idle_s()
        before, worked = time.perf_counter(), time.thread_time()
        yield
        # Where it lasts as long as a step before (several devices of a CPU, a queue that is full), that is waiting.
        worked_s = time.thread_time() - worked
        self._waited_s += max(0.0, time.perf_counter() - before - worked_s)
        self._host_idle_s += idle_s + worked_s if idle_s else 0.0

    def dispatched(self, result: Array) -> None:
        """Notes that the step which makes `result` is under way."""
        self._finished = self._watcher.submit(_finished_at, result)
        self._seen = time.perf_counter()

    @contextlib.contextmanager
    def waiting(self) -> Iterator[None]:
        """Times the host waiting for the device."""
        before = time.perf_counter()
        yield
        self._waited_s += time.perf_counter() - before

    def step_done(self) -> None:
        """Counts a finished step to the span."""
        self._steps += 1

    def lap(self, samples: int) -> dict[str, float]:
        """Summarises the steps counted since the span began, at least one; begins a new span.

        `step_ms`, and `samples_per_s` at `samples` a step. Shares of the time, 0…1: `data_wait` and `host_wait`, in which the
        device had nothing to do for want of data, or because the host was at work; `host_share`, in which the host was at work
        at all: it dispatched steps, or read and logged what they said, and waited neither for a batch nor for the device.
        """
        self._host_idle_s += self._idle_s()
        elapsed = time.perf_counter() - self._begun
        values = {
            "step_ms": 1000 * elapsed / self._steps,
            "samples_per_s": samples * self._steps / elapsed,
            "data_wait": min(1.0, self._data_idle_s / elapsed),
            "host_wait": min(1.0, self._host_idle_s / elapsed),
            "host_share": max(0.0, 1.0 - self._waited_s / elapsed),
        }
        self.restart()
        return values

    def close(self) -> None:
        """Stops the watching thread."""
        self._watcher.shutdown(wait=False)

    def _idle_s(self) -> float:
        """Returns how long the device has been idle since the last call."""
        now, since = time.perf_counter(), self._seen
        self._seen = now
        return max(0.0, now - max(since, self._finished.result())) if self._finished and self._finished.done() else 0.0


def _finished_at(result: Array) -> float:
    result.block_until_ready()
    return time.perf_counter()


PEAK_TFLOPS: tuple[tuple[str, float], ...] = (
    (r"NVIDIA A100", 312.0),
    (r"NVIDIA H100 PCIe", 756.0),
    (r"NVIDIA H100 NVL", 835.0),
    (r"NVIDIA (H100|H200|GH200)", 989.0),
    (r"NVIDIA L4$", 121.0),
    (r"NVIDIA L40S", 362.0),
    (r"NVIDIA B200", 2250.0),
    (r"TPU v4$", 275.0),
    (r"TPU (v5 lite|v5e)$", 197.0),
    (r"TPU (v5|v5p)$", 459.0),
    (r"TPU (v6 lite|v6e)$", 918.0),
)
"""Dense bfloat16 products, 10¹² operations a second and device, by the beginning of `jax.Device.device_kind`; first match wins.
NVIDIA's data sheets (half of what they give "with sparsity"); Google's pages on each TPU, docs.cloud.google.com/tpu/docs."""
_GIB = 2**30


@dataclass(frozen=True)
class Workload:
    """What one step is, over all devices."""

    samples: int
    tokens: int
    flops: float
    """Floating point operations that the model asks for, forward and backward; not those of a second computation (remat)."""


def workload(config: RunConfig, n_centers: Mapping[str, int], tokens_of: Mapping[str, int]) -> Workload:
    """Returns the work of a step for banks of `n_centers` centers, with samples of `tokens_of` tokens each."""
    heads = config.batches.heads
    return Workload(
        samples=sum(head.batch_size for head in heads),
        tokens=sum(head.batch_size * tokens_of[head.bank] for head in heads),
        flops=sum(
            head.batch_size * encoder_flops(config.encoder, tokens_of[head.bank])
            + bank_flops(config, head, n_centers[head.bank])
            for head in heads
        ),
    )


def encoder_flops(config: EncoderConfig, n_tokens: int) -> float:
    """Counts the FLOPs of one sample's matrix products, forward and backward; a multiply-add counts as two.

    Forward: patches 2·N·P·D; each layer 8·N·D² (q, k, v, out) + 4·N²·D (scores, weighted sum) + 4·N·D·F (MLP); pooling
    4·N·A·D (scores and weighted sum of the tokens, one query a head) + 4·D² + 4·D·F, and 2·D·E with a projection. Backward:
    twice that, but once for the patches, which need no gradient.
    """
    n, d, f = n_tokens, config.width, config.mlp
    layer = 8 * n * d**2 + 4 * n**2 * d + 4 * n * d * f
    pool = 4 * n * config.heads * d + 4 * d**2 + 4 * d * f + 2 * d * config.embedding if config.pooling_head else 0
    return float(2 * (2 * n * config.patch_values * d) + 3 * (config.layers * layer + pool))


def bank_flops(config: RunConfig, head: HeadConfig, n_centers: int) -> float:
    """Counts the FLOPs of one bank's products over all devices: `Loss.flops`·B·S·E.

    S: the drawn centers and the labels of the step, as many as there can be.
    """
    sampled = min(n_centers, n_negatives(head.negatives, n_centers) + head.batch_size * head.labels_per_step)
    return float(loss_of(config.centers).flops * head.batch_size * sampled * config.encoder.embedding_width)


def peak_flops(device_kind: str, compute: str, peak_tflops: float = 0.0) -> float | None:
    """Operations a second that one device could do: `peak_tflops`·10¹² if that is not 0, else by the table.

    None where the table has no such device, or the computation is not in bfloat16: no share of it can be told then.
    """
    if peak_tflops:
        return peak_tflops * 1e12
    found = (tflops * 1e12 for pattern, tflops in PEAK_TFLOPS if re.match(pattern, device_kind))
    return next(found, None) if compute == "bfloat16" else None


def rates(work: Workload, step_ms: float, n_devices: int, peak: float | None) -> dict[str, float]:
    """Returns `tokens_per_s` over all devices, `tflops_per_device` (10¹²/s) and, if a peak is known, `mfu`, 0…1."""
    flops_per_device = work.flops / (step_ms / 1000) / n_devices
    values = {"tokens_per_s": 1000 * work.tokens / step_ms, "tflops_per_device": flops_per_device / 1e12}
    return values | ({"mfu": flops_per_device / peak} if peak else {})


def memory_gib(devices: Sequence[jax.Device]) -> dict[str, float]:
    """Returns GiB: `host_memory_gib`, resident memory of this process; `device_memory_gib` and its peak since the start, of the
    fullest device, where devices tell (GPUs and TPUs; a CPU's is host memory)."""
    resident_pages = int(Path("/proc/self/statm").read_text().split()[1])
    values = {"host_memory_gib": resident_pages * getpagesize() / _GIB}
    known = [stats for device in devices if (stats := device.memory_stats())]
    for name, key in (("device_memory_gib", "bytes_in_use"), ("device_memory_peak_gib", "peak_bytes_in_use")):
        found = [stats[key] for stats in known if key in stats]
        if found:
            values[name] = max(found) / _GIB
    return values
