"""What is written to disk."""

from dataclasses import dataclass

from ove.errors import ConfigError


@dataclass(frozen=True)
class ShardsConfig:
    """What is written to disk."""

    records_per_shard: int = 64
    jpeg_quality: int = 92
    """Of the stored frames, 4:4:4 (0…100)."""
    workers: int = 2
    """Processes that decode videos in parallel; 0: in the command's own process, which a crash of the decoder then ends."""

    def __post_init__(self) -> None:
        if self.records_per_shard < 1 or not 1 <= self.jpeg_quality <= 100 or self.workers < 0:
            raise ConfigError(
                f"shards.records_per_shard = {self.records_per_shard} must be at least 1, shards.jpeg_quality = "
                f"{self.jpeg_quality} within 1…100, and shards.workers = {self.workers} not negative."
            )
