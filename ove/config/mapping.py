"""Nested mappings, such as `configs/*.py` return, to the dataclasses of `ove.config` and back."""

import dataclasses
import difflib
from collections.abc import Mapping
from typing import Any, TypeVar

from ove.config.section import checked, hints_of
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
    hints = hints_of(cls)
    names = list(hints)
    kwargs = {}
    for key, value in values.items():
        if key not in names:
            near = difflib.get_close_matches(key, names, n=1, cutoff=0.4)
            hint = f"did you mean {where}{near[0]}?" if near else f"known keys: {', '.join(names)}."
            raise ConfigError(f"unknown configuration key {where}{key}; {hint}")
        kwargs[key] = checked(hints[key], value, f"{where}{key}", from_mapping)
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
