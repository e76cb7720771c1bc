"""Supervision from raw data."""

from dataclasses import dataclass
from typing import Literal

from ove.config.checks import at_least_one
from ove.errors import ConfigError


@dataclass(frozen=True)
class LabelsConfig:
    """From clips and pictures to class centers (spec §5)."""

    teacher: Literal["thumbnails", "clip", "ove"] = "thumbnails"
    """`thumbnails`: an offline stand-in without weights; `clip`: a CLIP vision tower; `ove`: a published encoder of ours."""
    weights: str = ""
    """Of the teacher: a folder with config.json and safetensors. The stand-in has none."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Type in which the teacher computes."""
    size_px: int = 224
    """Side of the pictures that the teacher `ove` sees; a multiple of its patches. CLIP's is in its config.json."""
    batch_size: int = 64
    """Pictures, or frames of clips, that go through the teacher at once on each device."""
    threads: int = 2
    """Threads that read and decode for the teacher."""
    chunk_records: int = 16384
    """Records whose embeddings, or labels, lie in one file."""
    store: Literal["float32", "float16"] = "float32"
    """Type of the embeddings on disk."""
    max_bad_share: float = 0.05
    """Past this share of records that cannot be read the command stops."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """What is found and left without labels: nothing; equal pictures; also those whose embeddings are alike."""
    threshold: float = 0.95
    """Cosine from which two samples are near-duplicates. What is right depends on the teacher (docs/labels.md)."""
    cells: int = 0
    """Near-duplicates are sought only among samples that share one of their two nearest of so many cells; 0: 1 for every
    200,000 samples; 1: among all."""
    start: Literal["auto", "spread", "random", "two_level"] = "auto"
    """Where k-means begins (`ove.labels.clusters.kmeans`)."""
    n_centers: int = 64
    """k of k-means, per bank; at most half the number of samples."""
    n_labels: int = 10
    """Nearest centers kept per sample, at most n_centers."""
    iterations: int = 20
    """Of k-means over all samples, at most; after `two_level` few are enough."""
    scores: Literal["float32", "bfloat16"] = "float32"
    """Type in which samples and centers are multiplied with each other, for k-means and labels; sums are float32."""
    seed: int = 0
    meet_limit_s: float = 600.0
    """How long several processes wait for each other at the start."""
    silence_limit_s: float = 60.0
    """A process not heard of for so long ends all others."""

    def __post_init__(self) -> None:
        at_least_one("labels", self, "size_px", "batch_size", "threads", "chunk_records", "n_centers", "n_labels")
        at_least_one("labels", self, "meet_limit_s", "silence_limit_s")
        if self.iterations < 0 or self.cells < 0:
            raise ConfigError(f"labels.iterations = {self.iterations} and labels.cells = {self.cells} must not be negative.")
        if not 0 < self.threshold <= 1 or not 0 <= self.max_bad_share <= 1:
            raise ConfigError(
                f"labels.threshold = {self.threshold:g} must be above 0 and at most 1, labels.max_bad_share = "
                f"{self.max_bad_share:g} within 0…1."
            )
        if (self.teacher == "thumbnails") != (self.weights == ""):
            raise ConfigError(
                f"labels.teacher = {self.teacher!r} and labels.weights = {self.weights!r} do not go together: `clip` and `ove` "
                "need a folder of weights, `thumbnails` has none."
            )
