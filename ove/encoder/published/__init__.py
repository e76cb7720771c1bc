"""Published weights, in and out (spec §1, "Published checkpoint")."""

from ove.encoder.published.files import CONFIG, DTYPES, assemble, load, save

__all__ = ["CONFIG", "DTYPES", "assemble", "load", "save"]
