"""Nested mappings, such as `configs/*.py` return, to the dataclasses of `ove.config` and back."""

import dataclasses
import difflib
from collections.abc import Callable, Mapping
from functools import partial
from typing import Any, TypeVar

from ove.config.section import checked, hints_of
from ove.config.suggest import suggestion
from ove.errors import ConfigError

T = TypeVar("T")

_SELECTION = {key: f"selection.{key}" for key in ("gop_frames", "iframe_policy", "buckets", "static_fallback", "outside")}
_PROCESSES = {"meet_limit_s": "barrier_timeout_s", "silence_limit_s": "heartbeat_timeout_s"}
OLD_KEYS: Mapping[str, Mapping[str, str]] = {
    "VideoConfig": _SELECTION,
    "BatchesConfig": _SELECTION | {"processes": "num_workers"},
    "ProbeConfig": _SELECTION,
    "EncoderConfig": {"head": "pooling_head"},
    "LabelsConfig": _PROCESSES,
    "TrainConfig": _PROCESSES
    | {
        "accumulate": "grad_accum_steps",
        "keep": "max_to_keep",
        "keep_every": "keep_period",
        "lr_banks": "lr_by_bank",
        "pictures": "log_images",
    },
}
"""Keys that were called otherwise once, by class: still read in files, command lines, manifests and checkpoints."""
OLD_VALUES: Mapping[tuple[str, str], Callable[[Any], Any]] = {
    ("VideoConfig", "sampling"): lambda name: "pool" if isinstance(name, str) and name == "accumulate" else name,
    ("VideoConfig", "selection"): lambda rule: {"rule": rule} if isinstance(rule, str) else rule,
    ("EncoderConfig", "rope"): lambda name: "interleaved" if isinstance(name, str) and name == "paired" else name,
    ("TrainConfig", "lr_banks"): lambda rates: {bank: rate or None for bank, rate in rates.items()},
}
"""The same for values, by the key that they stood under."""


def from_mapping(cls: type[T], values: Mapping[str, Any], where: str = "", whole: tuple[type, str] | None = None) -> T:
    """Builds the dataclass `cls` from a nested mapping; a key it lacks or a value that its hint forbids raises ConfigError.

    Integers are taken where floats are expected, lists where tuples are; nothing else is converted. Where the class has
    PRESETS, the key `preset` names one, whose values the other keys replace. Old names are read as the new ones.
    `where`: how the keys begin in messages. `whole`: class and `where` of the configuration that this is a section of.
    """
    whole = whole or (cls, where)
    values = renamed(cls, values)
    presets = getattr(cls, "PRESETS", None)
    if presets and "preset" in values:
        preset = _preset(presets, values["preset"], f"{where}preset")
        values = merged(preset, {key: value for key, value in values.items() if key != "preset"})
    hints = hints_of(cls)
    kwargs = {}
    for key, value in values.items():
        if key not in hints:
            given = f"{where}{_written(key, value)}"
            hint = suggestion(*whole, given, OLD_KEYS) or f"known keys: {', '.join(hints)}."
            raise ConfigError(f"unknown configuration key {given}; {hint}")
        kwargs[key] = checked(hints[key], value, f"{where}{key}", partial(from_mapping, whole=whole))
    lacking = [f.name for f in dataclasses.fields(cls) if f.name not in kwargs and _has_no_default(f)]  # type: ignore[arg-type]
    if lacking:
        raise ConfigError(f"the configuration lacks {', '.join(where + name for name in lacking)}, which has no default.")
    return cls(**kwargs)


def renamed(cls: type, values: Mapping[str, Any]) -> dict[str, Any]:
    """Translates former names in the mapping of a dataclass, and those nested in it; `a.b` is b of section a."""
    found: dict[str, Any] = {}
    hints = hints_of(cls)
    for key, value in values.items():
        old_value = OLD_VALUES.get((cls.__name__, key))
        section, _, rest = _new_name(cls, key).partition(".")
        value = old_value(value) if old_value else value
        value = {rest: value} if rest else value
        if isinstance(value, Mapping) and dataclasses.is_dataclass(hints.get(section)):
            value = renamed(hints[section], value)
        found = merged(found, {section: value})
    return found


def merged(values: Mapping[str, Any], others: Mapping[str, Any]) -> dict[str, Any]:
    """Replaces values by the others, key by key also within sections."""
    found = dict(values)
    for key, value in others.items():
        both = isinstance(value, Mapping) and isinstance(found.get(key), Mapping)
        found[key] = merged(found[key], value) if both else value
    return found


def to_mapping(config: Any) -> dict[str, Any]:
    """Returns the nested dictionary of a configuration dataclass, ready for JSON."""
    return dataclasses.asdict(config)


def _written(key: str, value: Any) -> str:
    """Returns a key as it was written if it is a section that stands for one key: `trian.steps`."""
    while isinstance(value, Mapping) and len(value) == 1:
        (inner,) = value
        key, value = f"{key}.{inner}", value[inner]
    return key


def _new_name(cls: type, key: str) -> str:
    return OLD_KEYS.get(cls.__name__, {}).get(key, key)


def _preset(presets: Mapping[str, Mapping[str, Any]], name: Any, where: str) -> Mapping[str, Any]:
    if not isinstance(name, str) or name not in presets:
        near = difflib.get_close_matches(str(name), presets, n=1, cutoff=0.4)
        hint = f"; did you mean {near[0]}?" if near else "."
        raise ConfigError(f"{where} = {name!r} is none of {', '.join(presets)}{hint}")
    return presets[name]


def _has_no_default(f: dataclasses.Field) -> bool:
    return f.default is dataclasses.MISSING and f.default_factory is dataclasses.MISSING
