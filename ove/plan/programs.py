"""Compiles the training step for hypothetical devices, and reads collectives and shapes from its HLO."""

import math
import re
from collections import Counter
from collections.abc import Mapping
from functools import partial
from typing import Any

import jax
import jax.numpy as jnp
from jax.sharding import Mesh
from jaxtyping import Array

from ove.config import EncoderConfig, RunConfig
from ove.encoder import encoder
from ove.encoder.encoder import Params
from ove.plan.hlo import Instruction, parse
from ove.train.init import TrainState, init_state
from ove.train.sharding import batch_sharding, leaf_name, placement, state_shardings
from ove.train.step import make_step

KINDS = ("all-gather", "reduce-scatter", "all-reduce", "all-to-all", "collective-permute")


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
    counts once for each iteration, an asynchronous one once, one among a single device nothing.
    """
    parsed, total = parse(program), Counter[str]()
    for instruction, times, _ in parsed.executed():
        kind = instruction.opcode.removesuffix("-start")
        if kind in KINDS:
            size, group = moved(instruction, parsed.n_devices)
            total[kind] += times * size if group != 1 else 0
    return dict(total)


def moved(collective: Instruction, n_devices: int) -> tuple[int, int]:
    """Returns the bytes that a collective counts for, and the devices in its group."""
    group, arrays, n = _group_size(collective) or n_devices, collective.results, len(collective.operands)
    if collective.opcode.endswith("-start") and len(arrays) >= 2 * n:
        # It may list operands before its results, counters after them.
        arrays = arrays[n : 2 * n]
    return sum(shape.size for shape in arrays) * (group if "reduce-scatter" in collective.opcode else 1), group


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


def _group_size(collective: Instruction) -> int:
    """Returns the number of devices in a group; 0 if the program lists none, which means all.

    XLA writes groups out, counts them ([groups, devices of each]), or names axes of a mesh, of which it may take parts only:
    {{0,1},{2,3}}, [2,4]<=[8], mesh['data'=8,'fsdp'=2] {'data','fsdp':(1)2}.
    """
    groups = re.search(r"replica_groups=(mesh.*?\{[^{}]*\}|.*?)(?:, [a-z_]+=|$)", collective.attributes)
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


def compile_encoder(
    config: EncoderConfig, device: jax.Device, samples: int, tokens: int, backward: bool = True
) -> jax.stages.Compiled:
    """Returns the encoder compiled for one device: the sum of the embeddings of a batch with its gradient, or they alone."""
    place = jax.sharding.SingleDeviceSharding(device)

    def like(shape: tuple[int, ...], dtype: Any) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=place)

    def embed(params: Params, patches: Array, positions: Array) -> Array:
        pooled = encoder.apply(config, params, patches, positions).pooled
        assert pooled is not None, "train() refuses an encoder without a head"
        return pooled

    def summed(params: Params, patches: Array, positions: Array) -> Array:
        return embed(params, patches, positions).astype(jnp.float32).sum()

    params = jax.tree.map(lambda leaf: like(leaf.shape, leaf.dtype), encoder.skeleton(config)[1])
    patches, positions = like((samples, tokens, config.patch_values), jnp.uint8), like((samples, tokens, 3), jnp.int32)
    return jax.jit(jax.value_and_grad(summed) if backward else embed).lower(params, patches, positions).compile()
