"""The training step compiled without running it, for devices that need not be there in earnest, and what its program says."""

import math
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh

from ove.config import RunConfig
from ove.train.fsdp import leaf_name
from ove.train.init import TrainState, init_state
from ove.train.sharding import batch_sharding, placement, state_shardings
from ove.train.step import make_step

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")
_BYTES = {
    "pred": 1,
    "s8": 1,
    "u8": 1,
    "bf16": 2,
    "f16": 2,
    "s16": 2,
    "u16": 2,
    "s32": 4,
    "u32": 4,
    "f32": 4,
    "s64": 8,
    "f64": 8,
}


def compile_step(
    config: RunConfig, mesh: Mesh, n_centers: Mapping[str, int], tokens_of: Mapping[str, int], labels_of: Mapping[str, int]
) -> tuple[jax.stages.Compiled, TrainState, TrainState]:
    """The compiled step, the abstract state and its shardings; no array is made. `labels_of`: labels of a stored sample."""
    make = partial(init_state, config, dict(n_centers), placement(mesh).n_shards)
    abstract = jax.eval_shape(make)
    shardings = state_shardings(abstract, mesh)
    by_sample = batch_sharding(mesh)

    def like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=by_sample)

    batch = {
        str(head.bank): {
            "patches": like((head.batch_size, tokens_of[head.bank], config.encoder.patch_values), jnp.uint8),
            "positions": like((head.batch_size, tokens_of[head.bank], 3), jnp.int32),
            "labels": like((head.batch_size, labels_of[head.bank]), jnp.int32),
        }
        for head in config.batches.heads
    }
    state = jax.tree.map(lambda leaf, at: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=at), abstract, shardings)
    step = make_step(config, mesh, shardings, dict(n_centers))
    return step.lower(state, batch).compile(), abstract, shardings


def traffic(program: str) -> dict[str, int]:
    """Bytes that one device puts through each kind of collective in a run of a compiled program (HLO text).

    Of gathers the result counts, of the others the operand: what the whole has, not what a device sends. Collectives in loops
    count as often as the loop turns.
    """
    bodies = _computations(program)
    total: Counter[str] = Counter()
    for name, times in _executions(bodies).items():
        for line in bodies[name]:
            found = re.search(r"= (.*?) (" + "|".join(KINDS) + r")(?:-start)?\((.*)", line)
            if found:
                group = _group_size(line)
                total[found[2]] += (
                    0 if group == 1 else times * _bytes(found[1]) * (group if found[2] == "reduce-scatter" else 1)
                )
    return dict(total)


def shapes_in(program: str) -> set[tuple[int, ...]]:
    """The shapes of all arrays in a program."""
    return {tuple(map(int, dims.split(","))) for dims in re.findall(r"[a-z0-9]+\[([0-9,]+)\]", program)}


def whole_leaves(program: str, state: TrainState, shardings: TrainState) -> list[str]:
    """Names of the state's leaves that the rules cut but of whose whole shape the program has an array."""
    shapes = shapes_in(program)
    leaves = zip(jax.tree_util.tree_flatten_with_path(state)[0], jax.tree.leaves(shardings), strict=True)
    return [
        leaf_name(path)
        for (path, leaf), at in leaves
        # Kernels outside of the blocks are gathered by design, and vectors may have the shape of something else.
        if leaf.ndim >= 2
        and not at.is_fully_replicated
        and leaf.shape in shapes
        and re.search("/blocks/|/rows", leaf_name(path))
    ]


def _bytes(shapes: str) -> int:
    return sum(
        _BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n)
        for dtype, dims in re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", shapes)
    )


def _group_size(line: str) -> int:
    """Devices that take part; 0 where the program does not list them, for it is all."""
    listed = re.search(r"replica_groups=\{\{([0-9,]+)\}", line)
    if listed:
        return len(listed[1].split(","))
    counted = re.search(r"replica_groups=\[(\d+),(\d+)\]", line)
    return int(counted[2]) if counted else 0


def _computations(program: str) -> dict[str, list[str]]:
    """Name → lines of each computation; the one that is run first is called ENTRY."""
    bodies: dict[str, list[str]] = {}
    name = ""
    for line in program.splitlines():
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            name = "ENTRY" if head[1] else head[2]
            bodies[name] = []
        elif name and line.startswith("  "):
            bodies[name].append(line)
    return bodies


def _executions(bodies: Mapping[str, list[str]]) -> Counter[str]:
    """How often each computation is run."""
    times: Counter[str] = Counter()

    def run(name: str, n: int) -> None:
        times[name] += n
        for line in bodies[name]:
            for called, turns in _calls(line):
                if called in bodies:
                    run(called, n * turns)

    run("ENTRY", 1)
    return times


def _calls(line: str) -> Iterator[tuple[str, int]]:
    """(computation, times) that an instruction runs; what sums, sorts and fusions apply to numbers holds no collective."""
    if re.search(r" while\(", line):
        body, turns = re.search(r"body=%?([\w.\-]+)", line), re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        if body:
            yield body[1], int(turns[1]) if turns else 1
    elif re.search(r" (call|conditional)\(", line):
        for called in re.findall(r"(?:to_apply|computation|branch_computations)=\{?%?([\w.\-]+)", line):
            yield called, 1
