"""Counts where and when patches are chosen in the clips of a shard set."""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from jaxtyping import Bool, Float, Int64

from ove.errors import BadClip, BadShard
from ove.shards.joined import Shards
from ove.stream.modes import TokenView


@dataclass(frozen=True)
class Choices:
    """Counts over all clips of a set."""

    tokens: Int64[np.ndarray, "V T"]
    """Chosen patches per frame of each clip."""
    whole: Bool[np.ndarray, "V T"]
    """Frames all of whose valid patches are chosen; they are left out of the maps."""
    places: Int64[np.ndarray, "Y X"]
    """How often each place of the grid is chosen, in frames that are not whole."""
    chances: Int64[np.ndarray, "Y X"]
    """In how many of these frames the place lies within the picture."""
    in_middle: Float[np.ndarray, "V"]
    """Share of these patches in the middle half of rows and columns, per clip; NaN where there are none."""

    def map(self) -> Float[np.ndarray, "Y X"]:
        """Returns the rate at which each place is chosen, over the mean rate; NaN for places outside all pictures."""
        rate = np.where(self.chances > 0, self.places / np.maximum(self.chances, 1), np.nan)
        return rate / max(float(np.nanmean(rate)), 1e-12)

    def middle_share_if_even(self) -> float:
        """Returns the mean of `in_middle` under a uniform choice."""
        return float(self.chances[_middle(self.chances.shape)].sum() / max(int(self.chances.sum()), 1))

    def evenness(self) -> float:
        """Returns the entropy of the map over that of a uniform one: 1 if uniform, 0 if concentrated in one place."""
        rate = self.map()
        share = rate[~np.isnan(rate)] / max(float(np.nansum(rate)), 1e-12)
        known = share[share > 0]
        return float(-(known * np.log(known)).sum() / np.log(len(share))) if len(share) > 1 else 1.0


def choices_of(shards: Shards, view: TokenView, progress: Callable[[int, int], None] = lambda done, total: None) -> Choices:
    """Selects patches of every clip in mode codec; ConfigError for an unfit budget, BadShard for a damaged record."""
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
            chosen.reshape(-1)[view.choose(record.scored)] = True
        except BadClip as error:
            raise BadShard(f"{shards.folder}: {record.key}: {error}") from error
        tokens[number] = chosen.sum(axis=(1, 2))
        whole[number] = tokens[number] >= valid.sum()
        parts = chosen[~whole[number]].sum(axis=0)
        places += parts
        chances += valid * int((~whole[number]).sum())
        if parts.any():
            in_middle[number] = parts[middle].sum() / parts.sum()
        progress(number + 1, len(shards))
    return Choices(tokens, whole, places, chances, in_middle)


def _middle(shape: tuple[int, ...]) -> tuple[slice, slice]:
    """Returns the middle half of rows and of columns."""
    rows, columns = shape
    return slice(rows // 4, rows - rows // 4), slice(columns // 4, columns - columns // 4)
