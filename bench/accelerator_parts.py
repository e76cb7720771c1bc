"""Parts of bench/accelerator.py on machine and encoder: versions, what is possible at all, remat, a profile, options."""

import functools
import importlib.metadata
import os
import platform
import shutil
import statistics
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import encoder_remat
import jax
import jax.numpy as jnp
import numpy as np
from needs import has

from ove.encoder import encoder, machine
from ove.encoder.presets import preset
from ove.train.monitor.speed import encoder_flops, peak_flops

Say = Callable[..., None]
ROOT = Path(__file__).resolve().parents[1]
TOKENS = 2048
"""Of a clip (spec §2)."""
PACKAGES = (
    "jax",
    "jaxlib",
    "flax",
    "optax",
    "orbax-checkpoint",
    "numpy",
    "torch",
    "libtpu",
    "jax-cuda13-plugin",
    "jax-cuda12-plugin",
)
OPTIONS: tuple[dict[str, Any], ...] = (
    {},
    {"xla_gpu_enable_triton_gemm": False},
    {"xla_gpu_enable_command_buffer": ""},
    {"xla_gpu_enable_latency_hiding_scheduler": True},
    {"xla_gpu_deterministic_ops": True},
)
"""Of the compiler, on GPUs; docs/launching.md says where from."""
SUMS = ("python", "Steps", "XLA Modules")
"""Lines of a trace that show again what others show in parts."""


def seconds_of(call: Callable[[], Any], turns: int = 5, calls: int = 4) -> float:
    """Median over `turns` of the seconds of a call, of which `calls` are under way before the last is waited for."""
    jax.block_until_ready(call())
    taken = []
    for _ in range(turns):
        begun_s = time.perf_counter()
        jax.block_until_ready([call() for _ in range(calls)])
        taken.append((time.perf_counter() - begun_s) / calls)
    return statistics.median(taken)


def try_each(say: Say, row: str, measure: Callable[[], dict[str, Any]]) -> None:
    """Says what `measure` returns, or what JAX or the backend had against it: other rows can still be measured."""
    try:
        say(row, **measure())
    except (jax.errors.JaxRuntimeError, NotImplementedError, ValueError, RuntimeError) as error:
        jax.clear_caches()
        say(row, failed=f"{type(error).__name__}: {str(error)[:300]}")


def machine_part(say: Say, is_quick: bool) -> None:
    """Says what runs here."""
    installed = {}
    for name in PACKAGES:
        try:
            installed[name] = importlib.metadata.version(name)
        except importlib.metadata.PackageNotFoundError:
            continue
    commit = subprocess.run(["git", "rev-parse", "--short", "HEAD"], cwd=ROOT, capture_output=True, text=True).stdout.strip()
    flags = {name: value for name, value in os.environ.items() if name.startswith(("XLA_", "LIBTPU_", "NCCL_"))}
    say("software", python=platform.python_version(), commit=commit, **installed, **flags)
    device = jax.devices()[0]
    memory = (device.memory_stats() or {}).get("bytes_limit", 0)
    say(
        "devices",
        count=jax.device_count(),
        kind=device.device_kind,
        machine=str(machine.current()),
        memory_gib=round(memory / 2**30, 1),
        platform=" ".join(device.client.platform_version.split()),
        cpus=os.cpu_count(),
    )
    if shutil.which("nvidia-smi"):
        query = [
            "nvidia-smi",
            "--query-gpu=driver_version,clocks.max.sm,power.limit,pcie.link.gen.max",
            "--format=csv,noheader",
        ]
        say("nvidia-smi", said=subprocess.run(query, capture_output=True, text=True).stdout.splitlines()[0])


