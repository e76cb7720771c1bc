"""Published weights, in and out (spec §1, "Published checkpoint")."""

from ove.encoder.published.pretrained import CONFIG, DTYPES, assemble, load, save
from ove.encoder.published.weight_files import holds_weights

__all__ = ["CONFIG", "DTYPES", "assemble", "holds_weights", "load", "save"]
