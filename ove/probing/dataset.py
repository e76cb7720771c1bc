"""Turns the records of a labelled shard set into examples for probes."""

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, closing, nullcontext
from dataclasses import dataclass, field, fields
from functools import partial
from itertools import islice
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Int32, UInt8

from ove.config import limits
from ove.errors import BadShard
from ove.named import own_source
from ove.prefetch import prefetch
from ove.probing.interventions import INTERVENTIONS, OF_ONE_VIDEO, intervene
from ove.records import MODES
from ove.shards.joined import Shards
from ove.shards.schema import VideoRecord
from ove.stream.modes import TokenView, to_tokens
from ove.video.select import IFRAME_POLICIES, SELECTION_RULES
from ove.workers import Crew, Died

UNKNOWN = -1
"""Label of samples whose class the training set lacks; every prediction for them counts as wrong."""
_THREADS = 2


@dataclass(frozen=True)
class Example:
    """One sample of a probe."""

    patches: UInt8[np.ndarray, "N P"]
    positions: Int32[np.ndarray, "N 3"]
    label: int
    """Class index, or UNKNOWN."""


@dataclass(frozen=True)
class ProbeDataset:
    """The samples of a shard set, or of several, in one mode at one budget."""

    shards: Shards
    classes: tuple[str, ...]
    """Class names of the training set, by class index."""
    mode: str
    view: TokenView
    intervention: str = "none"
    seed: int = 0
    """Seed of interventions and augmentation."""
    jitter: bool = False
    flip: float = 0.0
    """Augmentation of samples that are read with an epoch; see `ProbeConfig`."""
    apart: Crew[Any, Any] | None = field(default=None, compare=False, repr=False)
    """Processes that `read` decodes in (`readers`); None: this one."""

    def __len__(self) -> int:
        return len(self.shards)

    def cache_key(self) -> dict[str, Any]:
        """Returns all that the samples depend on, augmentation aside, as JSON."""
        changed = {} if self.intervention == "none" else {"intervention": self.intervention, "seed": self.seed}
        selection = self.view.selection
        return {
            "shards": self.shards.fingerprint,
            "classes": list(self.classes),
            "mode": self.mode,
            "view": self.view.about(),
            **({} if self.mode == "image" else {"copies": "left out"}),  # of frames of short videos; once they were not
            **changed,
            **own_source(INTERVENTIONS, self.intervention, "probe.interventions"),
            **own_source(SELECTION_RULES, selection.rule, "selection.rule"),
            **own_source(IFRAME_POLICIES, selection.iframe_policy, "selection.iframe_policy"),
        }

    def __call__(self, index: int, epoch: int | None = None) -> Example:
        """Returns a sample; without `epoch` it is not augmented.

        BadShard for a damaged record, one without a label, or a picture where the mode needs a video.
        """
        record = self.shards.record(index) if self.mode == "image" else self.shards.video(index)
        label = self._class_of(record.key, record.label)
        rng = np.random.default_rng((self.seed, index, 0 if epoch is None else 1 + epoch))
        if self.intervention != "none":
            assert isinstance(record, VideoRecord)
            number = int((index + rng.integers(1, max(2, len(self)))) % len(self))
            other = record if self.intervention in OF_ONE_VIDEO else self.shards.video(number)
            patches, positions = intervene(record, other, self.intervention, self.view, rng)
            return Example(patches, positions, label)
        augments = epoch is not None
        patches, positions = to_tokens(record, MODES.index(self.mode), self.view, rng if augments and self.jitter else None)
        if augments and rng.uniform() < self.flip:
            columns = record.grid_tyx[2] if isinstance(record, VideoRecord) else int(positions[:, 2].max()) + 1
            patches, positions = mirrored(patches, positions, columns)
        return Example(patches, positions, label)

    def read(self, index: int, epoch: int | None = None) -> Example:
        """Returns a sample like a call, which is made in one of the processes `apart`; BadShard if that had to be ended."""
        if self.apart is None:
            return self(index, epoch)
        looks = {each.name: getattr(self, each.name) for each in fields(self) if each.name not in ("shards", "apart")}
        found = self.apart((looks, index, epoch))
        if isinstance(found, Died):
            raise BadShard(
                f"{self.shards.folder}: record {index} cannot be decoded: {found}; look for others with `ove verify --decode`, "
                "and write the shards again."
            )
        return found

    def labels(self) -> Int32[np.ndarray, "S"]:
        """Returns the labels of all samples without decoding pictures; the names are read once per shard set."""
        return np.array([self._class_of(key, name) for key, name in self.shards.names], np.int32)

    def n_unknown(self) -> int:
        """Counts the samples whose class the training set lacks."""
        return int((self.labels() == UNKNOWN).sum()) if set(self.shards.classes) - set(self.classes) else 0

    def _class_of(self, key: str, name: str | None) -> int:
        if name is None:
            raise BadShard(
                f"{self.shards.folder}: {key} has no label; give the files labels by subfolder or list, then run "
                "`ove shards` again."
            )
        return self.classes.index(name) if name in self.classes else UNKNOWN


def readers(shards: Shards, workers: int) -> AbstractContextManager[Crew[Any, Any] | None]:
    """Returns processes that read samples of a set, each for at most `LimitsConfig.record_limit_s`; None for 0 workers."""
    return Crew(partial(_sample_of, shards), workers, limits().record_limit_s) if workers else nullcontext()


def _sample_of(shards: Shards, what: tuple[dict[str, Any], int, int | None]) -> Example:
    looks, index, epoch = what
    return ProbeDataset(shards, **looks)(index, epoch)


def mirrored(
    patches: UInt8[np.ndarray, "N P"], positions: Int32[np.ndarray, "N 3"], columns: int
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]:
    """Returns the tokens of the horizontally mirrored clip."""
    patch_px = math.isqrt(patches.shape[1] // 3)
    pixels = rearrange(patches, "n (p q c) -> n p q c", p=patch_px, q=patch_px)[:, :, ::-1]
    return rearrange(pixels, "n p q c -> n (p q c)"), np.array([0, 0, columns - 1], np.int32) + positions * np.array(
        [1, 1, -1], np.int32
    )


def ahead(read: Callable[[int], Example], indices: Sequence[int], batch: int) -> Iterator[list[Example]]:
    """Yields samples in the given order, `batch` at a time; reads the next batch in the meantime."""
    with closing(prefetch(read, indices, _THREADS, depth=batch)) as examples:
        while now := list(islice(examples, batch)):
            yield now
