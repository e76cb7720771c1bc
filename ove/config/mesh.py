"""How the devices of a run are arranged."""

from dataclasses import dataclass

from ove.errors import ConfigError


@dataclass(frozen=True)
class MeshConfig:
    """The axes of the mesh (docs/scaling.md). Samples are split over all of them; the defaults do for any number of devices.

    Neighbouring devices lie along the last axes: `fsdp` or `bank` no larger than a host (or an NVLink domain) talk within it.
    """

    data: int = 0
    """Devices along the axis over which the encoder is repeated; 0: all that the other axes leave."""
    fsdp: int = 1
    """Devices over which the encoder's parameters and moments are cut; 1: each device holds all of them."""
    bank: int = 0
    """0: banks are cut over all devices; n: over groups of fsdp · n neighbours, each of which holds a whole copy."""

    def __post_init__(self) -> None:
        if self.data < 0 or self.fsdp < 1 or self.bank < 0:
            raise ConfigError(
                f"mesh.data = {self.data} and mesh.bank = {self.bank} must not be negative, mesh.fsdp = {self.fsdp} at least 1."
            )
