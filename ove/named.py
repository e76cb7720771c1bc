"""Tables of named entries, and a user's own function or class in the place of one: `module:name` (docs/extending.md)."""

import hashlib
import importlib
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any, TypeVar

from ove.errors import ConfigError

T = TypeVar("T")


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
    return found


def own_source(table: Mapping[str, Any], name: str, key: str) -> dict[str, str]:
    """Returns {name: SHA-256 of the file of its module} for a user's own `module:name`, nothing for an entry of the table.

    Part of the key under which results are stored, so that an edited function does not find those of its former self. What the
    module itself imports does not count. ConfigError as in `named`.
    """
    named(table, name, key)
    source = None if name in table else sys.modules[name.partition(":")[0]].__file__
    return {name: hashlib.sha256(Path(source).read_bytes()).hexdigest()} if source else {}
