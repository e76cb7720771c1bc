"""What should not be in a compiled step, and how to see it in the program."""

import re
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import NamedTuple

from ove.plan.hlo import Instruction, Program, Shape
from ove.plan.roofline import Cost, attention_products

_MIB = 2**20
_SMALL_SHARE = 0.002
"""Of all operations: products in float32 that are not worth a word."""
_PADDING_MIB = 64
"""Bytes of padding in one array that are worth one."""
_NAMES_ALONE = {"parameter", "get-tuple-element", "tuple", "bitcast", "while", "copy-done"}
"""Opcodes whose results were made by others."""


@dataclass(frozen=True)
class Expected:
    """What a program was compiled from."""

    compute: str
    """Dtype of the encoder's computations."""
    tokens: frozenset[int] = frozenset()
    """Tokens of the samples, if no other axis is as long."""
    banks: frozenset[tuple[int, ...]] = frozenset()
    """Shapes of the rows of banks on one device."""
    whole: tuple[str, ...] = ()
    """Leaves of the state that are sharded, and of whose whole shape the program has an array."""


class RedFlag(NamedTuple):
    """Something that costs time or memory for nothing."""

    kind: str
    detail: str
    """How much, and in which lines."""


Finder = Callable[[Program, Sequence[Cost], Expected], Iterator[str]]


def red_flags(program: Program, costs: Sequence[Cost], expected: Expected) -> tuple[RedFlag, ...]:
    """Looks for each of `FINDERS` in a program."""
    return tuple(RedFlag(kind, detail) for kind, find in FINDERS.items() for detail in find(program, costs, expected))


def _wide_products(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    if expected.compute == "float32":
        return
    everything, found = sum(sum(cost.flops.values()) for cost in costs), dict[str, float]()
    for cost in costs:
        place = program.source(cost.instruction)
        # Banks are meant to be exact (docs/centers.md).
        if "encoder/" in place:
            wide = sum(n for unit, n in cost.flops.items() if unit.startswith("f32"))
            found[place] = found.get(place, 0.0) + wide
    for place, n in found.items():
        if n > _SMALL_SHARE * everything:
            yield f"{n / 1e12:.3f}·10¹² operations at {place}"


def _scores(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    found = dict[str, str]()
    for instruction, _, _ in program.executed():
        for shape in instruction.results:
            squares = [n for n in expected.tokens if shape.dims.count(n) >= 2]
            if squares and any("encoder/attention" in line for line in program.lines(instruction)):
                found.setdefault(str(shape), program.source(instruction))
    yield from (f"{shape} at {place}" for shape, place in found.items())


def _doubles(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    found = dict.fromkeys(
        _place(program, instruction)
        for body in program.computations.values()
        for instruction in body.values()
        if any(shape.dtype in ("f64", "c128") for shape in instruction.results)
    )
    yield from found


def _callbacks(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    for instruction, runs, _ in program.executed():
        to_host = instruction.opcode in ("send", "recv") and "is_host_transfer=true" in instruction.attributes
        if to_host or instruction.opcode in ("infeed", "outfeed") or "callback" in instruction.target:
            yield f"{instruction.target or instruction.opcode}, {runs} times at {_place(program, instruction)}"


def _bank_copies(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    for instruction, runs, _ in program.executed():
        if instruction.results and instruction.results[0].dims in expected.banks and _only_copies(program, instruction):
            shape, place = instruction.results[0], _place(program, instruction)
            yield f"{shape}, {shape.size / _MIB:.0f} MiB, {runs} times at {place}"
    for name in expected.whole:
        yield f"{name} is whole on a device"


def _only_copies(program: Program, instruction: Instruction) -> bool:
    if instruction.opcode in ("copy", "copy-start"):
        return True
    inside = program.computations.get(instruction.called() or "", {}) if instruction.opcode == "fusion" else {}
    opcodes = {one.opcode for one in inside.values()} - {"parameter", "bitcast", "tuple"}
    return bool(opcodes) and opcodes <= {"copy", "transpose"}


def _padded(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    found = dict[Shape, tuple[int, str]]()
    for instruction, _, _ in program.executed():
        if instruction.opcode in _NAMES_ALONE:
            continue
        for shape in instruction.results:
            lost = shape.padded - shape.size
            if shape.traffic and lost >= _PADDING_MIB * _MIB and lost >= shape.size / 2:
                found.setdefault(shape, (lost, _place(program, instruction)))
    for shape, (lost, place) in sorted(found.items(), key=lambda item: -item[1][0]):
        yield f"{shape} is stored in {(shape.size + lost) / _MIB:.0f} MiB, not {shape.size / _MIB:.0f}, at {place}"


def _place(program: Program, instruction: Instruction) -> str:
    return program.source(instruction) or instruction.op_name or instruction.name


def _attention_twice(program: Program, costs: Sequence[Cost], expected: Expected) -> Iterator[str]:
    runs = Counter[str]()
    for cost in costs:
        name = f"{cost.instruction.target} {cost.instruction.name}"
        if attention_products(name):
            runs["backward" if re.search("[Bb]ackward|_dkv", name) else "other" if "_dq" in name else "forward"] += cost.runs
    if runs["backward"] and runs["forward"] > runs["backward"]:
        yield f"{runs['forward']} kernels forward, {runs['backward']} backward: attention is computed again (encoder.remat)"


FINDERS: dict[str, Finder] = {
    "float32 products in the encoder": _wide_products,
    "scores of all tokens in memory": _scores,
    "float64": _doubles,
    "calls of the host": _callbacks,
    "copies of banks": _bank_copies,
    "padded arrays": _padded,
    "attention run twice": _attention_twice,
}
"""Kind of red flag → what yields its details."""
