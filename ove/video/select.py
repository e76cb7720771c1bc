"""Patch scores → the patches that an encoder sees: I-frames whole, and a global top K of the rest."""

from collections.abc import Callable

import numpy as np
from jaxtyping import Bool, Float32, Int

from ove.config import SelectionConfig
from ove.errors import BadClip, ConfigError
from ove.named import named
from ove.records import Saliency, Selection
from ove.video.sampling import sample_indices

Flags = Bool[np.ndarray, "T"]
_STATIC_FRAMES = 4
_STATIC_P95, _STATIC_P95_IF_FLAT, _STATIC_CONTRAST = 126 / 255, 252 / 255, 0.38
"""Fallback for static clips (spec §2, there on scores of 0…255): frames taken whole, and what makes a clip static."""


def i_frame_flags(n_frames: int, gop_frames: int) -> Bool[np.ndarray, "T"]:
    """Returns which sampled frames count as I-frames: every `gop_frames`-th from the first (spec §2)."""
    return np.arange(n_frames) % min(gop_frames, max(n_frames, 1)) == 0


def budget_of(budget: int | float, grid_tyx: tuple[int, int, int]) -> int:
    """Returns the tokens of a budget: an integer counts tokens, a float up to 1 is a share of all patches, padding included.

    0.125 of 64 × 16 × 16 patches is 2,048. ConfigError for anything else.
    """
    every = int(np.prod(grid_tyx))
    if isinstance(budget, float) and 0 < budget <= 1:
        return max(1, round(budget * every))
    if not 1 <= budget < np.inf or budget != int(budget):
        raise ConfigError(
            f"budget = {budget!r} is neither a number of tokens (2048) nor a share of the {every} patches (0.125)."
        )
    return int(budget)


def choose_patches(
    saliency: Saliency, is_i_frame: Bool[np.ndarray, "T"], budget: int | float, config: SelectionConfig, fill: bool = False
) -> Selection:
    """Selects the patches of a clip, exactly as many as the budget says (`budget_of`), by `selection.rule`.

    Of frames that were sampled more than once (`Saliency.frame_index`) one copy is chosen from. A clip with fewer different
    patches than the budget gives all of them; with `fill`, for rows of one length, also copies of the best up to the budget.
    Errors as in `select` (spec §2); ConfigError for a user's rule that returns anything else.
    """
    tokens, grid = budget_of(budget, saliency.scores.shape), saliency.scores.shape
    chosen = named(SELECTION_RULES, config.rule, "selection.rule")(saliency, is_i_frame, tokens, config)
    flat = chosen.flat
    few = len(distinct_frames(saliency)) < grid[0] and 0 < len(flat) < tokens
    if (
        not (few or len(flat) == tokens)
        or chosen.grid_tyx != grid
        or (np.diff(flat) <= 0).any()
        or flat[0] < 0
        or flat[-1] >= np.prod(grid)
    ):
        raise ConfigError(
            f"selection.rule = {config.rule!r} must choose {tokens} ascending patches of {grid}, not {len(flat)}."
        )
    return _filled(saliency, chosen, tokens) if few and fill else chosen


def distinct_frames(saliency: Saliency) -> Int[np.ndarray, "U"]:
    """Returns the sampled frames without the copies of earlier ones."""
    index = saliency.frame_index
    return np.arange(len(saliency.scores)) if index is None else np.sort(np.unique(index, return_index=True)[1])


def _filled(saliency: Saliency, chosen: Selection, tokens: int) -> Selection:
    """Adds copies of chosen patches, the best first, up to `tokens`."""
    assert saliency.frame_index is not None
    taken = np.zeros(saliency.scores.shape, bool)
    taken.reshape(-1)[chosen.flat] = True
    of_frame = np.unique(saliency.frame_index, return_inverse=True)[1]
    seen = np.zeros_like(taken)  # by number of the frame
    np.logical_or.at(seen, of_frame, taken)
    copies = np.flatnonzero(seen[of_frame] & ~taken)
    best = _top(saliency.scores.reshape(-1)[copies], tokens - len(chosen.flat))
    return Selection(np.sort(np.concatenate([chosen.flat, copies[best].astype(np.int32)])), chosen.grid_tyx)


