"""Checks that several sections share."""

from typing import Any

from ove.errors import ConfigError


def at_least_one(where: str, config: Any, *names: str) -> None:
    """ConfigError, naming the key, if one of the values is below 1."""
    for name in names:
        if getattr(config, name) < 1:
            raise ConfigError(f"{where}.{name} = {getattr(config, name)} must be at least 1.")
