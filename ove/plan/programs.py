"""Compiles the training step for hypothetical devices, and reads collectives and shapes from its HLO."""

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
from ove.train.init import TrainState, init_state
from ove.train.sharding import batch_sharding, leaf_name, placement, state_shardings
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
    """Returns the compiled step, the abstract state and its shardings. `labels_of`: labels of a stored sample."""
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


def collective_bytes(program: str) -> dict[str, int]:
    """Returns the bytes that one device puts through each kind of collective in a run of a compiled program (HLO text).

    An all-gather counts by its result, the others by their operand, whatever part of it a device sends. A collective in a loop
    counts once for each iteration, an asynchronous one once.
    """
    bodies = _computations(program)
    total: Counter[str] = Counter()
    for name, times in _executions(bodies).items():
        for line in bodies[name]:
            found = re.search(r"= (.*?) (" + "|".join(KINDS) + r")(?:-start)?\((.*?)\)(?:, [a-z_]+=|$)", line)
            if found:
                group = _group_size(line) or _devices(program)
                size = _bytes(_results(found[1], found[3].count("%")))
                total[found[2]] += 0 if group == 1 else times * size * (group if found[2] == "reduce-scatter" else 1)
    return dict(total)


def shapes_in(program: str) -> set[tuple[int, ...]]:
    """Finds the shapes of all arrays in a program."""
    return {tuple(map(int, dims.split(","))) for dims in re.findall(r"[a-z0-9]+\[([0-9,]+)\]", program)}


def materialized_leaves(program: str, state: TrainState, shardings: TrainState) -> list[str]:
    """Returns names of sharded leaves of the state of whose unsharded shape the program has an array."""
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


def _results(shapes: str, n_operands: int) -> list[tuple[str, str]]:
    """Returns (dtype, dimensions) of a collective's results; a `-start` may list operands before, counters after them."""
    arrays = re.findall(r"([a-z]+[0-9]*)\[([0-9,]*)\]", shapes)
    return arrays[n_operands : 2 * n_operands] if len(arrays) >= 2 * n_operands else arrays


def _bytes(arrays: list[tuple[str, str]]) -> int:
    return sum(_BYTES[dtype] * math.prod(int(n) for n in dims.split(",") if n) for dtype, dims in arrays)


def _group_size(line: str) -> int:
    """Returns the number of devices in a group; 0 if the program lists none, which means all.

    XLA writes groups out, counts them ([groups, devices of each]), or names axes of a mesh, of which it may take parts only:
    {{0,1},{2,3}}, [2,4]<=[8], mesh['data'=8,'fsdp'=2] {'data','fsdp':(1)2}.
    """
    groups = re.search(r"replica_groups=(mesh.*?\{[^{}]*\}|.*?)(?:, [a-z_]+=|$)", line)
    if not groups or groups[1] == "{}":
        return 0
    listed, counted = re.match(r"\{\{([0-9,]+)\}", groups[1]), re.match(r"\[\d+,(\d+)\]", groups[1])
    named = re.match(r"mesh\[(.*?)\].*?\{([^{}]*)\}$", groups[1])
    if listed:
        return len(listed[1].split(","))
    if counted:
        return int(counted[1])
    if not named:
        raise ValueError(f"replica groups of a collective in a form that is not known: {groups[1]}")
    sizes = dict(re.findall(r"'(.*?)'=(\d+)", named[1]))
    return math.prod(int(part or sizes[axis]) for axis, part in re.findall(r"'(.*?)'(?::\(\d+\)(\d+))?", named[2]))


def _devices(program: str) -> int:
    """Returns how many devices a program is for: replicas times partitions."""
    head = program.partition("\n")[0]
    return math.prod(int(n) for n in re.findall(r"(?:replica_count|num_partitions)=(\d+)", head))


def _computations(program: str) -> dict[str, list[str]]:
    """Returns name → lines of each computation; the one that is run first is called ENTRY."""
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
    """Returns how many times each computation is executed."""
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
    """Yields (computation, times) that an instruction runs; bodies of reductions, sorts and fusions hold no collective."""
    if re.search(r" while\(", line):
        body, turns = re.search(r"body=%?([\w.\-]+)", line), re.search(r'"known_trip_count":\{"n":"(\d+)"\}', line)
        if body:
            yield body[1], int(turns[1]) if turns else 1
    elif re.search(r" (call|call-start|conditional|async-start)\(", line):
        for called in re.findall(r"(?:to_apply|computation|branch_computations|calls)=\{?%?([\w.\-]+)", line):
            yield called, 1
