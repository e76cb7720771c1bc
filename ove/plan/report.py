"""Compiles a run's program for devices that are not here, and sums it up: memory, operations, bytes, collectives, time."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax

from ove.plan.absent import absent_devices, traced_for
from ove.plan.costs import DeviceKind, RunShape
from ove.plan.hlo import Program, parse
from ove.plan.programs import compile_encoder, compile_step, materialized_leaves, moved
from ove.plan.red_flags import Expected, RedFlag, red_flags
from ove.plan.roofline import Cost, costs_of
from ove.train.sharding import make_mesh

PROGRAMS = ("step", "encoder", "forward")
_GIB = 2**30


@dataclass(frozen=True)
class Dear:
    """An instruction that takes long."""

    ms: float
    """In all its runs: libtpu's estimate, or else the bound."""
    runs: int
    bound_by: str
    """compute, memory or links: which of them takes longest."""
    instruction: str
    """Opcode and, of a custom call, its kernel."""
    results: str
    flops: float
    bytes: float
    """Of all runs, as `flops`."""
    source: str
    """Lines of `ove`: caller > line."""
    op_name: str
    """What JAX calls it."""


@dataclass(frozen=True)
class Report:
    """What a compiled program takes of each device."""

    memory_gib: Mapping[str, float]
    """`arguments`, `outputs`, `aliased` (outputs that lie in arguments), `temporary`; `peak`: all, aliased ones once."""
    flops: Mapping[str, float]
    """Of matrix products and attention, by the numbers that they compute with: bf16, f32, f32 highest."""
    bytes: float
    """Through the device's memory."""
    collectives: Mapping[str, Mapping[str, float]]
    """Kind → `bytes` (gathers by result, others by operand), `runs`, `ms`."""
    bound_ms: Mapping[str, float]
    """The least time by what bounds it: `compute`, `memory`, `links`; `sum` if nothing overlaps."""
    libtpu_ms: float | None
    """Estimated by the compiler for TPUs; Pallas' kernels, for which it has none, at their bound."""
    dearest: tuple[Dear, ...]
    uncounted: tuple[str, ...]
    """Kernels whose operations are not known: the bound has their bytes alone."""
    red_flags: tuple[RedFlag, ...]


def compile_for(at: RunShape, kind: str, program: str) -> tuple[jax.stages.Compiled, Expected]:
    """Compiles one of `PROGRAMS` for devices of a kind, and says what it was compiled from.

    `step` is the training step; `encoder` and `forward` run a microbatch of the first head on one device.
    """
    config, head = at.config, at.config.batches.heads[0]
    # Where tokens are as many as a layer is wide, scores could not be told from its kernels and hidden values.
    counts = frozenset(at.tokens_of.values()) - {config.encoder.width, config.encoder.mlp, config.encoder.head_width}
    with traced_for(kind):
        if program == "step":
            mesh = make_mesh(config.mesh, absent_devices(kind, at.n_devices))
            compiled, state, shardings = compile_step(config, mesh, at.n_centers, at.tokens_of, at.labels_of)
            at_rest: Any = shardings.banks
            banks = frozenset(at_rest[name].rows.shard_shape(bank.rows.shape) for name, bank in state.banks.items())
            whole = tuple(materialized_leaves(str(compiled.as_text()), state, shardings)) if at.n_devices > 1 else ()
            return compiled, Expected(config.encoder.compute, counts, banks, whole)
        samples = head.batch_size // at.n_devices // config.train.grad_accum_steps
        device = absent_devices(kind, 1)[0]
        compiled = compile_encoder(config.encoder, device, samples, at.tokens_of[head.bank], backward=program == "encoder")
        return compiled, Expected(config.encoder.compute, counts)


