"""Supervision from raw data."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class LabelsConfig:
    """From clips to class centers (spec §5)."""

    teacher: Literal["thumbnails"] = "thumbnails"
    """`thumbnails` is an offline stand-in without weights; see `ove.labels.embed`."""
    n_centers: int = 64
    """k of k-means, per bank; at most half the number of samples."""
    n_labels: int = 10
    """Nearest centers kept per sample, at most n_centers."""
    iterations: int = 20
    seed: int = 0
