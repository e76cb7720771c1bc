"""Nested mappings, such as `configs/*.py` return, to the dataclasses of `ove.config` and back."""

import dataclasses
import difflib
import types
import typing
from collections.abc import Mapping
from typing import Any, Literal, TypeVar

from ove.errors import ConfigError

T = TypeVar("T")


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "") -> T:
    """The dataclass `cls` from a nested mapping; a key it lacks or a value of another type raises ConfigError.

    Integers are taken where floats are expected, lists where tuples are; nothing else is converted. Where the class has
    PRESETS, the key `preset` names one, whose values the other keys replace.
    """
    presets = getattr(cls, "PRESETS", None)
    if presets and "preset" in values:
        values = {**_preset(presets, values["preset"], f"{where}preset")} | {
            key: value for key, value in values.items() if key != "preset"
        }
    hints = typing.get_type_hints(cls)
    names = [f.name for f in dataclasses.fields(cls)]  # type: ignore[arg-type]
    kwargs = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
            hint = f"did you mean {where}{near[0]}?" if near else f"known keys: {', '.join(names)}."
            raise ConfigError(f"unknown configuration key {where}{key}; {hint}")
        kwargs[key] = _convert(hints[key], value, f"{where}{key}")
    lacking = [f.name for f in dataclasses.fields(cls) if f.name not in kwargs and _has_no_default(f)]  # type: ignore[arg-type]
    if lacking:
        raise ConfigError(f"the configuration lacks {', '.join(where + name for name in lacking)}, which has no default.")
    return cls(**kwargs)


def _preset(presets: Mapping[str, T], name: Any, where: str) -> T:
    if not isinstance(name, str) or name not in presets:
        near = difflib.get_close_matches(str(name), presets, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"{where} = {name!r} is none of {', '.join(presets)}{hint}")
    return presets[name]


def to_mapping(config: Any) -> dict[str, Any]:
    """The nested dictionary of a configuration dataclass, ready for JSON."""
    return dataclasses.asdict(config)


def _has_no_default(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING


def _convert(hint: Any, value: Any, where: str) -> Any:
    origin = typing.get_origin(hint)
    if dataclasses.is_dataclass(hint):
        if not isinstance(value, Mapping):
            raise ConfigError(f"{where} must be a section with keys, not {value!r}.")
        return from_mapping(typing.cast(type, hint), value, f"{where}.")
    if origin is Literal:
        choices = typing.get_args(hint)
        if value not in choices:
            raise ConfigError(f"{where} = {value!r} is none of {', '.join(map(repr, choices))}.")
        return value
    if origin is tuple:
        if not isinstance(value, (list, tuple)):
            raise ConfigError(f"{where} must be a list, not {value!r}.")
        return tuple(_convert(typing.get_args(hint)[0], item, f"{where}[{i}]") for i, item in enumerate(value))
    if origin in (typing.Union, types.UnionType):
        if value is None:
            return None
        hint = next(h for h in typing.get_args(hint) if h is not type(None))
    if hint is float and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    if not isinstance(value, hint) or (hint is not bool and isinstance(value, bool)):
        raise ConfigError(f"{where} = {value!r} is of type {type(value).__name__}; {hint.__name__} is expected.")
    return value
