"""Damages samples for bench/fuzz.py: bytes at random places, numbers by extremes, values of trees by values of other kinds."""

import copy
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

EXTREMES = (
    0,
    1,
    0x7F,
    0x80,
    0xFF,
    0x7FFF,
    0xFFFF,
    (1 << 31) - 1,
    1 << 31,
    (1 << 32) - 1,
    (1 << 63) - 1,
    1 << 63,
    (1 << 64) - 1,
)
VALUES: tuple[Any, ...] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2,
        255,
        1 << 16,
        1 << 31,
        -(1 << 31),
        1 << 32,
        1 << 40,
        1 << 62,
        (1 << 63) - 1,
        (1 << 64) - 1,
    ),
    *(0.5, -1.0, 1e308, float("inf"), float("nan"), "", "a", "../../a", "/a", "\0", "\ud7ff\U0001f600", "1e999", "x" * 5000),
    *([], [[]], {}, {"a": {}}, [1 << 40] * 3, [0, 1 << 62], ["a", 1], {"": 0}),
)
"""What takes the place of a value in a tree."""


class Accepted(Exception):
    """Damage in what a checksum protects was not noticed."""


def damaged(data: bytes, rng: np.random.Generator, others: Sequence[bytes]) -> bytes:
    """Returns a copy with one to four kinds of damage; `others`: samples of the same kind, of which pieces are put in."""
    content = bytearray(data)
    for _ in range(min(4, int(rng.geometric(0.6)))):
        content = _KINDS[int(rng.integers(len(_KINDS)))](content, rng, others)
    return bytes(content)


def damaged_tree(value: Any, rng: np.random.Generator) -> Any:
    """Returns a copy of nested lists and dictionaries in which one to three values are replaced, dropped, added or doubled."""
    root = [copy.deepcopy(value)]
    for _ in range(min(3, int(rng.geometric(0.7)))):
        places = [(root, 0), *_places(root[0])]
        where, key = places[int(rng.integers(len(places)))]
        _change(where, key, rng)
        if not root:
            root = [VALUES[int(rng.integers(len(VALUES)))]]
    return root[0]


def nested(depth: int, rng: np.random.Generator) -> bytes:
    """Returns a JSON text that is deeper than parsers recurse."""
    return (b"[" if rng.random() < 0.5 else b'{"a":') * depth


def _change(where: Any, key: Any, rng: np.random.Generator) -> None:
    how, new = rng.random(), copy.deepcopy(VALUES[int(rng.integers(len(VALUES)))])
    if how < 0.7:
        where[key] = new
    elif how < 0.8:
        del where[key]
    elif isinstance(where, dict):
        where[f"{key}_" if how < 0.9 else str(int(rng.integers(100)))] = new
    else:
        where.insert(key, new if how < 0.9 else copy.deepcopy(where[key]))


def _places(value: Any) -> list[tuple[Any, Any]]:
    """Lists (container, key) of all values within a value."""
    found, waiting = [], [value]
    while waiting:
        one = waiting.pop()
        if isinstance(one, (dict, list)) and len(found) < 2000:
            keys = list(one) if isinstance(one, dict) else range(len(one))
            found += [(one, key) for key in keys]
            waiting += [one[key] for key in keys]
    return found


def _span(content: bytearray, rng: np.random.Generator) -> tuple[int, int]:
    start = int(rng.integers(len(content) + 1))
    return start, min(len(content), start + int(2 ** (10 * rng.random())))


def _flip(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    for at in rng.integers(len(content), size=int(rng.integers(1, 9))) if content else ():
        content[at] ^= 1 << int(rng.integers(8))
    return content


def _extreme(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    size = int(2 ** rng.integers(4))
    at = int(rng.integers(max(1, min(len(content), 64) if rng.random() < 0.5 else len(content))))
    number = EXTREMES[int(rng.integers(len(EXTREMES)))] & ((1 << 8 * size) - 1)
    content[at : at + size] = number.to_bytes(size, "little" if rng.random() < 0.5 else "big")
    return content


def _add(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    """Changes a byte by little, as where it is a length."""
    if content:
        at = int(rng.integers(len(content)))
        content[at] = (content[at] + int(rng.integers(-4, 5))) % 256
    return content


def _cut(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    return content[: int(rng.integers(len(content) + 1))] if rng.random() < 0.5 else content[: -int(rng.integers(1, 65))]


def _drop(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    start, end = _span(content, rng)
    del content[start:end]
    return content


def _double(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    start, end = _span(content, rng)
    content[start:start] = content[start:end] * int(rng.integers(1, 4))
    return content


def _fill(content: bytearray, rng: np.random.Generator, _: Sequence[bytes]) -> bytearray:
    start, end = _span(content, rng)
    content[start:end] = rng.bytes(end - start) if rng.random() < 0.5 else bytes([int(rng.choice([0, 255]))]) * (end - start)
    return content


def _splice(content: bytearray, rng: np.random.Generator, others: Sequence[bytes]) -> bytearray:
    other = bytearray(others[int(rng.integers(len(others)))])
    (start, end), (first, last) = _span(content, rng), _span(other, rng)
    content[start:end] = other[first:last]
    return content


_KINDS: tuple[Callable[[bytearray, np.random.Generator, Sequence[bytes]], bytearray], ...] = (
    *(_flip, _flip, _extreme, _extreme, _extreme, _add, _add, _cut, _drop, _double, _fill, _splice),
)
