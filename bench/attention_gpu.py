"""Compiles attention and the large encoder for an NVIDIA GPU that is not here: temporary memory and the least time.

python bench/attention_gpu.py [--kind h200] [--layers 24] [--quick]

Needs requirements-compile.txt. Attention: 8 rows of 2,048 tokens in 8 segments of 256, 16 heads of 64, forward and backward.
Encoder: the gradient for 16 rows of 2,048 tokens in bfloat16. The least time is that of `ove compile`: each instruction at the
peak of its operations or bytes; for packed rows cuDNN is counted as if it computed all N² scores, though it skips what lies
outside segments. cuDNN's own workspace is not counted: it is known on a device only.
"""

import argparse
import functools
import os
import time
from collections.abc import Callable
from typing import Any

os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import jax.numpy as jnp

from ove.encoder import attention_cpu, encoder
from ove.encoder.attention import attend
from ove.encoder.presets import preset
from ove.encoder.segments import Segments, sort_segments
from ove.plan.absent import absent_devices, traced_for
from ove.plan.costs import DEVICE_KINDS
from ove.plan.hlo import parse
from ove.plan.roofline import costs_of


def report(name: str, kind: str, function: Callable, *shapes: Any) -> None:
    """Compiles and prints a line."""
    place = jax.sharding.SingleDeviceSharding(absent_devices(kind, 1)[0])
    given = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=place), shapes)
    start = time.perf_counter()
    with traced_for(kind):
        program = jax.jit(function).lower(*given).compile()
    seconds = time.perf_counter() - start
    costs = costs_of(parse(program.as_text()), DEVICE_KINDS[kind])
    least_ms, launches = 1e3 * sum(cost.seconds for cost in costs), sum(cost.runs for cost in costs)
    temporary = program.memory_analysis().temp_size_in_bytes / 2**20
    print(
        f"{name:34}{temporary:>12.1f} MiB{least_ms:>10.2f} ms{launches:>9} instructions{seconds:>9.1f} s to compile", flush=True
    )


def of_attention(kind: str, tokens: int) -> None:
    """Attention alone: what is asked of cuDNN, and plain JAX in float32 with two numbers of scores held at a time."""
    ids = jax.ShapeDtypeStruct((8, tokens), "int32")
    ways: dict[str, Callable] = {
        "all tokens": lambda ids: None,
        "packed, by lengths": lambda ids: sort_segments(ids, 8)[0],
        "packed, by a mask": Segments,
    }

    def both(segments: Callable, ids: Any, *arrays: Any) -> Any:
        out, pull = jax.vjp(lambda *xs: attend(*xs, segments(ids)), *arrays[:3])
        return out, pull(arrays[3])

    x = jax.ShapeDtypeStruct((8, 16, tokens, 64), "bfloat16")
    for name, segments in ways.items():
        report(f"cudnn, {name}", kind, functools.partial(both, segments), ids, x, x, x, x)
    x = jax.ShapeDtypeStruct(x.shape, "float32")
    for scores in (attention_cpu.SCORES_AT_ONCE, attention_cpu.SCORES_ON_ACCELERATORS):
        attention_cpu.SCORES_ON_ACCELERATORS = scores
        report(f"cpu, float32, {scores:.1e} scores", kind, functools.partial(both, ways["all tokens"]), ids, x, x, x, x)


def of_encoder(kind: str, layers: int, tokens: int) -> None:
    """The gradient of the encoder for each `remat`, in a loop and written out."""
    patches, positions = jax.ShapeDtypeStruct((16, tokens, 588), "uint8"), jax.ShapeDtypeStruct((16, tokens, 3), "int32")
    for remat in ("none", "dots", "full"):
        for unroll in (False, True):
            config = preset("large", compute="bfloat16", layers=layers, remat=remat, unroll=unroll)
            params = jax.eval_shape(functools.partial(encoder.init, config), jax.random.key(0))

            def loss(params: Any, *inputs: Any, config: Any = config) -> jax.Array:
                return encoder.apply(config, params, *inputs).pooled.astype(jnp.float32).sum()

            name = f"encoder, {remat}, {'written out' if unroll else 'loop'}"
            report(name, kind, jax.value_and_grad(loss), params, patches, positions)


def main() -> None:
    """Prints both tables."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--kind", default="h200")
    parser.add_argument("--layers", type=int, default=24)
    parser.add_argument("--quick", action="store_true", help="512 tokens and 2 layers, to see that it works")
    arguments = parser.parse_args()
    tokens, layers = (512, 2) if arguments.quick else (2048, arguments.layers)
    of_attention(arguments.kind, tokens)
    of_encoder(arguments.kind, layers, tokens)


if __name__ == "__main__":
    main()
