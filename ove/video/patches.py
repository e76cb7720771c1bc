"""Frames ↔ patches on the host (on a device: encoder/pixels.py): the values of a patch, and its place in the video."""

import functools

import numpy as np
from einops import rearrange
from jaxtyping import Int32, Integer, UInt8


def frames_to_patches(
    frames: UInt8[np.ndarray, "T H W 3"], patch_px: int, out: UInt8[np.ndarray, "TYX P"] | None = None
) -> UInt8[np.ndarray, "TYX P"]:
    """Returns all patches in flat order (t, y, x), in `out` if given; each is flattened as (row, column, channel)."""
    n_frames, height, width, channels = frames.shape
    rows, columns = height // patch_px, width // patch_px
    if out is None:
        out = np.empty((n_frames * rows * columns, patch_px * patch_px * channels), np.uint8)
    # Each row of a patch is moved as one piece, twice as fast as number by number.
    piece = np.dtype((np.void, patch_px * channels))
    pieces = np.ascontiguousarray(frames).reshape(n_frames, rows, patch_px, width * channels).view(piece)
    out.reshape(n_frames, rows, columns, -1).view(piece)[...] = rearrange(pieces, "t y p x -> t y x p")
    return out


def patches_to_frames(
    patches: UInt8[np.ndarray, "TYX P"], grid_tyx: tuple[int, int, int], patch_px: int
) -> UInt8[np.ndarray, "T H W 3"]:
    """The inverse of `frames_to_patches`."""
    t, y, x = grid_tyx
    return rearrange(patches, "(t y x) (p q c) -> t (y p) (x q) c", t=t, y=y, x=x, p=patch_px, q=patch_px)


def take_patches(
    frames: UInt8[np.ndarray, "T H W 3"], flat: Integer[np.ndarray, "N"], patch_px: int
) -> UInt8[np.ndarray, "N P"]:
    """Returns the patches at the flat indices, three times faster than cutting all patches and indexing."""
    n_frames, height, width, channels = frames.shape
    rows = height // patch_px
    columns = width // patch_px
    strips = frames.reshape(n_frames * rows, patch_px, columns, patch_px * channels)
    return strips[flat // columns, :, flat % columns].reshape(len(flat), -1)


@functools.lru_cache(maxsize=64)
def all_positions(grid_tyx: tuple[int, int, int]) -> Int32[np.ndarray, "TYX 3"]:
    """Returns (t, y, x) of all patches in flat order; a cached, read-only array."""
    every = positions(np.arange(np.prod(grid_tyx)), grid_tyx)
    every.flags.writeable = False
    return every


def positions(flat: Integer[np.ndarray, "N"], grid_tyx: tuple[int, int, int]) -> Int32[np.ndarray, "N 3"]:
    """Returns (t, y, x) of flat indices t·Y·X + y·X + x."""
    return np.stack(np.unravel_index(flat, grid_tyx), axis=-1).astype(np.int32)
