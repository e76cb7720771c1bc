"""Measures the three settings of `encoder.remat`: time to compile, memory, time of a training step, on a CPU.

python bench/encoder_remat.py [--quick] [--rounds 5]

Compiled only: the gradient of the large encoder (24 layers of width 1,024) for one clip of 2,048 tokens, float32; memory is
what XLA sets aside beside parameters and gradients. Run: the same of 12 layers of width 384, turns going round, medians. The
last line is one JSON object.
"""

import argparse
import dataclasses
import json
import os
import statistics
import time
from typing import Any

if __name__ == "__main__":
    os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.encoder.presets import preset

MODES = ("none", "dots", "full")


def compiled(config: EncoderConfig, tokens: int, clips: int = 1, options: dict[str, Any] | None = None) -> tuple[Any, float]:
    """The gradient of the summed embedding with respect to the parameters, and the seconds it took to compile.

    `options` of the compiler.
    """
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    patches = jax.ShapeDtypeStruct((clips, tokens, config.patch_values), jnp.uint8)
    positions = jax.ShapeDtypeStruct((clips, tokens, 3), jnp.int32)
    step = jax.jit(jax.grad(lambda *inputs: encoder.apply(config, *inputs).pooled.sum()))
    lowered = step.lower(params, patches, positions)
    start = time.perf_counter()
    program = lowered.compile(compiler_options=options)
    return program, time.perf_counter() - start


def compile_only(tokens: int) -> dict[str, dict[str, float]]:
    """Seconds to compile and GiB of temporary memory of the large encoder, for each mode."""
    found = {}
    for mode in MODES:
        program, seconds = compiled(preset("large", remat=mode), tokens)
        memory = program.memory_analysis()
        found[mode] = {"compile_s": round(seconds, 1), "temp_gib": round(memory.temp_size_in_bytes / 2**30, 2)}
    return found


def run(tokens: int, rounds: int) -> dict[str, dict[str, float]]:
    """Milliseconds of a step and MiB of temporary memory of 12 layers of width 384, for each mode."""
    config = preset("small")
    params = jax.jit(lambda: encoder.init(config, jax.random.key(0)))()
    patches = jax.random.randint(jax.random.key(1), (1, tokens, config.patch_values), 0, 256).astype(jnp.uint8)
    positions = jax.random.randint(jax.random.key(2), (1, tokens, 3), 0, 16)
    programs = {mode: compiled(dataclasses.replace(config, remat=mode), tokens)[0] for mode in MODES}
    times: dict[str, list[float]] = {mode: [] for mode in MODES}
    for _ in range(rounds + 1):
        for mode, program in programs.items():
            start = time.perf_counter()
            jax.block_until_ready(program(params, patches, positions))
            times[mode].append(time.perf_counter() - start)
    return {
        mode: {
            "step_ms": round(1e3 * statistics.median(times[mode][1:])),
            "temp_mib": round(program.memory_analysis().temp_size_in_bytes / 2**20),
        }
        for mode, program in programs.items()
    }


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer tokens and rounds, to see that it works")
    parser.add_argument("--rounds", type=int, default=5)
    arguments = parser.parse_args()
    tokens, rounds = (512, 2) if arguments.quick else (2048, arguments.rounds)
    large, small = compile_only(tokens), run(tokens, rounds)
    print(f"{'remat':8}{'large: compile s':>18}{'temp GiB':>10}{'small: step ms':>18}{'temp MiB':>10}")
    for mode in MODES:
        figures = [*large[mode].values(), *small[mode].values()]
        print(f"{mode:8}{figures[0]:>18}{figures[1]:>10}{figures[2]:>18}{figures[3]:>10}")
    print(json.dumps({"bench": "encoder_remat", "quick": arguments.quick, "tokens": tokens, "large": large, "small": small}))


if __name__ == "__main__":
    main()
