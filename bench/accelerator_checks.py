"""Parts of bench/accelerator.py: parity with a CPU, backends of attention against their definition, the step of a bank."""

import functools
import statistics
import sys
import time
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from accelerator_parts import ROOT, TOKENS, Say, figure, gib_of, ms_of, seconds_of, try_each
from centers import Ours

from ove.encoder import attention, encoder
from ove.encoder.presets import preset
from ove.errors import ConfigError


def parity_part(say: Say, is_quick: bool) -> None:
    """Says how far figures are from those of a CPU: of this one, and of one whose figures are in a file of the tests."""
    for compute, most in (("float32", 1e-4), ("bfloat16", 3e-2))[: 1 if is_quick else None]:
        errors = [relative_error(ours, theirs) for ours, theirs in zip(*_on_both(compute), strict=True)]
        say(f"encoder and gradients, {compute}, against this CPU", error=_few(max(errors)), ok=max(errors) < most)
    sys.path += [str(ROOT / "tests"), str(ROOT / "tests" / "train")]
    from test_train_golden import GOLDEN
    from tiny_run import batch, config_of, state_on

    from ove.train.sharding import make_mesh
    from ove.train.step import make_step

    with jax.default_matmul_precision("highest"):
        state, _, shardings = state_on(config_of(Path()), 1)
        step = make_step(config_of(Path()), make_mesh(devices=jax.devices()[:1]), shardings)
        worst, where = 0.0, ""
        for number in range(3):
            state, metrics = step(state, batch(number))
            for name, values in GOLDEN.items():
                off = abs(float(metrics[name]) - values[number]) / max(abs(values[number]), 0.1)
                worst, where = max((worst, where), (off, f"{name}, step {number}"))
    say("three training steps, against tests/train/test_train_golden.py", error=_few(worst), where=where, ok=worst < 2e-3)


def _on_both(compute: str) -> list[list[Any]]:
    """Value, tokens and gradients of the tiny encoder, on this machine's first device and on its CPU."""
    config = preset("tiny", compute=compute)
    params = jax.device_get(jax.jit(lambda: encoder.init(config, jax.random.key(0)))())
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (2, 128, 588), np.uint8), rng.integers(0, 16, (2, 128, 3), np.int32)

    def loss(params: Any, inputs: Any) -> Any:
        seen = encoder.apply(config, params, *inputs)
        return seen.pooled.astype(jnp.float32)[:, ::3].sum(), seen.tokens

    found = []
    for device in (jax.devices()[0], jax.devices("cpu")[0]):
        with jax.default_matmul_precision("highest"), jax.default_device(device):
            (value, tokens), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(params, inputs)
        grads["pool"]["k"].pop("bias")  # zero but for rounding
        found.append(jax.device_get([value, tokens, *jax.tree.leaves(grads)]))
    return found


def attention_part(say: Say, is_quick: bool) -> None:
    """Says of each backend that can be used here how far it is from the definition, and how fast it is, with gradients."""
    shapes = [(2, 3, 128, 64)] if is_quick else [(16, 16, TOKENS, 64), (128, 16, 256, 64)]
    for b, heads, n, width in shapes:
        for layout, pieces in (("fixed", 1), ("packed", 8)):
            segments = jnp.arange(n)[None].repeat(b, 0) * pieces // n if pieces > 1 else None
            tokens = jax.ShapeDtypeStruct((b, heads, n, width), jnp.bfloat16)
            for name in attention.BACKENDS:
                if name == "reference" and not is_quick:  # the definition itself: too large
                    continue
                try:
                    jax.eval_shape(lambda q, s, name=name: attention.attend(q, q, q, s, name), tokens, segments)
                except ConfigError:  # not on this machine
                    continue
                row = f"{name}, {layout}, {b} × {heads} × {n} × {width}"
                try_each(say, row, functools.partial(_attention, name, segments, (b, heads, n, width), pieces))


def _attention(name: str, segments: Any, shape: tuple[int, ...], pieces: int) -> dict[str, Any]:
    def both(name: str, segments: Any, q: Any, k: Any, v: Any, out: Any) -> Any:
        result, pull = jax.vjp(lambda q, k, v: attention.attend(q, k, v, segments, name), q, k, v)
        return [result, *pull(out)]

    few = (min(2, shape[0]), min(2, shape[1]), *shape[2:])
    small = [jax.random.normal(jax.random.key(i), few, jnp.bfloat16) for i in range(4)]
    some = jax.tree.map(lambda x: x[: few[0]], segments)
    with jax.default_matmul_precision("highest"):
        expected = jax.jit(functools.partial(both, "reference"))(some, *(x.astype(jnp.float32) for x in small))
    got = jax.jit(functools.partial(both, name))(some, *small)
    errors = [relative_error(a.astype(jnp.float32), b) for a, b in zip(got, expected, strict=True)]
    whole = [jax.random.normal(jax.random.key(i), shape, jnp.bfloat16) for i in range(4)]
    forward = jax.jit(lambda q, k, v: attention.attend(q, k, v, segments, name))
    begun_s = time.perf_counter()
    program = jax.jit(functools.partial(both, name)).lower(segments, *whole).compile()
    compile_s = time.perf_counter() - begun_s
    taken = seconds_of(lambda: forward(*whole[:3])), seconds_of(lambda: program(segments, *whole))
    flops = 4.0 * np.prod(shape) * shape[2] / pieces
    return {
        "error": _few(max(errors)),
        "ok": bool(max(errors) < 2e-2),
        "forward_ms": ms_of(taken[0]),
        "both_ms": ms_of(taken[1]),
        "forward_tflops": figure(flops / taken[0] / 1e12),
        "both_tflops": figure(3 * flops / taken[1] / 1e12),
        "compile_s": round(compile_s, 1),
        "temp_gib": gib_of(program),
    }


def bank_part(say: Say, is_quick: bool) -> None:
    """Says what the step of one bank takes, of few and of many centers."""
    sizes = {"width": 64, "batch": 16, "sampled": 100} if is_quick else {"width": 1024, "batch": 4096, "sampled": 20_000}
    for n in (1_000,) if is_quick else (100_000, 2_000_000):
        try_each(say, f"{n:,} centers, {sizes}", functools.partial(_bank, n, sizes, 2 if is_quick else 10))


def _bank(n: int, sizes: dict[str, int], turns: int) -> dict[str, Any]:
    begun_s = time.perf_counter()
    step = Ours(n, labels=10, **sizes)
    made_s = time.perf_counter() - begun_s
    taken = statistics.median([step() for _ in range(turns + 1)][1:])
    return {"ms": ms_of(taken), "made_and_compiled_s": round(made_s, 1)} | {
        f"{name}_mib": figure(mib) for name, mib in step.memory().items()
    }


def relative_error(ours: Any, theirs: Any) -> float:
    """‖ours − theirs‖ / ‖theirs‖; infinite unless all are finite."""
    ours, theirs = (np.asarray(x, np.float64) for x in (ours, theirs))
    return float(np.linalg.norm(ours - theirs) / np.linalg.norm(theirs)) if np.isfinite(ours).all() else float("inf")


def _few(number: float) -> float:
    return float(f"{number:.1e}")