def limits_part(say: Say, is_quick: bool) -> None:
    """Says what products, memory and the way from the host achieve by themselves."""
    edge, rows = (128, 64) if is_quick else (8192, 16 * TOKENS)
    shapes = [(edge, edge, edge), (rows, 1024, 3072), (rows, 1024, 4096), (rows, 4096, 1024), (rows, 588, 1024)]
    cases = [(shape, dtype, None) for shape in shapes for dtype in ("bfloat16",)]
    cases += [(shapes[0], "float32", precision) for precision in ("default", "highest")]
    for (m, k, n), dtype, precision in cases:
        a, b = (jax.random.normal(jax.random.key(i), shape).astype(dtype) for i, shape in enumerate([(m, k), (k, n)]))
        product = jax.jit(functools.partial(jnp.matmul, precision=precision))
        taken = seconds_of(lambda run=product, a=a, b=b: run(a, b))  # type: ignore[misc]
        say(
            f"{m}×{k} by {k}×{n}, {dtype} {precision or ''}".rstrip(),
            ms=ms_of(taken),
            tflops=figure(2e-12 * m * k * n / taken),
        )
    long, add = jnp.zeros(2**20 if is_quick else 2**29, jnp.float32), jax.jit(lambda x: x + 1)
    taken = seconds_of(lambda: add(long))
    say(f"{long.nbytes / 2**20:,.0f} MiB read and written", ms=ms_of(taken), gb_per_s=figure(2e-9 * long.nbytes / taken))
    for clips in (1, 4) if is_quick else (16, 64):
        batch = np.random.default_rng(0).integers(0, 256, (clips, TOKENS, 588), np.uint8)
        taken = seconds_of(lambda batch=batch: jax.device_put(batch), calls=1)  # type: ignore[misc]
        say(f"{clips} clips to the device", ms=ms_of(taken), gb_per_s=figure(1e-9 * batch.nbytes / taken))
    say("a program of one number", ms=ms_of(seconds_of(lambda: add(np.float32(1)), calls=50)))


def measure_encoder(
    remat: str, clips: int, tokens: int, is_quick: bool, options: dict[str, Any] | None = None
) -> dict[str, Any]:
    """Figures of one value and gradient of the encoder (large, bfloat16)."""
    program, inputs, config, compile_s = encoder_program(remat, clips, tokens, is_quick, options)
    taken = seconds_of(lambda: program(*inputs), 2 if is_quick else 5, 1 if is_quick else 3)
    flops = clips * encoder_flops(config, tokens)
    peak = peak_flops(jax.devices()[0].device_kind, config.compute)
    found = {"ms": ms_of(taken), "tflops": figure(flops / taken / 1e12), "compile_s": round(compile_s, 1)}
    return found | {"temp_gib": gib_of(program)} | ({"mfu": round(flops / taken / peak, 3)} if peak else {})


def encoder_program(
    remat: str, clips: int, tokens: int, is_quick: bool, options: dict[str, Any] | None = None
) -> tuple[Any, tuple[Any, ...], Any, float]:
    """Returns the compiled program, its arguments, the encoder's configuration, seconds of compiling."""
    config = preset("tiny" if is_quick else "large", compute="bfloat16", remat=remat)
    program, compile_s = encoder_remat.compiled(config, tokens, clips, options)
    params = jax.jit(lambda: encoder.init(config, jax.random.key(0)))()
    patches = jax.random.randint(jax.random.key(1), (clips, tokens, config.patch_values), 0, 256).astype(jnp.uint8)
    positions = jax.random.randint(jax.random.key(2), (clips, tokens, 3), 0, 16)
    return program, (params, patches, positions), config, compile_s


def encoder_part(say: Say, is_quick: bool) -> None:
    """Says what each setting of remat costs, then what fewer tokens do."""
    cases = [("dots", 16, TOKENS), ("none", 16, TOKENS), ("full", 16, TOKENS), ("dots", 32, 1024), ("dots", 128, 256)]
    for remat, clips, tokens in [(mode, 2, 64) for mode in encoder_remat.MODES] if is_quick else cases:
        try_each(say, f"remat {remat}, {clips} × {tokens}", functools.partial(measure_encoder, remat, clips, tokens, is_quick))