def _patches(saliency: Saliency, is_i_frame: Flags, tokens: int, config: SelectionConfig) -> Selection:
    """Selects by `select`; with `static_fallback` a clip in which little stands out keeps 4 evenly spaced frames whole (fewer
    if the budget ends before) in place of its I-frames, and the rest by score.
    """
    scores, frames = saliency.scores, distinct_frames(saliency)
    inside = _all_if_none(saliency.valid, scores.shape[1:])
    per_frame = int(inside.sum())
    if config.static_fallback and per_frame and _is_static(scores[frames][:, inside]):
        spaced = sample_indices(len(frames), min(_STATIC_FRAMES, len(frames), tokens // per_frame), "uniform")
        whole = np.isin(np.arange(len(scores)), frames[spaced])
        return _select(saliency, whole, np.zeros(len(scores), bool), tokens, config.outside, config.buckets)
    whole, barred = named(IFRAME_POLICIES, config.iframe_policy, "selection.iframe_policy")(is_i_frame)
    return _select(saliency, whole, barred, tokens, config.outside, config.buckets)


def _frames(saliency: Saliency, is_i_frame: Flags, tokens: int, config: SelectionConfig) -> Selection:
    """Selects evenly spaced frames whole, the last cut to the budget by score; by `_patches` if no patch is valid."""
    every, frames = np.arange(len(saliency.scores)), distinct_frames(saliency)
    per_frame = int(_all_if_none(saliency.valid, saliency.scores.shape[1:]).sum())
    if not per_frame:
        return _patches(saliency, is_i_frame, tokens, config)
    spaced = frames[sample_indices(len(frames), min(-(-tokens // per_frame), len(frames)), "uniform")]
    index = every if saliency.frame_index is None else saliency.frame_index
    whole, barred = np.isin(every, spaced[:-1]), ~np.isin(index, index[spaced])
    return _select(saliency, whole, barred, tokens, config.outside, config.buckets)


Rule = Callable[[Saliency, Flags, int, SelectionConfig], Selection]
SELECTION_RULES: dict[str, Rule] = {"patches": _patches, "frames": _frames}
"""`selection.rule`: saliency, which frames are I-frames, tokens, settings → the patches."""


IFRAME_POLICIES: dict[str, Callable[[Flags], tuple[Flags, Flags]]] = {
    "keep": lambda is_i_frame: (is_i_frame, np.zeros_like(is_i_frame)),
    "first": lambda is_i_frame: (np.arange(len(is_i_frame)) == 0, np.zeros_like(is_i_frame)),
    "score": lambda is_i_frame: (np.zeros_like(is_i_frame), np.zeros_like(is_i_frame)),
    "drop": lambda is_i_frame: (np.zeros_like(is_i_frame), is_i_frame),
}
"""`selection.iframe_policy`: which frames are I-frames → which are kept whole, and which give no patch."""


def select(
    scores: Float32[np.ndarray, "T Y X"],
    is_i_frame: Bool[np.ndarray, "T"],
    budget_tokens: int,
    iframe_policy: str,
    valid: Bool[np.ndarray, "Y X"] | None = None,
    outside: str = "exclude",
    buckets: int = 1,
) -> Selection:
    """Selects `budget_tokens` patches of a clip by the policy for I-frames and the scores of the rest (spec §2; paper eq. 2).

    `keep`: I-frames whole; `first`: only frame 0 whole; `score`: all compete; `drop`: no patch of an I-frame. Of equal scores
    the lower flat index wins, so that results do not depend on the machine. Patches that are not `valid` (letterbox) are never
    chosen (`exclude`) or come last, by flat index (`zero`), in whole frames too. With `buckets` > 1, what is left after the
    whole frames is divided equally among equal stretches of time; the remainder goes by score. ConfigError for a budget that
    no clip can meet, BadClip for one that this clip cannot, or for NaN scores.
    """
    whole, barred = named(IFRAME_POLICIES, iframe_policy, "selection.iframe_policy")(is_i_frame)
    return _select(Saliency(scores, valid), whole, barred, budget_tokens, outside, buckets)


def _copies(frame_index: Int[np.ndarray, "T"], whole: Flags, barred: Flags) -> Flags:
    """Returns the sampled frames that are copies: all but one of each frame, a whole one if there is, else one not barred."""
    rank = np.where(barred, 2, np.where(whole, 0, 1))
    order = np.lexsort((rank, frame_index))
    kept = order[np.unique(frame_index[order], return_index=True)[1]]
    return ~np.isin(np.arange(len(frame_index)), kept)


def _select(saliency: Saliency, whole: Flags, barred: Flags, tokens: int, outside: str, buckets: int) -> Selection:
    """Selects whole frames, then the best patches of the other frames that are not barred, then, for `zero`, padding.

    Copies of a frame count for the check of the budget alone.
    """
    scores = saliency.scores
    n_frames, rows, columns = scores.shape
    inside = _all_if_none(saliency.valid, (rows, columns)).ravel()
    takes_padding = {"exclude": False, "zero": True}[outside]
    most = int((~barred).sum()) * (len(inside) if takes_padding else int(inside.sum()))
    if saliency.frame_index is not None:
        copies = _copies(saliency.frame_index, whole, barred)
        whole, barred = whole & ~copies, barred | copies
    chosen = (whole[:, None] & inside).ravel()
    candidates = np.flatnonzero(~(whole | barred)[:, None] & inside)
    padding = np.flatnonzero(~barred[:, None] & ~inside) if takes_padding else np.empty(0, np.int64)
    kept = int(chosen.sum())
    if tokens < max(kept, 1):
        raise ConfigError(
            f"budget_tokens = {tokens} is below the {max(kept, 1)} patches that must be kept ({int(whole.sum())} whole "
            f"frames of {int(inside.sum())}); raise it, raise gop_frames, or choose iframe_policy 'first' or 'score'."
        )
    if tokens > most:
        words = f"budget_tokens = {tokens} is more than the {most} patches there are to choose from ({n_frames} frames of "
        words += f"{rows}×{columns}, {int(barred.sum())} of them barred"
        if inside.all():
            raise ConfigError(f"{words}, by iframe_policy or selection); lower it.")
        raise BadClip(
            f"{words}; {int(inside.sum())} patches a frame lie wholly within the picture); lower it, or outside=zero."
        )
    if np.isnan(scores).any():
        raise BadClip(f"{int(np.isnan(scores).sum())} patch scores are not numbers; make the saliency of this clip anew.")
    tokens = min(tokens, kept + len(candidates) + len(padding))
    best = min(tokens - kept, len(candidates))
    bucket = candidates // (rows * columns) * buckets // n_frames
    chosen[candidates[_top_of_buckets(scores.reshape(-1)[candidates], best, bucket, buckets)]] = True
    chosen[padding[: tokens - kept - best]] = True
    return Selection(np.flatnonzero(chosen).astype(np.int32), (n_frames, rows, columns))


def _all_if_none(valid: Bool[np.ndarray, "Y X"] | None, shape: tuple[int, ...]) -> Bool[np.ndarray, "Y X"]:
    return np.ones(shape, bool) if valid is None else valid


def _is_static(scores: Float32[np.ndarray, "T n"]) -> bool:
    """Returns whether little stands out: high scores are low, or not far above the median (spec §2)."""
    middle, high = np.percentile(scores, (50, 95))
    return bool(high < _STATIC_P95 or (high < _STATIC_P95_IF_FLAT and (high - middle) / high < _STATIC_CONTRAST))


def _top_of_buckets(
    values: Float32[np.ndarray, "n"], count: int, bucket: Int[np.ndarray, "n"], buckets: int
) -> Bool[np.ndarray, "n"]:
    """Returns a mask of `count` values: of each bucket equally many of its largest, then the largest that remain."""
    if buckets == 1:
        return _top(values, count)
    mask = np.zeros(len(values), bool)
    for number in range(buckets):
        members = np.flatnonzero(bucket == number)
        mask[members[_top(values[members], min(count // buckets, len(members)))]] = True
    others = np.flatnonzero(~mask)
    mask[others[_top(values[others], count - int(mask.sum()))]] = True
    return mask


def _top(values: Float32[np.ndarray, "n"], count: int) -> Bool[np.ndarray, "n"]:
    """Returns a mask of the `count` largest values; of equal ones at the border the first."""
    if count == 0:
        return np.zeros(len(values), bool)
    border = np.partition(values, len(values) - count)[len(values) - count]
    mask = values > border
    mask[np.flatnonzero(values == border)[: count - int(mask.sum())]] = True
    return mask
