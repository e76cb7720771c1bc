"""Changes the patches that the codec chose, to test whether their content matters or only their positions (paper, table 6).

All interventions keep the number of tokens; all but `shuffle` keep their positions, and frames that are kept whole.
"""

from collections.abc import Callable, Mapping

import numpy as np
from jaxtyping import Bool, Int, Int32, UInt8

from ove.errors import ConfigError
from ove.named import named
from ove.records import CODEC
from ove.shards.schema import VideoRecord, decode_frames
from ove.stream.modes import TokenView, to_tokens
from ove.video.patches import positions, take_patches
from ove.video.select import distinct_frames

SHARE = 0.5
"""Share of the tokens of partly kept frames that an intervention replaces."""
ChangedTokens = tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]
"""Patches and positions."""


def intervene(record: VideoRecord, other: VideoRecord, kind: str, view: TokenView, rng: np.random.Generator) -> ChangedTokens:
    """Returns the tokens of a record in mode codec after an intervention; `rng` selects the tokens that change.

    ConfigError for an unknown kind, or one's own that returns another number of tokens; BadShard as for `to_tokens`.
    """
    patches, tyx = to_tokens(record, CODEC, view, None)
    changed = named(INTERVENTIONS, kind, "probe.interventions")(patches, tyx, record, other, view, rng)
    if tuple(np.shape(part) for part in changed) != (patches.shape, tyx.shape):
        raise ConfigError(f"probe.interventions = {kind!r} must return patches {patches.shape} and positions {tyx.shape}.")
    return changed


def _non_motion(
    patches: np.ndarray, tyx: np.ndarray, record: VideoRecord, other: VideoRecord, view: TokenView, rng: np.random.Generator
) -> ChangedTokens:
    """Replaces half of the chosen patches by unchosen ones of the same frame, or of the nearest that has one left."""
    flat = _chosen(record, view)
    changed = _half(record, flat, rng)
    patches[changed] = patches_at(record, _unchosen_near(record, flat, flat[changed], rng))
    return patches, tyx


def _other_video(
    patches: np.ndarray, tyx: np.ndarray, record: VideoRecord, other: VideoRecord, view: TokenView, rng: np.random.Generator
) -> ChangedTokens:
    """Replaces the same half by patches chosen in the video `other`: of partly kept frames, if it has any."""
    changed = _half(record, _chosen(record, view), rng)
    theirs = _chosen(other, view)
    partly = theirs[~_whole(other, theirs)]
    news = partly if len(partly) else theirs
    patches[changed] = patches_at(other, np.sort(rng.choice(news, len(changed), replace=len(news) < len(changed))))
    return patches, tyx


def _chosen(record: VideoRecord, view: TokenView) -> Int32[np.ndarray, "N"]:
    return view.choose(record.scored)


def _whole(record: VideoRecord, flat: np.ndarray) -> np.ndarray:
    """Marks the tokens of frames all of whose valid patches are chosen."""
    n_frames, rows, columns = record.grid_tyx
    per_frame = rows * columns if record.valid is None else int(record.valid.sum())
    frame = flat // (rows * columns)
    return np.bincount(frame, minlength=n_frames)[frame] >= per_frame


def _half(record: VideoRecord, flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns the ascending indices of the tokens that change."""
    free = np.flatnonzero(~_whole(record, flat))
    return np.sort(rng.choice(free, round(SHARE * len(free)), replace=False))


def _unchosen_near(record: VideoRecord, flat: np.ndarray, changed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Returns one unchosen patch for each changed patch, without repetition, from its frame or the nearest that has one left.

    Letterbox padding is excluded: the intervention tests motion, not the presence of a picture. So are copies of a short
    video's frames, unless too little is left without them.
    """
    n_frames, rows, columns = record.grid_tyx
    per_frame = rows * columns
    left = np.ones(n_frames * per_frame, bool) if record.valid is None else np.tile(record.valid.ravel(), n_frames)
    left[flat] = False
    once = left & ~_is_copy(record, flat)
    left = once if once.sum() >= len(changed) else left
    spare = [list(rng.permutation(np.flatnonzero(frame))) for frame in left.reshape(n_frames, per_frame)]
    found = []
    for frame in changed // per_frame:
        frames = [other for other in range(n_frames) if spare[other]]
        if not frames:
            raise ConfigError(
                f"the budget of {len(flat)} leaves too few patches of {record.grid_tyx} to put in their place; lower it."
            )
        source = min(frames, key=lambda other: abs(other - frame))
        found.append(source * per_frame + spare[source].pop())
    return np.array(found, np.int64)


def _is_copy(record: VideoRecord, flat: np.ndarray) -> Bool[np.ndarray, "TYX"]:
    """Marks the patches that show what a chosen patch or one of an earlier sampled frame shows."""
    n_frames, rows, columns = record.grid_tyx
    same = record.frame_index[:, None] == record.frame_index
    chosen = np.zeros((n_frames, rows * columns), bool)
    chosen.reshape(-1)[flat] = True
    is_later = ~np.isin(np.arange(n_frames), distinct_frames(record.scored))
    return (is_later[:, None] | same @ chosen).reshape(-1)


def patches_at(record: VideoRecord, flat: Int[np.ndarray, "n"]) -> UInt8[np.ndarray, "n P"]:
    """Returns the patches of a record at flat indices."""
    per_frame = record.grid_tyx[1] * record.grid_tyx[2]
    tyx = positions(flat, record.grid_tyx)
    which, frame = np.unique(tyx[:, 0], return_inverse=True)
    return take_patches(decode_frames(record, which.tolist()), frame * per_frame + flat % per_frame, record.patch_px)


INTERVENTIONS: Mapping[str, Callable[..., ChangedTokens]] = {
    "none": lambda patches, tyx, *_: (patches, tyx),
    "non_motion": _non_motion,
    "other_video": _other_video,
    "shuffle": lambda patches, tyx, record, other, view, rng: (patches, tyx[rng.permutation(len(tyx))]),
}
"""Patches and positions of mode codec, the record, another record, view, `rng` → as many patches and positions."""
OF_ONE_VIDEO = ("none", "non_motion", "shuffle")
"""Those that need no other record."""
