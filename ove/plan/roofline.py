"""The least time that a compiled program can take: for each instruction, its operations or its bytes, whichever take longer.

Operations are those of matrix products and attention kernels, bytes those that go through the device's memory: an operand that
a fusion slices counts by its slices, an update in place by what is new.
"""

import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from ove.plan.costs import DeviceKind
from ove.plan.hlo import Instruction, Program, Shape
from ove.plan.programs import KINDS, moved

Body = Mapping[str, Instruction]
ATTENTION = {
    "fmhaSoftmaxBackward": 5,
    "fmhaSoftmax": 2,
    "splash_mha_fwd": 2,
    "splash_mha_dq": 3,
    "splash_mha_dkv": 4,
    "mha_forward": 2,
    "mha_backward": 7,
}
"""Kernel, by a part of its name → products of (tokens × tokens × head width) that it computes for each head."""
FUSIONS = ("fusion", "fusion-start")
_FREE = {
    *("parameter", "constant", "get-tuple-element", "tuple", "bitcast", "after-all", "partition-id", "replica-id", "while"),
    *("call", "conditional", "async-start", "async-update", "async-done", "opt-barrier", "add-dependency", "domain"),
}
"""Opcodes that move nothing by themselves."""


@dataclass(frozen=True)
class Cost:
    """What an instruction costs in all its runs."""

    instruction: Instruction
    runs: int
    flops: Mapping[str, float]
    """10⁰ operations by the unit that computes them: bf16, f32 (and `f32 highest`)."""
    bytes: float
    seconds: float
    """At least; of a collective, in a ring over the links."""
    bound_by: str
    """compute, memory or links."""
    cycles: int
    """As libtpu estimates; 0 where it says nothing, or is not the compiler."""


def costs_of(program: Program, machine: DeviceKind) -> list[Cost]:
    """Returns the cost of everything that a program runs on each device."""
    found = []
    for instruction, runs, body in program.executed():
        base = instruction.opcode.removesuffix("-start")
        if instruction.opcode in _FREE or instruction.opcode.endswith("-done"):
            continue
        cycles = runs * (instruction.number("estimated_cycles") or 0)
        if base in KINDS:
            size, group = moved(instruction, program.n_devices)
            sent = (2 if base == "all-reduce" else 1) * size * (group - 1) / group
            rate = machine.near if group <= machine.domain else machine.far
            found.append(Cost(instruction, runs, {}, 0.0, runs * sent / rate / 1e9, "links", cycles))
            continue
        flops, size = _flops(program, instruction, body), _bytes(program, instruction, body)
        computing = sum((n / rate_of(unit, machine) for unit, n in flops.items()), 0.0)
        moving = size / machine.hbm / 1e9
        found.append(
            Cost(
                instruction,
                runs,
                {unit: runs * n for unit, n in flops.items()},
                float(runs * size),
                runs * max(computing, moving),
                "compute" if computing > moving else "memory",
                cycles,
            )
        )
    return found


def rate_of(unit: str, machine: DeviceKind) -> float:
    """Returns the operations a second of a unit, at most."""
    rate = {"f32 highest": machine.tflops_f32, "f32": machine.tflops_tf32}.get(unit, machine.tflops)
    return rate * 1e12


def _flops(program: Program, instruction: Instruction, body: Body) -> dict[str, float]:
    """Returns unit → operations of the products in an instruction."""
    found: dict[str, float] = {}
    for one, inside in _products(program, instruction, body):
        operands = [inside[name].results[0] for name in one.operands[:2] if name in inside]
        if len(operands) < 2 and one.opcode != "custom-call":
            continue
        if one.opcode == "custom-call":
            n, unit = _of_kernel(one, inside), "bf16"
        else:
            n = _of_dot(one, operands) if one.opcode == "dot" else _of_convolution(one, operands)
            narrow = all(shape.bits <= 16 for shape in operands)
            unit = "bf16" if narrow else "f32 highest" if "highest" in one.attributes else "f32"
        if n:
            found[unit] = found.get(unit, 0.0) + n
    return found


def _products(program: Program, instruction: Instruction, body: Body) -> Iterator[tuple[Instruction, Body]]:
    """Yields the products and kernels in an instruction and the fusions within, with the computation that each is in."""
    if instruction.opcode in ("dot", "convolution", "custom-call"):
        yield instruction, body
    elif instruction.opcode in FUSIONS:
        inside = program.computations.get(instruction.called() or "", {})
        for one in inside.values():
            yield from _products(program, one, inside)


def _of_dot(dot: Instruction, operands: list[Shape]) -> float:
    axes = re.search(r"lhs_contracting_dims=\{([0-9,]*)\}", dot.attributes)
    contracted = [operands[0].dims[int(axis)] for axis in axes[1].split(",") if axis] if axes else []
    return 2.0 * math.prod(dot.results[0].dims) * math.prod(contracted)


