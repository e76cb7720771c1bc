"""Tables of named entries, and a user's own function or class in the place of one: `module:name` (docs/extending.md)."""

import functools
import hashlib
import importlib
import os
import re
import sys
import traceback
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, TypeVar

from ove.errors import ConfigError, OveError

T = TypeVar("T")
ALLOW_CODE = "OVE_ALLOW_CODE"
"""Environment variable: 1 lets files from elsewhere name the code to import."""
_OWN = re.compile(r"[A-Za-z_][\w.]*:[A-Za-z_][\w.]*")


def named(table: Mapping[str, T], name: str, key: str) -> T:
    """Returns the entry of a table, or what `module:name` imports; ConfigError, naming the setting `key`, if there is none.

    The module is found as by `import`: installed, in the working directory of `python -m`, or on PYTHONPATH.
    """
    if name in table:
        return table[name]
    module, colon, attribute = name.partition(":")
    if not colon:
        raise ConfigError(f"{key} = {name!r} is none of {', '.join(map(repr, table))}, nor of the form 'module:name'.")
    try:
        found: Any = importlib.import_module(module)
    except ModuleNotFoundError as error:
        if not f"{module}.".startswith(f"{error.name}."):
            raise  # the module exists, but something that it imports does not
        raise ConfigError(f"{key} = {name!r}: no module {error.name!r} is found; add its folder to PYTHONPATH.") from error
    for part in attribute.split("."):
        if not hasattr(found, part):
            raise ConfigError(f"{key} = {name!r}: the module {module!r} has no {attribute!r}.")
        found = getattr(found, part)
    if not callable(found):
        raise ConfigError(f"{key} = {name!r} is of type {type(found).__name__}; a function or class is expected.")
    if not isinstance(found, type):
        found = _answering_for(found, name, key)
    return found


@functools.cache
def _answering_for(function: Any, name: str, key: str) -> Any:
    """Returns a user's function, whose own errors name the setting and the line: they are not those of the file at hand."""

    @functools.wraps(function)
    def call(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except OveError:
            raise
        except Exception as error:  # whatever a user's function raises
            last = traceback.extract_tb(error.__traceback__)[-1]
            raise ConfigError(
                f"{key} = {name!r} raised {type(error).__name__}: {error} ({last.filename}, line {last.lineno}); "
                "docs/extending.md says what it gets and returns."
            ) from error

    if hasattr(function, "__dict__"):
        call.__dict__ = function.__dict__  # the same, not a copy: what a loss declares may be set later
    return call


def refuse_code(values: Any, where: str, error: type[OveError]) -> None:
    """Raises `error` if the settings in a file from elsewhere, nested mappings, hold a `module:name`, unless that is allowed.

    Else a set of shards at an address, or weights of a hub, could have any function of this machine called.
    """
    found = next(_code_in(values, ""), None)
    if found is not None and os.environ.get(ALLOW_CODE) != "1":
        raise error(
            f"{where}: names code to import ({found[0]} = {found[1]!r}), which files from elsewhere may not; if you trust it "
            f"and have that module, set {ALLOW_CODE}=1 in the environment."
        )


def _code_in(values: Any, key: str) -> Iterator[tuple[str, str]]:
    if isinstance(values, Mapping):
        for name, value in values.items():
            yield from _code_in(value, f"{key}.{name}" if key else str(name))
    elif isinstance(values, (list, tuple)):
        for value in values:
            yield from _code_in(value, key)
    elif isinstance(values, str) and _OWN.fullmatch(values):
        yield key, values


def own_source(table: Mapping[str, Any], name: str, key: str) -> dict[str, str]:
    """Returns {name: SHA-256 of the file of its module} for a user's own `module:name`, nothing for an entry of the table.

    Part of the key under which results are stored, so that an edited function does not find those of its former self. What the
    module itself imports does not count. ConfigError as in `named`.
    """
    named(table, name, key)
    source = None if name in table else sys.modules[name.partition(":")[0]].__file__
    return {name: hashlib.sha256(Path(source).read_bytes()).hexdigest()} if source else {}
