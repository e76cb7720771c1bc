"""Supervision from raw data: centers and labels, text tags, and who computes them."""

from dataclasses import dataclass
from typing import Annotated, Literal

from ove.config.section import Bounds, Count, Natural, NonNegative, Own, Positive, Section, Share
from ove.errors import ConfigError


@dataclass(frozen=True)
class LabelsConfig(Section):
    """From clips and pictures to class centers (spec §5)."""

    teacher: Literal["thumbnails", "clip", "ove"] | Own = "thumbnails"
    """`thumbnails`: an offline stand-in without weights; `clip`: a CLIP vision tower; `ove`: a published encoder of ours."""
    weights: str = ""
    """Of the teacher: a folder with config.json and safetensors. The stand-in has none; your own takes what it likes."""
    compute: Literal["float32", "bfloat16"] = "float32"
    """Type in which the teacher computes."""
    size_px: Count = 224
    """Side of the pictures that the teacher `ove` sees; a multiple of its patches. CLIP's is in its config.json."""
    batch_size: Count = 64
    """Pictures, or frames of clips, that go through the teacher at once on each device."""
    threads: Count = 2
    """Threads that read and decode for the teacher."""
    chunk_records: Count = 16384
    """Records whose embeddings, or labels, lie in one file."""
    store: Literal["float32", "float16"] = "float32"
    """Type of the embeddings on disk."""
    max_bad_share: Share = 0.05
    """Past this share of records that cannot be read the command stops."""
    duplicates: Literal["keep", "exact", "near"] = "keep"
    """What is found and left without labels: nothing; equal pictures; also those whose embeddings are alike."""
    threshold: Annotated[float, Bounds(0, 1, above=True)] = 0.95
    """Cosine from which two samples are near-duplicates. What is right depends on the teacher (docs/labels.md)."""
    cells: Natural = 0
    """Near-duplicates are sought only among samples that share one of their two nearest of so many cells; 0: 1 for every
    200,000 samples; 1: among all."""
    start: Literal["auto", "spread", "random", "two_level"] = "auto"
    """Where k-means begins (`ove.labels.clusters.kmeans`)."""
    n_centers: Count = 64
    """k of k-means, per bank; at most half the number of samples."""
    n_labels: Count = 10
    """Nearest centers kept per sample, at most n_centers."""
    iterations: Natural = 20
    """Of k-means over all samples, at most; after `two_level` few are enough."""
    scores: Literal["float32", "bfloat16"] = "float32"
    """Type in which samples and centers are multiplied with each other, for k-means and labels; sums are float32."""
    seed: Natural = 0
    barrier_timeout_s: Annotated[float, Bounds(1)] = 600.0
    """How long several processes wait for each other at the start."""
    heartbeat_timeout_s: Annotated[float, Bounds(1)] = 60.0
    """A process not heard of for so long ends all others."""

    def check(self) -> None:
        if self.teacher in ("thumbnails", "clip", "ove") and (self.teacher == "thumbnails") != (self.weights == ""):
            raise ConfigError(
                f"labels.teacher = {self.teacher!r} and labels.weights = {self.weights!r} do not go together: `clip` and `ove` "
                "need a folder of weights, `thumbnails` has none."
            )


@dataclass(frozen=True)
class TextConfig(Section):
    """From the text in pictures to tags (spec §5)."""

    side_px: Annotated[int, Bounds(32)] = 736
    """Longer side of the picture in which text is looked for; larger ones are shrunk to it (lines are read at full size)."""
    turned: bool = True
    """Whether lines that stand on their head are recognised and turned."""
    min_confidence: Share = 0.5
    """Lines that were read with less (0…1) are left out."""
    vocabulary_size: Count = 365_187
    """Most words of the vocabulary: the most frequent ones (the size of the paper's bank)."""
    n_tags: Count = 100
    """Tags of each picture that has any."""
    seed: Natural = 0
    """Decides which tags are kept where a picture has more."""


@dataclass(frozen=True)
class EnginesConfig(Section):
    """Who runs `process(shard)`, and what happens to a shard that fails. None of it changes a byte of what comes out."""

    engine: Literal["local", "ray"] = "local"
    """Processes of this machine, or the tasks of a Ray cluster (requirements-ray.txt)."""
    workers: Natural = 2
    """Processes of the local engine; 0: all in the calling process, without a time limit."""
    retries: Natural = 2
    """How often a shard that failed, crashed its process or took too long is tried again before it is set aside."""
    time_limit_s: Positive = 3600.0
    """Most processor time for one shard, in seconds; then its process is ended (and after ten times that by the clock)."""
    max_dead_share: Share = 0.01
    """Past this share of shards set aside the command stops; up to it their records stay without labels."""
    ray_address: str = ""
    """Of a running Ray cluster; "": that of RAY_ADDRESS, else a cluster running on this machine, else a new one here."""
    ray_cpus: Positive = 1.0
    """CPUs that Ray sets aside for one shard (one actor)."""
    ray_actors: Natural = 0
    """0: each shard is a task, wherever a CPU is free, also on machines that join later; n: n actors, processes that stay and
    keep what they have loaded."""
    ray_gpus: NonNegative = 0.0
    """GPUs that Ray sets aside for one actor."""

    def check(self) -> None:
        if self.ray_gpus and not self.ray_actors:
            raise ConfigError(f"engines.ray_gpus = {self.ray_gpus:g} needs actors; set engines.ray_actors.")