def report_on(compiled: jax.stages.Compiled, machine: DeviceKind, expected: Expected, top: int = 10) -> Report:
    """Sums up a program that was compiled for that kind of device."""
    program = parse(str(compiled.as_text()))
    costs = costs_of(program, machine)
    flops, bound = dict[str, float](), dict.fromkeys(("compute", "memory", "links"), 0.0)
    for cost in costs:
        bound[cost.bound_by] += 1e3 * cost.seconds
        for unit, n in cost.flops.items():
            flops[unit] = flops.get(unit, 0.0) + n
    return Report(
        memory_gib=_memory(compiled.memory_analysis()),
        flops=flops,
        bytes=math.fsum(cost.bytes for cost in costs),
        collectives=_collectives(program, costs),
        bound_ms=bound | {"sum": sum(bound.values())},
        libtpu_ms=math.fsum(_ms(cost, machine) for cost in costs) if machine.clock_ghz else None,
        dearest=tuple(_dear(program, c, machine) for c in sorted(costs, key=lambda c: -_ms(c, machine))[:top]),
        uncounted=tuple(sorted({_kernel(cost) for cost in costs if not cost.flops and _is_kernel(cost)})),
        red_flags=red_flags(program, costs, expected),
    )


def _collectives(program: Program, costs: Sequence[Cost]) -> dict[str, dict[str, float]]:
    found = dict[str, dict[str, float]]()
    for cost in costs:
        size, group = moved(cost.instruction, program.n_devices) if cost.bound_by == "links" else (0, 1)
        if group > 1:
            kind = cost.instruction.opcode.removesuffix("-start")
            so_far = found.setdefault(kind, {"bytes": 0.0, "runs": 0.0, "ms": 0.0})
            so_far["bytes"] += cost.runs * size
            so_far["runs"] += cost.runs
            so_far["ms"] += 1e3 * cost.seconds
    return found


def _dear(program: Program, cost: Cost, machine: DeviceKind) -> Dear:
    one = cost.instruction
    return Dear(
        ms=_ms(cost, machine),
        runs=cost.runs,
        bound_by=cost.bound_by,
        instruction=f"{one.opcode} {one.target}".strip(),
        results=" ".join(map(str, one.results)),
        flops=math.fsum(cost.flops.values()),
        bytes=cost.bytes,
        source=program.source(one),
        op_name=one.op_name,
    )


def to_text(report: Report) -> str:
    """Writes a report in lines."""
    memory = ", ".join(f"{name} {size:.2f}" for name, size in report.memory_gib.items())
    flops = ", ".join(f"{unit} {n / 1e12:.2f}" for unit, n in report.flops.items())
    lines = [
        f"memory of a device, GiB: {memory}",
        f"10¹² operations of products: {flops or 'none'}; 10⁹ bytes through memory: {report.bytes / 1e9:.2f}",
        *(
            f"{kind}: {of['bytes']:,.0f} bytes in {of['runs']:,.0f}, {of['ms']:.2f} ms in a ring"
            for kind, of in report.collectives.items()
        ),
        "at least, ms: " + ", ".join(f"{name} {ms:.2f}" for name, ms in report.bound_ms.items()),
    ]
    if report.libtpu_ms is not None:
        lines.append(f"libtpu estimates {report.libtpu_ms:.2f} ms")
    if report.uncounted:
        lines.append(f"operations not counted of: {', '.join(report.uncounted)}")
    lines += [f"RED FLAG, {flag.kind}: {flag.detail}" for flag in report.red_flags]
    lines.append("dearest, ms (times run, bound by): instruction, results; source; name")
    for one in report.dearest:
        of = f"{one.instruction}, {one.results[:100]}; {one.source}; {one.op_name[-80:]}"
        lines.append(f"{one.ms:9.3f} ({one.runs}, {one.bound_by}): {of}")
    return "\n".join(lines)


def _ms(cost: Cost, machine: DeviceKind) -> float:
    return cost.cycles / machine.clock_ghz / 1e6 if cost.cycles and machine.clock_ghz else 1e3 * cost.seconds


def _memory(sizes: Any) -> dict[str, float]:
    named = {
        "arguments": sizes.argument_size_in_bytes,
        "outputs": sizes.output_size_in_bytes,
        "aliased": sizes.alias_size_in_bytes,
        "temporary": sizes.temp_size_in_bytes,
    }
    peak = named["arguments"] + named["outputs"] - named["aliased"] + named["temporary"]
    return {name: size / _GIB for name, size in (named | {"peak": peak}).items()}


def _is_kernel(cost: Cost) -> bool:
    target = cost.instruction.target
    return any(part in target for part in ("tpu_custom_call", "triton", "mosaic", "cudnn", "cublas"))


def _kernel(cost: Cost) -> str:
    name = cost.instruction.name.rpartition(".")[0] or cost.instruction.name
    return f"{cost.instruction.target} {name}"
