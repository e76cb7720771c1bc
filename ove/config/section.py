"""The base of all settings: whoever makes one, from Python or from a file, has its values checked against the type hints."""

import dataclasses
import math
import numbers
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ove.errors import ConfigError


@dataclass(frozen=True)
class Bounds:
    """The numbers that a setting may take."""

    low: int | float
    high: int | float = math.inf
    above: bool = False
    """Whether `low` itself is excluded."""

    def hold(self, value: int | float) -> bool:
        """Returns whether the number is allowed; NaN never is."""
        return self.low <= value <= self.high and not (self.above and value == self.low)

    def __str__(self) -> str:
        if math.isinf(self.high):
            return f"above {self.low:g}" if self.above else f"at least {self.low:g}"
        return f"above {self.low:g} and at most {self.high:g}" if self.above else f"within {self.low:g}…{self.high:g}"


Count = Annotated[int, Bounds(1)]
Natural = Annotated[int, Bounds(0)]
Positive = Annotated[float, Bounds(0, above=True)]
NonNegative = Annotated[float, Bounds(0)]
Share = Annotated[float, Bounds(0, 1)]
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")
Own = Annotated[str, _OWN]
"""`module:name`, a function or class of the user's in the place of one of ours (docs/extending.md)."""


class Section:
    """Base of the settings' dataclasses; a value that its hint does not allow raises ConfigError, which names the key.

    Hints may be bool, int, float, str, Path, `Literal`, sections, tuples of these, `| None`, `| Own`, and numbers `Annotated`
    with `Bounds`. Integers are taken where floats are expected, lists where tuples are; nothing else is converted.
    """

    def __post_init__(self) -> None:
        for name, hint in hints_of(type(self)).items():
            object.__setattr__(self, name, checked(hint, getattr(self, name), self.key(name)))
        self.check()

    @classmethod
    def key(cls, name: str) -> str:
        """Returns the name of a setting in messages: `train.lr` of `TrainConfig`."""
        return f"{cls.__name__.removesuffix('Config').lower()}.{name}"

    def check(self) -> None:
        """Raises ConfigError for values that do not go together."""


def hints_of(cls: type) -> dict[str, Any]:
    """Returns the type hints of a dataclass's fields."""
    hints = typing.get_type_hints(cls, include_extras=True)
    return {field.name: hints[field.name] for field in dataclasses.fields(cls)}


def checked(hint: Any, value: Any, where: str, nested: Callable[[type, Mapping, str], Any] | None = None) -> Any:
    """Converts a value to the type of the hint; ConfigError, naming the key `where`, if the hint does not allow it.

    `nested` makes the dataclass of a mapping that is found in the place of one.
    """
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        value = checked(parts[0], value, where, nested)
        for bounds in parts[1:]:
            if isinstance(bounds, Bounds) and not bounds.hold(value):
                raise ConfigError(f"{where} = {value!r} must be {bounds}.")
        return value
    if origin in (typing.Union, types.UnionType):
        if value is None and type(None) in parts:
            return None
        if Own not in parts:
            fitting = (part for part in parts if isinstance(value, _types_of(part)))
            return checked(next(fitting, parts[0]), value, where, nested)
        if isinstance(value, str) and _OWN.fullmatch(value):
            return value
        return _choice(parts[0], value, where, ", nor of the form 'module:name'")
    if origin is Literal:
        return _choice(hint, value, where)
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, not {value!r}.")
        return tuple(checked(parts[0], item, f"{where}[{i}]", nested) for i, item in enumerate(value))
    if dataclasses.is_dataclass(hint):
        if nested and isinstance(value, Mapping):
            return nested(typing.cast(type, hint), value, f"{where}.")
        if not isinstance(value, typing.cast(type, hint)):
            raise ConfigError(f"{where} must be a section with keys, not {value!r}.")
        return value
    if hint in (int, float) and isinstance(value, numbers.Integral if hint is int else numbers.Real):
        value = value if isinstance(value, bool) else hint(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where} = {value!r} is of type {type(value).__name__}; {hint.__name__} is expected.")
    return value


def _types_of(hint: Any) -> tuple[type, ...]:
    """Returns the types of values that a part of a union takes; none for what is no type or tuple."""
    if typing.get_origin(hint) is tuple:
        return (list, tuple)
    return (hint,) if isinstance(hint, type) else ()


def _choice(hint: Any, value: Any, where: str, more: str = "") -> Any:
    choices = typing.get_args(hint)
    if not any(type(value) is type(choice) and value == choice for choice in choices):
        raise ConfigError(f"{where} = {value!r} is none of {', '.join(map(repr, choices))}{more}.")
    return value
