"""Numbers on the command line, with the range that an option takes."""

import argparse
import math
import types
import typing
from collections.abc import Callable
from typing import Any

from ove.config.section import Bounds, hints_of

Parse = Callable[[str], int | float]


def number(low: float, high: float = math.inf, *, above: bool = False, of: type[int] | type[float] = int) -> Parse:
    """Returns the `type=` of an option that takes numbers from `low` (`above`: excluded) to `high`."""
    return _within(Bounds(low, high, above), of)


def number_of(cls: type, key: str) -> Parse:
    """Returns the `type=` of an option that sets a key of a dataclass of settings: a number within the key's bounds."""
    section, _, rest = key.partition(".")
    if rest:
        return number_of(hints_of(cls)[section], rest)
    parts = [hints_of(cls)[key]]
    if typing.get_origin(parts[0]) in (types.UnionType, typing.Union):
        parts = [part for part in typing.get_args(parts[0]) if part is not type(None)]
    of, bounds = typing.get_args(parts[0])
    return _within(bounds, of)


def share_or_count(text: str) -> int | float:
    """Parses `--budget`: a number of patches, or with a point a share of them."""
    try:
        value: int | float = float(text) if "." in text else int(text)
    except ValueError:
        value = -1
    if not (Bounds(0, 1, above=True) if isinstance(value, float) else Bounds(1)).hold(value):
        raise argparse.ArgumentTypeError(f"{text} must be a number of patches such as 2048, or a share such as 0.125")
    return value


def _within(bounds: Bounds, of: type[int] | type[float]) -> Parse:
    def parse(text: str) -> Any:
        try:
            value = of(text)
        except ValueError:
            value = math.nan
        if not bounds.hold(value):
            raise argparse.ArgumentTypeError(f"{text} must be {'a whole number, ' if of is int else ''}{bounds}")
        return value

    return parse
