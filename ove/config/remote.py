"""How remote shards are fetched: a matter of the machine, so set by environment variables and not in a run's configuration."""

import os
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ove.errors import ConfigError

_DEFAULT_CACHE = "~/.cache"


@dataclass(frozen=True)
class RemoteConfig:
    """How remote shards are fetched."""

    cache: Path
    """Folder for copies of remote shards (OVE_CACHE; default: `ove/shards` in $XDG_CACHE_HOME or ~/.cache)."""
    cache_gb: float = 100.0
    """What the copies may take together, in 10⁹ bytes (OVE_CACHE_GB)."""
    timeout_s: float = 60.0
    """A transfer that brings less than 1 kB/s over so many seconds is given up (OVE_TIMEOUT_S)."""
    attempts: int = 3
    """How often a transfer is tried that breaks off or comes too slowly (OVE_ATTEMPTS)."""

    def __post_init__(self) -> None:
        if not (self.cache_gb > 0 and self.timeout_s > 0 and self.attempts >= 1):
            raise ConfigError(
                f"OVE_CACHE_GB = {self.cache_gb:g} and OVE_TIMEOUT_S = {self.timeout_s:g} must be positive, and "
                f"OVE_ATTEMPTS = {self.attempts} at least 1."
            )

    @classmethod
    def from_environment(cls, environment: Mapping[str, str] = os.environ) -> "RemoteConfig":
        """The settings of this machine; a variable that is no number raises ConfigError."""
        above = environment.get("XDG_CACHE_HOME") or _DEFAULT_CACHE
        cache = Path(environment.get("OVE_CACHE") or Path(above) / "ove" / "shards").expanduser()
        numbers: dict[str, float] = {}
        for name in ("cache_gb", "timeout_s", "attempts"):
            variable = f"OVE_{name.upper()}"
            if text := environment.get(variable):
                try:
                    numbers[name] = int(text) if name == "attempts" else float(text)
                except ValueError as error:
                    raise ConfigError(f"{variable} = {text!r} must be a number.") from error
        return cls(cache.absolute(), **numbers)  # type: ignore[arg-type]
