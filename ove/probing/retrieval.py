"""Measures same-video retrieval: the nearest embedding to one part of a video should be that of its other part."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Literal

from ove.errors import BadClip, BadShard, ConfigError
from ove.features.frozen import Frozen
from ove.probing.dataset import UNKNOWN, Example, ProbeDataset
from ove.probing.features import embed
from ove.probing.heads.knn import retrieval_at_1
from ove.probing.interventions import patches_at
from ove.probing.scores import Accuracy
from ove.records import Saliency, on_time_grid
from ove.shards.joined import Shards
from ove.shards.schema import decode_frames
from ove.stream.modes import TokenView
from ove.video.patches import all_positions, frames_to_patches, positions

ClipParts = Literal["frames", "halves"]
CLIP_PARTS: tuple[ClipParts, ...] = ("frames", "halves")
"""`frames`: one whole frame at a quarter and at three quarters of the clip; `halves`: the patches chosen in each half, at half
the budget."""


@dataclass(frozen=True)
class Retrieval:
    """Share of queries whose nearest embedding belongs to the same video, over both directions."""

    found: float
    """0…1."""
    queries: int
    """Two per video."""

    def interval(self) -> tuple[float, float]:
        """Returns the 95 % Wilson interval; slightly too narrow, as two queries share a video."""
        return Accuracy(self.found, self.found, self.found, self.queries).interval()


def retrieve(
    encoder: Frozen, shards: Shards, view: TokenView, parts: ClipParts, progress: Callable[[int, int], None]
) -> Retrieval:
    """Measures same-video retrieval over all videos of a set; they need no labels.

    ConfigError for clips of a single frame, or a budget that half a clip cannot fill.
    """
    if shards.grid_tyx[0] < 2 or len(shards) < 2:
        raise ConfigError(f"{shards.folder}: retrieval needs at least two videos of at least two frames.")
    view = replace(view, budget_tokens=view.budget_tokens // 2)
    first, second = (
        embed(encoder, _Part(shards, (), "image" if parts == "frames" else "codec", view, part=part), progress).vectors
        for part in (0, 1)
    )
    found = (retrieval_at_1(first, second) + retrieval_at_1(second, first)) / 2
    return Retrieval(found, 2 * len(shards))


@dataclass(frozen=True)
class _Part(ProbeDataset):
    """One of two parts of each clip."""

    part: int = 0

    def __call__(self, index: int, epoch: int | None = None) -> Example:
        """Returns the tokens of the part, unlabelled; times are those of the whole clip, or 0 for a single frame."""
        record = self.shards.video(index)
        n_frames, rows, columns = record.grid_tyx
        if self.mode == "image":
            frame = decode_frames(record, [n_frames // 4 + self.part * (n_frames // 2)])
            return Example(frames_to_patches(frame, record.patch_px), all_positions((1, rows, columns)).copy(), UNKNOWN)
        begin, end = (0, n_frames // 2) if self.part == 0 else (n_frames // 2, n_frames)
        try:
            scored = record.scored
            flat = self.view.choose(Saliency(scored.scores[begin:end], scored.valid, record.frame_index[begin:end]))
        except BadClip as error:
            raise BadShard(f"{self.shards.folder}: {record.key}: {error}") from error
        flat += begin * rows * columns
        tyx = positions(flat, record.grid_tyx)
        tyx[:, 0] = on_time_grid(tyx[:, 0], n_frames)
        return Example(patches_at(record, flat), tyx, UNKNOWN)
