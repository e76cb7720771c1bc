"""Reads a compiled program (HLO as text): its instructions, how often each is run, and the source line that it came from."""

import functools
import math
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

BITS = {"pred": 8, "s4": 4, "u4": 4, "bf16": 16, "token": 0} | {f"{c}{n}": n for c in "suf" for n in (8, 16, 32, 64)}
_SHAPE = re.compile(r"\b([a-z]+[0-9]*(?:e\dm\d\w*)?)\[([0-9,<=]*)\](?:\{([^{}]*)\})?")


class Shape(NamedTuple):
    """An array: its dtype, its dimensions, and how it lies in memory."""

    dtype: str
    dims: tuple[int, ...]
    layout: str = ""
    """Axes from the fastest changing to the slowest, then tiles and space: `1,0:T(8,128)(2,1)S(1)`."""

    @property
    def bits(self) -> int:
        """Bits of a number; 8 for the narrow floats that XLA has many of."""
        return BITS.get(self.dtype, 8)

    @property
    def size(self) -> int:
        """Bytes of its numbers."""
        return math.prod(self.dims) * self.bits // 8

    @property
    def padded(self) -> int:
        """Bytes that it takes in whole tiles, as TPUs store it."""
        tile = re.search(r"T\(([0-9,]+)\)", self.layout)
        if not tile or not self.dims:
            return self.size
        sides = [int(side) for side in tile[1].split(",")]
        order = [int(axis) for axis in self.layout.split(":")[0].split(",") if axis]
        minor = [self.dims[axis] for axis in order]
        for at, side in enumerate(reversed(sides[-len(minor) :])):
            minor[at] = -(-minor[at] // side) * side
        return math.prod(minor) * self.bits // 8

    @property
    def traffic(self) -> int:
        """Bytes that reading or writing it moves through the device's memory; none if it lies on the chip (TPU)."""
        return 0 if re.search(r"S\([1-9]\)", self.layout) else self.padded

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.dims))}]"


@dataclass(frozen=True)
class Instruction:
    """A line of a program."""

    name: str
    opcode: str
    results: tuple[Shape, ...]
    operands: tuple[str, ...]
    attributes: str
    is_root: bool

    def called(self, attribute: str = "calls") -> str | None:
        """Returns the computation that an attribute names."""
        found = re.search(rf"\b{attribute}=%?([\w.\-]+)", self.attributes)
        return found[1] if found else None

    def number(self, attribute: str) -> int | None:
        """Returns the first number in an attribute or a field of the backend's configuration."""
        found = re.search(rf'\b{attribute}"?[=:]\s?\D{{0,4}}(\d+)', self.attributes)
        return int(found[1]) if found else None

    @property
    def value(self) -> str:
        """What a constant says, or the number of a parameter."""
        return self.attributes.partition(",")[0]

    @property
    def op_name(self) -> str:
        """The path that JAX gave it: transformations, functions, primitive."""
        found = re.search(r'op_name="([^"]*)"', self.attributes)
        return found[1] if found else ""

    @property
    def target(self) -> str:
        """The kernel of a custom call."""
        found = re.search(r'custom_call_target="([^"]*)"', self.attributes)
        return found[1] if found else ""


@dataclass(frozen=True)
class Program:
    """A compiled program."""

    text: str
    computations: dict[str, dict[str, Instruction]]
    """Name → name → instruction, in the order of execution."""
    entry: str
    _frames: dict[int, tuple[str, int]] = field(repr=False)

    @functools.cached_property
    def n_devices(self) -> int:
        """How many devices it is for: replicas times partitions."""
        head = self.text.partition("\n")[0]
        return math.prod(int(n) for n in re.findall(r"(?:replica_count|num_partitions)=(\d+)", head))

    @functools.cached_property
    def executions(self) -> Counter[str]:
        """How many times each computation is run that is no part of an instruction (a fusion, a reduction)."""
        times: Counter[str] = Counter()

        def run(name: str, n: int) -> None:
            times[name] += n
            for instruction in self.computations[name].values():
                for called, turns in self._calls(instruction):
                    if called in self.computations:
                        run(called, n * turns)

        run(self.entry, 1)
        return times

    def executed(self) -> Iterator[tuple[Instruction, int, dict[str, Instruction]]]:
        """Yields each instruction that is run, how often, and the computation that it belongs to."""
        for name, times in self.executions.items():
            body = self.computations[name]
            for instruction in body.values():
                yield instruction, times, body

    def _calls(self, instruction: Instruction) -> Iterator[tuple[str, int]]:
        """Yields (computation, times) that an instruction runs."""
        if instruction.opcode == "while":
            yield instruction.called("body") or "", self._turns(instruction)
        elif instruction.opcode in ("call", "call-start", "conditional", "async-start"):
            names = re.findall(
                r"(?:to_apply|true_computation|false_computation|calls)=%?([\w.\-]+)|branch_computations=\{([^}]*)\}",
                instruction.attributes,
            )
            for one, several in names:
                for name in [one] if one else re.findall(r"[\w.\-]+", several):
                    yield name, 1

    def _turns(self, loop: Instruction) -> int:
        """Returns how often a loop turns: what XLA knows, else the number its condition compares with (TPU), else 1."""
        known = re.search(r'"known_trip_count":\{"n":"(\d+)"', loop.attributes)
        if known:
            return int(known[1])
        condition = self.computations.get(loop.called("condition") or "", {})
        limits = [i.value for i in condition.values() if i.opcode == "constant" and i.results[0].dtype == "s32"]
        return int(limits[0]) if len(limits) == 1 and limits[0].isdigit() else 1

    def lines(self, instruction: Instruction, under: str = "ove") -> list[str]:
        """Returns the lines that it came from, innermost first: those below the folder `under`, as folder/file.py:line."""
        frame, found = instruction.number("stack_frame_id") or 0, dict[str, None]()
        while frame in self._frames:
            place, frame = self._frames[frame]
            if f"/{under}/" in place:
                found[place.rpartition(f"/{under}/")[2]] = None
        return list(found)

    def source(self, instruction: Instruction) -> str:
        """Returns the innermost line of `ove` that it came from, after the line that called it."""
        lines = self.lines(instruction)[1::-1]
        if len(lines) == 2 and lines[0].partition(":")[0] == lines[1].partition(":")[0]:
            lines[1] = lines[1].partition(":")[2]
        return " > ".join(lines)


