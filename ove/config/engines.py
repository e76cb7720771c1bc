"""How the offline steps are spread over processes and machines."""

from dataclasses import dataclass
from typing import Literal

from ove.errors import ConfigError


@dataclass(frozen=True)
class EnginesConfig:
    """Who runs `process(shard)`, and what happens to a shard that fails. None of it changes a byte of what comes out."""

    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or the tasks of a Ray cluster (requirements-ray.txt)."""
    workers: int = 2
    """Processes of the local engine; 0: all in the calling process, without a time limit."""
    retries: int = 2
    """How often a shard that failed, crashed its process or took too long is tried again before it is set aside."""
    time_limit_s: float = 3600.0
    """Longest time for one shard; then its process ends itself."""
    max_dead_share: float = 0.01
    """Past this share of shards set aside the command stops; up to it their records stay without labels."""
    ray_address: str = ""
    """Of a running Ray cluster; "": that of RAY_ADDRESS, else a cluster running on this machine, else a new one here."""
    ray_cpus: float = 1.0
    """CPUs that Ray sets aside for one shard (one actor)."""
    ray_actors: int = 0
    """0: each shard is a task, wherever a CPU is free, also on machines that join later; n: n actors, processes that stay and
    keep what they have loaded."""
    ray_gpus: float = 0.0
    """GPUs that Ray sets aside for one actor."""

    def __post_init__(self) -> None:
        if self.workers < 0 or self.retries < 0 or not 0 <= self.max_dead_share <= 1:
            raise ConfigError(
                f"engines.workers = {self.workers} and engines.retries = {self.retries} must not be negative, "
                f"engines.max_dead_share = {self.max_dead_share:g} must lie within 0…1."
            )
        if self.time_limit_s <= 0 or self.ray_cpus <= 0:
            raise ConfigError(
                f"engines.time_limit_s = {self.time_limit_s:g} and engines.ray_cpus = {self.ray_cpus:g} must be above 0."
            )
        if self.ray_actors < 0 or self.ray_gpus < 0 or (self.ray_gpus and not self.ray_actors):
            raise ConfigError(
                f"engines.ray_gpus = {self.ray_gpus:g} and engines.ray_actors = {self.ray_actors} must not be negative; "
                "GPUs are set aside for actors only."
            )
