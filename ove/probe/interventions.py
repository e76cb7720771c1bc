"""Controlled damage to what the codec chose: is it the patches that matter, or only where they lie? (paper, table 6)

Number and positions of the tokens stay as they are in all cases but the last, in which the same tokens stand elsewhere.
"""

import numpy as np
from jaxtyping import Int32, UInt8

from ove.errors import ConfigError
from ove.records import Saliency
from ove.shards.schema import VideoRecord, decode_frames
from ove.stream.modes import CODEC, View, see
from ove.video.patches import gather, positions

SHARE = 0.5
"""Of the tokens of the frames that are not kept whole, how many get other content."""


def see_changed(
    record: VideoRecord, other: VideoRecord, kind: str, view: View, rng: np.random.Generator
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]:
    """What mode codec shows of a record, changed; `rng` says which tokens.

    `none`: as it is. `non_motion`: half of the chosen patches show instead a patch of the same frame that was not chosen (of
    the nearest frame that has one left; never letterbox padding). `other_video`: the same half show patches that were chosen
    of the video `other`. `shuffle`: all patches keep what they show and change their positions with each other. Frames that
    are kept whole count as scene, not as choice, and keep their content. Another kind raises ConfigError; BadShard as `see`.
    """
    patches, tyx = see(record, CODEC, view, None)
    if kind == "none":
        return patches, tyx
    if kind == "shuffle":
        return patches, tyx[rng.permutation(len(tyx))]
    flat = _chosen(record, view)
    changed = _half(record, flat, rng)
    if kind == "non_motion":
        patches = patches.copy()
        patches[changed] = _patches_at(record, _unchosen_near(record, flat, flat[changed], rng))
    elif kind == "other_video":
        patches = patches.copy()
        theirs = _chosen(other, view)
        news = theirs[~_whole(other, theirs)]
        patches[changed] = _patches_at(other, np.sort(rng.choice(news, len(changed), replace=len(news) < len(changed))))
    else:
        raise ConfigError(f"intervention {kind!r} is none of none, non_motion, other_video, shuffle.")
    return patches, tyx


def _chosen(record: VideoRecord, view: View) -> Int32[np.ndarray, "N"]:
    return view.choose(Saliency(record.saliency.astype(np.float32), record.valid))


def _whole(record: VideoRecord, flat: np.ndarray) -> np.ndarray:
    """Which tokens belong to a frame all of whose valid patches are chosen."""
    n_frames, rows, columns = record.grid_tyx
    per_frame = rows * columns if record.valid is None else int(record.valid.sum())
    frame = flat // (rows * columns)
    return np.bincount(frame, minlength=n_frames)[frame] >= per_frame


def _half(record: VideoRecord, flat: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Places of the tokens that change, ascending."""
    free = np.flatnonzero(~_whole(record, flat))
    return np.sort(rng.choice(free, round(SHARE * len(free)), replace=False))


def _unchosen_near(record: VideoRecord, flat: np.ndarray, changed: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """For each changed patch one that was not chosen, each once, of its frame or the nearest frame that has some left.

    Never letterbox padding: the question is whether motion matters, not whether pictures do.
    """
    n_frames, rows, columns = record.grid_tyx
    per_frame = rows * columns
    left = np.ones(n_frames * per_frame, bool) if record.valid is None else np.tile(record.valid.ravel(), n_frames)
    left[flat] = False
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


def _patches_at(record: VideoRecord, flat: np.ndarray) -> UInt8[np.ndarray, "n P"]:
    per_frame = record.grid_tyx[1] * record.grid_tyx[2]
    tyx = positions(flat, record.grid_tyx)
    which, frame = np.unique(tyx[:, 0], return_inverse=True)
    return gather(decode_frames(record, which.tolist()), frame * per_frame + flat % per_frame, record.patch_px)