def parse(text: str) -> Program:
    """Parses the text of a compiled program."""
    computations: dict[str, dict[str, Instruction]] = {}
    entry, current = "", None
    for line in _lines(text):
        head = re.match(r"(ENTRY )?%?([\w.\-]+) \(.*\{$", line)
        if head:
            current = computations[head[2]] = {}
            entry = head[2] if head[1] else entry
        elif current is not None and (instruction := _instruction(line)):
            current[instruction.name] = instruction
    return Program(text, computations, entry, _stack_frames(text))


def _lines(text: str) -> Iterator[str]:
    """Yields the lines of a program; what Pallas writes about its kernels in lines of its own ends the line before."""
    whole = ""
    for line in text.splitlines():
        if re.match(r"  |%|ENTRY|\}$|HloModule|$", line):
            yield whole
            whole = line
        else:
            whole += line
    yield whole


def _instruction(line: str) -> Instruction | None:
    head = re.match(r"\s+(ROOT )?%?([\w.\-]+) = ", line)
    if not head:
        return None
    rest = line[head.end() :]
    types = rest[: _closing(rest)] if rest.startswith("(") else rest.partition(" ")[0]
    call = re.match(r"\s*([\w\-]+)\(", rest[len(types) :])
    if not call:
        return None
    start = len(types) + call.end() - 1
    end = start + _closing(rest[start:])
    given = rest[start + 1 : end - 1]
    attributes = rest[end:].removeprefix(", ")
    # A constant is kept with what it says, a parameter with its number.
    attributes = f"{given}, {attributes}" if call[1] in ("constant", "parameter") else attributes
    operands = tuple(re.findall(r"%([\w.\-]+)", given))
    return Instruction(head[2], call[1], shapes(types), operands, attributes, bool(head[1]))


def shapes(text: str) -> tuple[Shape, ...]:
    """Finds the arrays in the text of a type."""
    return tuple(
        Shape(dtype, tuple(int(n.removeprefix("<=")) for n in dims.split(",") if n), layout)
        for dtype, dims, layout in _SHAPE.findall(text)
    )


def _closing(text: str) -> int:
    """Returns the position after the parenthesis that closes the first."""
    depth = 0
    for at, character in enumerate(text):
        depth += (character == "(") - (character == ")")
        if depth == 0:
            return at + 1
    return len(text)


def _stack_frames(text: str) -> dict[int, tuple[str, int]]:
    """Returns id → (file:line, id of the caller's frame, 0 if there is none), from the tables before the first computation."""

    def table(name: str, pattern: str) -> dict[int, tuple[str, ...]]:
        found = re.search(rf"^{name}\n((?:\d+ .*\n)*)", text, re.MULTILINE)
        rows = re.findall(rf"^(\d+) {pattern}", found[1], re.MULTILINE) if found else []
        return {int(row[0]): row[1:] for row in rows}

    files, places = table("FileNames", '"(.*)"'), table("FileLocations", r"\{file_name_id=(\d+).*? line=(\d+)")
    frames = table("StackFrames", r"\{file_location_id=(\d+) parent_frame_id=(\d+)")
    located = {at: f"{files[int(name)][0]}:{line}" for at, (name, line) in places.items() if int(name) in files}
    # XLA counts parents from 1, where 1 is none.
    return {at: (located.get(int(place), ""), int(parent) - 1) for at, (place, parent) in frames.items()}