def flags_part(say: Say, is_quick: bool) -> None:
    """Says what options of the compiler make of the encoder."""
    cases = OPTIONS if machine.current().kind == "cuda" else OPTIONS[:1]
    for options in cases:
        measure = functools.partial(measure_encoder, "dots", *((2, 64) if is_quick else (16, TOKENS)), is_quick, options)
        try_each(say, ", ".join(f"{name}={value}" for name, value in options.items()) or "none", measure)


def torch_part(say: Say, is_quick: bool) -> None:
    """Says what the value and gradient of the encoder take in PyTorch, where that is installed."""
    if not has("torch"):
        say("torch", missing="not installed: pip install torch")
        return
    import torch
    from torch_vit import Vit

    device, clips, n = ("cuda", 16, TOKENS) if torch.cuda.is_available() and not is_quick else ("cpu", 2, 64)
    config = preset("tiny" if device == "cpu" else "large")
    vit = Vit(config, "sdpa").to(device)
    patches = torch.randint(0, 256, (clips, n, config.patch_values), dtype=torch.uint8, device=device)
    positions = torch.randint(0, 16, (clips, n, 3), device=device)
    wait = torch.cuda.synchronize if device == "cuda" else lambda: None

    def measure(model: Any) -> dict[str, Any]:
        taken = []
        for _ in range(6):
            begun_s = time.perf_counter()
            vit.zero_grad(set_to_none=True)
            with torch.autocast(device, torch.bfloat16):
                loss = model(patches, positions)[1].float().sum()
            loss.backward()
            wait()
            taken.append(time.perf_counter() - begun_s)
        middle = statistics.median(taken[1:])
        found = {"ms": ms_of(middle), "tflops": figure(clips * encoder_flops(config, n) / middle / 1e12)}
        found["first_s"] = round(taken[0], 1)
        peak = torch.cuda.max_memory_allocated() if device == "cuda" else 0
        return found | {"peak_gib": round(peak / 2**30, 2)}

    say("torch", version=torch.__version__, device=torch.cuda.get_device_name() if device == "cuda" else "cpu")
    try_each(say, f"as written, {clips} × {n}", lambda: measure(vit))
    try_each(say, f"torch.compile, {clips} × {n}", lambda: measure(torch.compile(vit)))


def profile_part(say: Say, is_quick: bool) -> None:
    """Traces the encoder and says which operations take most of the time; the trace lies beside the results."""
    program, inputs, *_ = encoder_program("dots", *((2, 64) if is_quick else (16, TOKENS)), is_quick)
    jax.block_until_ready(program(*inputs))
    with jax.profiler.trace("trace"):
        jax.block_until_ready(program(*inputs))
    path = max(Path("trace").rglob("*.xplane.pb"), key=lambda path: path.stat().st_mtime)
    planes = list(jax.profiler.ProfileData.from_file(str(path)).planes)
    lines = [line for plane in [p for p in planes if p.name.startswith("/device:")] or planes for line in plane.lines]
    spent: dict[str, float] = {}
    for line in [line for line in lines if line.name == "XLA Ops"] or [line for line in lines if line.name not in SUMS]:
        for event in line.events:
            name = event.name.split("(")[0].split(" ")[0][:60]
            spent[name] = spent.get(name, 0.0) + event.duration_ns / 1e6
    for name, ms in sorted(spent.items(), key=lambda each: -each[1])[:15]:
        say(name, ms=figure(ms))


def gib_of(program: Any) -> float:
    """GiB that a program needs beside its arguments."""
    return figure(program.memory_analysis().temp_size_in_bytes / 2**30)


def ms_of(seconds: float) -> float:
    """Milliseconds, to be written down."""
    return figure(1e3 * seconds)


def figure(number: float) -> float:
    """Four digits of a number: more are noise."""
    return float(f"{number:.4g}")
