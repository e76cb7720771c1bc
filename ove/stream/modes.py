"""Turns a record into tokens in one of the modes codec, frames, tiling and image (spec §2)."""

import itertools
from collections.abc import Callable, Collection, Sequence
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
from jaxtyping import Int32, UInt8

from ove.config import SelectionConfig
from ove.errors import BadClip, BadShard, ConfigError
from ove.records import CODEC, FRAMES, IMAGE, MODES, TILING, Saliency, on_time_grid
from ove.shards.schema import ImageRecord, Record, VideoRecord, decode_frames, decode_image, decode_mosaic
from ove.stream.augment import to_square
from ove.video.patches import all_positions, frames_to_patches, positions, take_patches
from ove.video.sampling import sample_indices
from ove.video.select import choose_patches, distinct_frames, i_frame_flags


@dataclass(frozen=True)
class TokenView:
    """Settings of `to_tokens`."""

    budget_tokens: int
    selection: SelectionConfig = field(default_factory=SelectionConfig)
    patch_px: int = 14
    """Of images; clips say theirs."""
    size_px: int = 0
    """Side of the square of images; 0: that of the clip, or the shorter side of the picture."""
    augment: str = "crop"
    """As in `ove.stream.augment.to_square`."""

    def about(self) -> dict[str, Any]:
        """Returns all settings as one flat mapping, with the names that fingerprints have always used."""
        about = asdict(self)
        selection = about.pop("selection")
        if selection["rule"] == "patches":
            del selection["rule"]
        return about | selection

    def choose(self, saliency: Saliency) -> Int32[np.ndarray, "N"]:
        """Returns the flat indices of the patches of a clip that are kept, as many as the budget says (`choose_patches`)."""
        flags = i_frame_flags(len(saliency.scores), self.selection.gop_frames)
        return choose_patches(saliency, flags, self.budget_tokens, self.selection, fill=True).flat

    def frames_of_budget(self, grid_tyx: tuple[int, int, int]) -> int:
        """Returns the whole frames in the budget; ConfigError if their number is not whole, or more than there are."""
        n_frames, rows, columns = grid_tyx
        whole, rest = divmod(self.budget_tokens, rows * columns)
        if rest or not 1 <= whole <= n_frames:
            raise ConfigError(
                f"budget_tokens = {self.budget_tokens} is not 1 to {n_frames} times the {rows * columns} patches of a frame, "
                "which the modes frames and tiling need."
            )
        return whole

    def check(self, grid_tyx: tuple[int, int, int], modes: Collection[int]) -> None:
        """Raises ConfigError if the budget does not fit clips of this grid in one of the modes."""
        if CODEC in modes:
            self.choose(Saliency(np.zeros(grid_tyx, np.float32)))
        if FRAMES in modes or TILING in modes:
            self.frames_of_budget(grid_tyx)


def to_tokens(
    record: Record, mode: int, view: TokenView, rng: np.random.Generator | None, out: UInt8[np.ndarray, "N P"] | None = None
) -> tuple[UInt8[np.ndarray, "N P"], Int32[np.ndarray, "N 3"]]:
    """Returns the patches and (t, y, x) of a record in a mode; deterministic without `rng` (evaluation).

    Patches are written to `out` if it is given. BadShard if what the mode needs cannot be decoded, is of another size than
    `out`, or leaves too few patches to choose from; ConfigError if the budget does not fit the clip.
    """
    if isinstance(record, ImageRecord) and mode != IMAGE:
        raise BadShard(f"{record.key}: is a picture, and the mode {MODES[mode]} needs a video; give shards of videos.")
    modes: Sequence[Callable] = (_codec, _frames, _tiling, _image)
    return modes[mode](record, view, rng, out)


_Tokens = tuple[np.ndarray, np.ndarray]


def _codec(record: VideoRecord, view: TokenView, rng: np.random.Generator | None, out: np.ndarray | None) -> _Tokens:
    """Takes I-frames whole and the most salient patches of the others, in flat order; from mosaics if they hold them all."""
    grid = record.grid_tyx
    try:
        flat = view.choose(record.scored)
    except BadClip as error:
        raise BadShard(f"{record.key}: {error}") from error
    tyx = positions(flat, grid)
    out = _room(record, len(flat), record.patch_px, out)
    places = _places_in_mosaics(record, flat)
    if places is None:
        which, frame = np.unique(tyx[:, 0], return_inverse=True)
        frames, per_frame = decode_frames(record, which.tolist()), grid[1] * grid[2]
        out[...] = take_patches(frames, frame * per_frame + flat % per_frame, record.patch_px)
    else:
        _from_mosaics(record, places, out)
    tyx[:, 0] = on_time_grid(tyx[:, 0], grid[0])
    return out, tyx


