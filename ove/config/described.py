"""Lists the keys of a configuration with their types, values and the sentences beside them in the source."""

import ast
import dataclasses
import functools
import inspect
import textwrap
import typing
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from ove.config.section import Own, hints_of


@dataclass(frozen=True)
class Key:
    """One setting."""

    name: str
    """With its sections, `batches.selection.rule`."""
    type: str
    default: str
    """As in Python; empty if it must be given."""
    about: str
    """What the source says, in one line; may be empty."""
    value: str = ""
    """As in Python; empty if no configuration was given."""


def lines_of(config: Any, prefix: str = "") -> Iterator[str]:
    """Yields a line for each key of a configuration, `key = value  (type; default)`, and the sentence about it below."""
    for key in keys_of(type(config), prefix, config):
        kind = key.type if key.value in ("", key.default) else f"{key.type}; default {key.default or 'none'}"
        shown = key.value or key.default
        yield f"{key.name}{' = ' if shown else ''}{shown}  ({kind})"
        if key.about:
            yield textwrap.fill(key.about, 100, initial_indent="    ", subsequent_indent="    ")


def keys_of(cls: type, prefix: str = "", config: Any = None) -> Iterator[Key]:
    """Yields all keys of a dataclass of settings, those of its sections in their place, with the values of `config`."""
    hints, about = hints_of(cls), _sentences(cls)
    for field in dataclasses.fields(cls):
        hint, name = hints[field.name], f"{prefix}{field.name}"
        if dataclasses.is_dataclass(hint):
            yield from keys_of(typing.cast(type, hint), f"{name}.", getattr(config, field.name, None))
            continue
        default = "" if field.default is dataclasses.MISSING else repr(field.default)
        value = "" if config is None else _value(getattr(config, field.name))
        yield Key(name, _named(hint), default, about.get(field.name, ""), value)
        for part in typing.get_args(hint):
            if isinstance(part, type) and dataclasses.is_dataclass(part):
                yield from keys_of(part, f"{name}[i].")


def _value(value: Any) -> str:
    """Returns a value as in Python; sections of a list as mappings of what is not at its default."""
    if isinstance(value, tuple) and value and all(map(dataclasses.is_dataclass, value)):
        return repr([{f.name: getattr(one, f.name) for f in dataclasses.fields(one) if _is_set(one, f)} for one in value])
    return repr(value)


def _is_set(config: Any, field: dataclasses.Field) -> bool:
    return getattr(config, field.name) != field.default


def _named(hint: Any) -> str:
    """Returns a type as people write it: choices, `module:name`, list of …"""
    origin, parts = typing.get_origin(hint), typing.get_args(hint)
    if origin is Annotated:
        return "module:name" if hint == Own else f"{_named(parts[0])}{_bounds(parts[1:])}"
    if origin is Literal:
        return "|".join(map(str, parts))
    if origin is tuple:
        return f"list of {_named(parts[0])}"
    if parts and origin is not dict:
        return "|".join(dict.fromkeys(_named(part) for part in parts))
    return "None" if hint is type(None) else getattr(hint, "__name__", str(hint))


def _bounds(bounds: tuple[Any, ...]) -> str:
    return "".join(f" ({bound})" for bound in bounds)


@functools.cache
def _sentences(cls: type) -> dict[str, str]:
    """Returns the strings that follow the fields in the source of a class."""
    (tree,) = ast.parse(textwrap.dedent(inspect.getsource(cls))).body
    found, name = {}, ""
    for node in typing.cast(ast.ClassDef, tree).body:
        if isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name):
            name = node.target.id
        elif name and isinstance(node, ast.Expr) and isinstance(node.value, ast.Constant) and isinstance(node.value.value, str):
            found[name] = " ".join(node.value.value.split())
            name = ""
        else:
            name = ""
    return found