def _of_convolution(one: Instruction, operands: list[Shape]) -> float:
    """Counts a convolution, as which TPUs compute products: what falls on padding or between dilated values is none."""
    labels = re.search(r"dim_labels=(\w+)_(\w+)->(\w+)", one.attributes)
    if not labels:
        return 0.0
    left, right, out = (
        dict(zip(names, shape.dims, strict=True))
        for names, shape in zip(labels.groups(), (*operands, one.results[0]), strict=True)
    )
    window = re.search(r"window=\{(.*?)\}", one.attributes)
    settings = dict(re.findall(r"(\w+)=(\S+)", window[1])) if window else {}
    n = 2.0 * out["b"] * out["f"] * right["i"]
    for at, axis in enumerate(sorted(set(out) - {"b", "f"})):

        def of(name: str, default: int, at: int = at) -> int:
            return int(settings[name].split("x")[at].partition("_")[0]) if name in settings else default

        stride, low, spread, step = of("stride", 1), of("pad", 0), of("lhs_dilate", 1), of("rhs_dilate", 1)
        last = (left[axis] - 1) * spread
        n *= sum(
            0 <= (place := start * stride - low + tap * step) <= last and place % spread == 0
            for start in range(out[axis])
            for tap in range(right[axis])
        )
    return n


def _of_kernel(call: Instruction, body: Body) -> float:
    given = [body[name].results[0] for name in call.operands if name in body and body[name].results]
    if "gemm" in call.target or "matmul" in call.target:
        contracted = call.number("lhs_contracting_dimensions")
        return 0.0 if contracted is None else 2.0 * math.prod(call.results[0].dims) * given[0].dims[contracted]
    products = attention_products(f"{call.target} {call.name}")
    arrays = [shape.dims for shape in (*call.results, *given) if len(shape.dims) == 4]
    if not products or not arrays:
        return 0.0
    batch, one, other, width = arrays[0]
    return 2.0 * products * batch * min(one, other) * max(one, other) ** 2 * width


def attention_products(name: str) -> int:
    """Returns the products that a kernel computes if its name is that of an attention kernel, else 0."""
    return next((n for part, n in ATTENTION.items() if part in name), 0)


def _bytes(program: Program, instruction: Instruction, body: Body) -> int:
    """Returns the bytes that an instruction reads and writes in the device's memory."""
    given = [body[name].results[0].traffic if name in body and body[name].results else 0 for name in instruction.operands]
    written = sum(shape.traffic for shape in instruction.results)
    if instruction.opcode in FUSIONS:
        inside = program.computations.get(instruction.called() or "", {})
        read = sum(_read(program, inside, at, whole) for at, whole in enumerate(given))
        return min(_written(program, inside), written) + read
    if instruction.opcode in ("broadcast", "iota"):
        return written
    if instruction.opcode in ("dynamic-slice", "slice", "gather"):
        return 2 * written
    if instruction.opcode in ("dynamic-update-slice", "scatter"):
        return 2 * given[1 if instruction.opcode == "dynamic-update-slice" else -1]
    if instruction.target in ("AllocateBuffer", "Sharding"):
        return 0
    return sum(given) + (instruction.results[0].traffic if instruction.opcode == "copy-start" else written)


def _read(program: Program, inside: Body, at: int, whole: int) -> int:
    """Returns the bytes that a fusion reads of its operand number `at`."""
    given = next((i for i in inside.values() if i.opcode == "parameter" and i.value == str(at)), None)
    return _read_of(program, inside, given.name, whole) if given else whole


def _read_of(program: Program, inside: Body, name: str, whole: int) -> int:
    total = 0
    for use in inside.values():
        if name not in use.operands:
            continue
        if use.opcode in ("dynamic-slice", "slice", "gather"):
            # A slice within a fusion has no place in memory; it is taken for one that comes from there.
            total += sum(shape._replace(layout=shape.layout.split("S(")[0]).traffic for shape in use.results)
        elif use.opcode == "bitcast":
            total += _read_of(program, inside, use.name, whole)
        elif use.opcode == "fusion":
            within = program.computations.get(use.called() or "", {})
            total += sum(_read(program, within, at, whole) for at, one in enumerate(use.operands) if one == name)
        elif use.opcode == "dynamic-update-slice" and use.operands[0] == name and use.operands.count(name) == 1:
            continue
        else:
            return whole
        if total >= whole:
            return whole
    return total


def _written(program: Program, inside: Body) -> int:
    root = next((i for i in inside.values() if i.is_root), None)
    return _written_by(program, inside, root) if root else 0


def _written_by(program: Program, inside: Body, one: Instruction) -> int:
    if one.opcode == "tuple":
        return sum(_written_by(program, inside, inside[name]) for name in one.operands if name in inside)
    if one.opcode == "bitcast" and one.operands and one.operands[0] in inside:
        return _written_by(program, inside, inside[one.operands[0]])
    if one.opcode == "dynamic-update-slice" and one.operands[1] in inside:
        return inside[one.operands[1]].results[0].traffic
    if one.opcode == "scatter" and one.operands[-1] in inside:
        return inside[one.operands[-1]].results[0].traffic
    if one.opcode == "fusion":
        return _written(program, program.computations.get(one.called() or "", {}))
    if one.opcode == "parameter":
        return 0
    return sum(shape.traffic for shape in one.results)