def _from_mosaics(record: VideoRecord, places: np.ndarray, out: np.ndarray) -> None:
    """Writes the patches at ascending places in the mosaics to `out`; decodes only mosaics that hold one."""
    per_mosaic = record.grid_tyx[1] * record.grid_tyx[2]
    edges = np.searchsorted(places, np.arange(len(record.mosaics) + 1) * per_mosaic)
    for number, (start, stop) in enumerate(itertools.pairwise(edges.tolist())):
        if stop - start == per_mosaic:
            frames_to_patches(decode_mosaic(record, number)[None], record.patch_px, out[start:stop])
        elif stop > start:
            picture = decode_mosaic(record, number)[None]
            out[start:stop] = take_patches(picture, places[start:stop] - number * per_mosaic, record.patch_px)


def _places_in_mosaics(record: VideoRecord, flat: Int32[np.ndarray, "N"]) -> np.ndarray | None:
    """Returns where in the mosaics the patches are; None unless all of them are there."""
    stored = record.mosaic_flat
    if len(stored) < len(flat):
        return None
    places = np.searchsorted(stored, flat.astype(stored.dtype))
    return places if (stored[np.minimum(places, len(stored) - 1)] == flat).all() else None


def _chunk_frames(record: VideoRecord, view: TokenView, rng: np.random.Generator | None, out: np.ndarray | None) -> _Tokens:
    """Returns the patches of one frame of each equal chunk (at random; in evaluation the middle one), and which frames.

    They all differ; a video of fewer frames gives all of them, and copies.
    """
    n_frames, rows, columns = record.grid_tyx
    frames, n_chunks = distinct_frames(record.scored), view.frames_of_budget(record.grid_tyx)
    if len(frames) < n_chunks:
        copies = np.setdiff1d(np.arange(n_frames), frames)
        which = np.sort([*frames, *copies[sample_indices(len(copies), n_chunks - len(frames), "uniform")]])
    else:
        edges = np.linspace(0, len(frames), n_chunks + 1)
        edges = edges if len(frames) == n_frames else np.floor(edges)  # so that no frame lies in two chunks
        within = 0.5 if rng is None else rng.uniform(size=n_chunks)
        which = frames[np.minimum((edges[:-1] + within * np.diff(edges)).astype(np.int64), len(frames) - 1)]
    out = _room(record, len(which) * rows * columns, record.patch_px, out)
    return frames_to_patches(decode_frames(record, which.tolist()), record.patch_px, out), which


def _frames(record: VideoRecord, view: TokenView, rng: np.random.Generator | None, out: np.ndarray | None) -> _Tokens:
    """Takes whole frames at their true times."""
    n_frames, rows, columns = record.grid_tyx
    patches, which = _chunk_frames(record, view, rng, out)
    tyx = all_positions((len(which), rows, columns)).copy()
    tyx[:, 0] = on_time_grid(which, n_frames)[tyx[:, 0]]
    return patches, tyx


def _tiling(record: VideoRecord, view: TokenView, rng: np.random.Generator | None, out: np.ndarray | None) -> _Tokens:
    """Takes the same frames as one tall image: t = 0, rows counted on."""
    _, rows, columns = record.grid_tyx
    patches, which = _chunk_frames(record, view, rng, out)
    return patches, all_positions((1, len(which) * rows, columns))


def _image(record: Record, view: TokenView, rng: np.random.Generator | None, out: np.ndarray | None) -> _Tokens:
    """Takes the picture, or the clip's middle frame, as a square; t = 0."""
    if isinstance(record, VideoRecord):
        picture, patch_px = decode_frames(record, [record.grid_tyx[0] // 2])[0], record.patch_px
    else:
        picture, patch_px = decode_image(record), view.patch_px
    side = (view.size_px or min(picture.shape[:2])) // patch_px
    square = to_square(picture, side * patch_px, view.augment, rng)
    out = _room(record, side * side, patch_px, out)
    return frames_to_patches(square[None], patch_px, out), all_positions((1, side, side))


def _room(record: Record, n_tokens: int, patch_px: int, out: np.ndarray | None) -> np.ndarray:
    """Returns `out`, or a new array without it; BadShard if its shape differs."""
    shape = n_tokens, patch_px * patch_px * 3
    if out is not None and out.shape != shape:
        raise BadShard(
            f"{record.key}: gives patches of shape {shape}, the others of the batch have {out.shape}; set size_px of the head, "
            "or write the shards again at one size."
        )
    return np.empty(shape, np.uint8) if out is None else out
