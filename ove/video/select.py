"""Patch scores → the patches that an encoder gets to see: I-frames whole, and one global top-K over the rest."""

import numpy as np
from jaxtyping import Bool, Float32, Int32

from ove.errors import BadClip, ConfigError
from ove.records import Selection


def i_frame_flags(n_frames: int, gop_frames: int) -> Bool[np.ndarray, "T"]:
    """Which of the sampled frames count as I-frames: every `gop_frames`-th, beginning with the first (spec §2)."""
    return np.arange(n_frames) % gop_frames == 0


def sample_indices(n_decoded: int, n_frames: int, sampling: str) -> Int32[np.ndarray, "T"]:
    """Indices (ascending) of the `n_frames` sampled frames among the `n_decoded` frames of a video.

    `uniform` spreads them over the whole video; `consecutive` takes the middle. A video with fewer frames than asked for is
    sampled uniformly in both cases, so that indices repeat. An empty video raises BadClip (spec §2).
    """
    if n_decoded < 1:
        raise BadClip(f"a video of {n_decoded} frames cannot be sampled; at least one frame is needed.")
    if sampling == "consecutive" and n_decoded >= n_frames:
        return np.arange(n_frames, dtype=np.int32) + np.int32((n_decoded - n_frames) // 2)
    return np.linspace(0, n_decoded - 1, n_frames).astype(np.int32)


def select(
    scores: Float32[np.ndarray, "T Y X"], is_i_frame: Bool[np.ndarray, "T"], budget_tokens: int, iframe_policy: str
) -> Selection:
    """The `budget_tokens` patches of a clip that are kept, by the policy for I-frames and the scores of the rest.

    `keep`: I-frames whole; `first`: only frame 0 whole; `score`: all compete; `drop`: no patch of an I-frame. Of equal scores
    the lower flat index wins, so results never depend on the machine. A budget that the clip cannot meet raises ConfigError,
    scores that are not numbers raise BadClip (spec §2; paper eq. 2).
    """
    n_frames, rows, columns = scores.shape
    per_frame = rows * columns
    whole = _whole_frames(is_i_frame, iframe_policy)
    barred = is_i_frame if iframe_policy == "drop" else np.zeros(n_frames, bool)
    kept, most = int(whole.sum()) * per_frame, int((~barred).sum()) * per_frame
    if budget_tokens < max(kept, 1):
        raise ConfigError(
            f"budget_tokens = {budget_tokens} is below the {max(kept, 1)} patches that must be kept ({int(whole.sum())} whole "
            f"frames of {per_frame}); raise it, raise gop_frames, or choose iframe_policy 'first' or 'score'."
        )
    if budget_tokens > most:
        raise ConfigError(
            f"budget_tokens = {budget_tokens} is more than the {most} patches there are to choose from ({n_frames} frames of "
            f"{rows}×{columns}, {int(barred.sum())} of them barred by iframe_policy {iframe_policy!r}); lower it."
        )
    if np.isnan(scores).any():
        raise BadClip(f"{int(np.isnan(scores).sum())} patch scores are not numbers; make the saliency of this clip anew.")
    chosen = np.repeat(whole, per_frame)
    candidates = np.flatnonzero(np.repeat(~(whole | barred), per_frame))
    chosen[candidates[_top(scores.reshape(-1)[candidates], budget_tokens - kept)]] = True
    return Selection(np.flatnonzero(chosen).astype(np.int32), (n_frames, rows, columns))


def _whole_frames(is_i_frame: Bool[np.ndarray, "T"], iframe_policy: str) -> Bool[np.ndarray, "T"]:
    whole = np.zeros(len(is_i_frame), bool)
    if iframe_policy == "keep":
        return is_i_frame.copy()
    if iframe_policy == "first":
        whole[:1] = True
    elif iframe_policy not in ("score", "drop"):
        raise ConfigError(f"iframe_policy = {iframe_policy!r} is none of 'keep', 'first', 'score', 'drop'.")
    return whole


def _top(values: Float32[np.ndarray, "n"], count: int) -> Bool[np.ndarray, "n"]:
    """Mask of the `count` largest values; of equal values at the border the first ones are taken."""
    if count == 0:
        return np.zeros(len(values), bool)
    border = np.partition(values, len(values) - count)[len(values) - count]
    mask = values > border
    mask[np.flatnonzero(values == border)[: count - int(mask.sum())]] = True
    return mask
