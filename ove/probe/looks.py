"""What an encoder under test gets to see of each record of a labelled shard set."""

from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import numpy as np
from einops import rearrange
from jaxtyping import Int32, UInt8

from ove.batches.modes import MODES, View, see
from ove.errors import BadShard
from ove.probe.interventions import see_changed
from ove.shards.read import ShardSet
from ove.shards.schema import VideoRecord

UNKNOWN = -1
"""The class of a sample whose class name the training set lacks: whatever a probe says of it is wrong."""
_THREADS = 2


@dataclass(frozen=True)
class Look:
    """One sample."""

    patches: UInt8[np.ndarray, "N P"]
    positions: Int32[np.ndarray, "N 3"]
    label: int
    """Index into the classes of the training set, or UNKNOWN."""


@dataclass(frozen=True)
class Looks:
    """The samples of a shard set in one mode at one budget."""

    shards: ShardSet
    classes: tuple[str, ...]
    """Of the set that probes are trained on."""
    mode: str
    view: View
    intervention: str = "none"
    seed: int = 0
    """Of interventions and augmentation."""
    jitter: bool = False
    flip: float = 0.0
    """Augmentation, of samples that are asked for with an epoch: as in `ProbeConfig`."""

    def __len__(self) -> int:
        return len(self.shards)

    def about(self) -> dict[str, Any]:
        """All that decides what samples look like without augmentation, as JSON."""
        view = {name: value for name, value in vars(self.view).items() if not name.startswith("_")}
        changed = {} if self.intervention == "none" else {"intervention": self.intervention, "seed": self.seed}
        return {"shards": self.shards.fingerprint, "classes": list(self.classes), "mode": self.mode, "view": view} | changed

    def __call__(self, index: int, epoch: int | None = None) -> Look:
        """The sample with an index, without an epoch always the same; BadShard for a damaged record or one without a label."""
        record = self.shards.video(index)
        label = self._class_of(record)
        rng = np.random.default_rng((self.seed, index, 0 if epoch is None else 1 + epoch))
        if self.intervention != "none":
            number = int((index + rng.integers(1, max(2, len(self)))) % len(self))
            other = self.shards.video(number) if self.intervention == "other_video" else record
            patches, positions = see_changed(record, other, self.intervention, self.view, rng)
            return Look(patches, positions, label)
        augments = epoch is not None
        patches, positions = see(record, MODES.index(self.mode), self.view, rng if augments and self.jitter else None)
        if augments and rng.uniform() < self.flip:
            patches, positions = mirrored(patches, positions, record.patch_px, record.grid_tyx[2])
        return Look(patches, positions, label)

    def label(self, index: int) -> int:
        """The class of a sample alone, without decoding its pictures."""
        return self._class_of(self.shards.video(index))

    def _class_of(self, record: VideoRecord) -> int:
        if record.label is None:
            raise BadShard(
                f"{self.shards.folder}: {record.key} has no label; give the videos labels by subfolder or list, then run "
                "launch.shards again."
            )
        return self.classes.index(record.label) if record.label in self.classes else UNKNOWN


def mirrored(
    patches: UInt8[np.ndarray, "N P"], positions: Int32[np.ndarray, "N 3"], patch_px: int, columns: int
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]:
    """The tokens of the mirrored clip: pixels of each patch turned from left to right, x → columns − 1 − x."""
    pixels = rearrange(patches, "n (p q c) -> n p q c", p=patch_px, q=patch_px)[:, :, ::-1]
    return rearrange(pixels, "n p q c -> n (p q c)"), np.array([0, 0, columns - 1], np.int32) + positions * np.array(
        [1, 1, -1], np.int32
    )


def ahead(look: Callable[[int], Look], indices: Sequence[int], batch: int) -> Iterator[list[Look]]:
    """Samples in the given order, `batch` at a time, the next ones being read while the caller works on these."""
    with ThreadPoolExecutor(_THREADS) as pool:
        waiting: list[Future[Look]] = []
        for start in range(0, len(indices), batch):
            now, waiting = waiting, [pool.submit(look, index) for index in indices[start : start + batch]]
            if now:
                yield [future.result() for future in now]
        if waiting:
            yield [future.result() for future in waiting]
