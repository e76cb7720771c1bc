"""Where and when patches are chosen in the clips of a shard set: what the maps and curves of selection are made of."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from ove.errors import BadClip, BadShard
from ove.records import Saliency
from ove.shards.read import ShardSet
from ove.stream.modes import TokenView


@dataclass(frozen=True)
class Choices:
    """Of all clips of a set."""

    tokens: Int64[np.ndarray, "V T"]
    """Patches chosen of each frame of each clip."""
    whole: Bool[np.ndarray, "V T"]
    """Frames all of whose valid patches are chosen; they say nothing of where in the picture things happen."""
    places: Int64[np.ndarray, "Y X"]
    """How often each place is chosen in frames that are not whole."""
    chances: Int64[np.ndarray, "Y X"]
    """In how many of these frames the place could be chosen: it lies within the picture."""
    in_middle: Float[np.ndarray, "V"]
    """Of each clip, the share of these patches that lie in the middle half of rows and of columns; NaN where there are none."""

    def map(self) -> Float[np.ndarray, "Y X"]:
        """How often each place is chosen, over the mean of all places; NaN where it never could be."""
        rate = np.where(self.chances > 0, self.places / np.maximum(self.chances, 1), np.nan)
        return rate / max(float(np.nanmean(rate)), 1e-12)

    def middle_share_if_even(self) -> float:
        """What `in_middle` would be on the average if all places were alike."""
        return float(self.chances[_middle(self.chances.shape)].sum() / max(int(self.chances.sum()), 1))

    def evenness(self) -> float:
        """Entropy of the map over that of an even one: 1 where all places are alike, 0 where one is always chosen."""
        rate = self.map()
        share = rate[~np.isnan(rate)] / max(float(np.nansum(rate)), 1e-12)
        known = share[share > 0]
        return float(-(known * np.log(known)).sum() / np.log(len(share))) if len(share) > 1 else 1.0


def choices_of(shards: ShardSet, view: TokenView, report: Callable[[int, int], None] = lambda done, total: None) -> Choices:
    """What mode codec chooses of every clip; ConfigError for a budget that does not fit, BadShard for a damaged record."""
    n_frames, rows, columns = shards.grid_tyx
    tokens = np.zeros((len(shards), n_frames), np.int64)
    whole = np.zeros((len(shards), n_frames), bool)
    places, chances = np.zeros((2, rows, columns), np.int64)
    in_middle = np.full(len(shards), np.nan)
    middle = _middle((rows, columns))
    for number in range(len(shards)):
        record = shards.video(number)
        valid = np.ones((rows, columns), bool) if record.valid is None else record.valid
        chosen = np.zeros((n_frames, rows, columns), bool)
        try:
            chosen.reshape(-1)[view.choose(Saliency(record.saliency.astype(np.float32), record.valid))] = True
        except BadClip as error:
            raise BadShard(f"{shards.folder}: {record.key}: {error}") from error
        tokens[number] = chosen.sum(axis=(1, 2))
        whole[number] = tokens[number] >= valid.sum()
        parts = chosen[~whole[number]].sum(axis=0)
        places += parts
        chances += valid * int((~whole[number]).sum())
        if parts.any():
            in_middle[number] = parts[middle].sum() / parts.sum()
        report(number + 1, len(shards))
    return Choices(tokens, whole, places, chances, in_middle)


def _middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """The middle half of rows and columns: a quarter of the picture, if both are multiples of four."""
    rows, columns = shape
    return slice(rows // 4, rows - rows // 4), slice(columns // 4, columns - columns // 4)
