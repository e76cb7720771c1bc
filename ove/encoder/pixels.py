"""Images and videos of any size that 14 divides to patches and positions, on the device, whole or only some patches."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
from einops import rearrange
from jaxtyping import Array, Shaped

from ove.encoder.check import Given, check_pixel_dtype, check_positions, is_traced
from ove.errors import BadInput
from ove.records import TIME_STEPS, on_time_grid

PATCH_PX = 14


def grid_of(pixels: Given, patch_px: int = PATCH_PX) -> tuple[int, int, int]:
    """Returns (T, Y, X) of images (B, H, W, 3), for which T = 1, or videos (B, T, H, W, 3); BadInput if they are neither."""
    shape = pixels.shape
    if len(shape) not in (4, 5) or shape[-1] != 3:
        hint = "Images (B, H, W, 3) or videos (B, T, H, W, 3) are expected, channels last, RGB."
        channels = [axis for axis in (1, 2) if axis < len(shape) - 2 and shape[axis] == 3]
        if len(shape) in (4, 5) and channels:
            hint += f" These look channels-first: np.moveaxis(pixels, {channels[0]}, -1)."
        elif len(shape) == 3 and shape[-1] == 3:
            hint += " Give a single image a batch axis: pixels[None]."
        raise BadInput(f"pixels of shape {shape}. {hint}")
    if 0 in shape:
        raise BadInput(f"pixels of shape {shape}: there must be at least one sample, one frame and one patch.")
    height, width = shape[-3:-1]
    if height % patch_px or width % patch_px:
        near = [max(1, round(side / patch_px)) * patch_px for side in (height, width)]
        raise BadInput(
            f"pixels of {height}×{width} (height × width): {patch_px} must divide both sides. Resize or crop, for example to "
            f"{near[0]}×{near[1]}."
        )
    check_pixel_dtype(pixels, "pixels")
    return (shape[1] if len(shape) == 5 else 1), height // patch_px, width // patch_px


@functools.partial(jax.jit, static_argnums=1)
def patchify(pixels: Shaped[Array, "..."], patch_px: int = PATCH_PX) -> Shaped[Array, "B N P"]:
    """Cuts images (B, H, W, 3) or videos (B, T, H, W, 3) into all their patches, in flat order t·Y·X + y·X + x.

    Each patch is flattened as (row, column, channel). On the host, for frames of bytes: `ove.video.patches`.
    """
    video = pixels if pixels.ndim == 5 else pixels[:, None]
    return rearrange(video, "b t (y p) (x q) c -> b (t y x) (p q c)", p=patch_px, q=patch_px)


@functools.partial(jax.jit, static_argnums=2)
def gather(pixels: Shaped[Array, "..."], flat: Shaped[Array, "B N"], patch_px: int = PATCH_PX) -> Shaped[Array, "B N P"]:
    """Gathers the patches at flat indices (B, N), in the dtype of the pixels, without cutting up or copying the others."""
    columns = pixels.shape[-2] // patch_px
    strips = pixels.reshape(pixels.shape[0], -1, patch_px, columns, patch_px * 3)
    sample = jnp.arange(len(flat))[:, None]
    return rearrange(strips[sample, flat // columns, :, flat % columns], "b n p qc -> b n (p qc)")


def tokens_of(
    pixels: Given,
    visible: Given | None = None,
    positions: Given | None = None,
    frame_positions: Given | None = None,
    patch_px: int = PATCH_PX,
) -> tuple[Shaped[Array, "B N P"], Shaped[Array | np.ndarray, "B N 3"]]:
    """Returns patches and positions of images or videos, of all patches or of the `visible` ones.

    - `visible`, (B, N) or (N,): flat indices t·Y·X + y·X + x. Fewer than the patches given: those are gathered, and an index
      tells its position (t is the frame's number). As many: the pixels are the gathered patches already, in this order, and
      the indices are their places in a video of 64 frames (the published convention).
    - `positions`, (B, N, 3) or (N, 3), replaces all of that.
    - `frame_positions`, (T,) or (B, T): the time step of each frame of a video. Without it, `on_time_grid`; an image has t = 0.

    BadInput on anything else. Spec §1, "Positions".
    """
    t, y, x = grid_of(pixels, patch_px)
    batch, total = pixels.shape[0], t * y * x
    times = _frame_steps(frame_positions, batch, t)
    if visible is None:
        patches = patchify(pixels, patch_px)
        places: Given = np.arange(total)[None]
        times = np.broadcast_to(on_time_grid(np.arange(t), t), (batch, t)) if times is None else times
    else:
        count = visible.shape[-1] if visible.ndim else 0
        gathered = count == total
        if gathered and times is not None:
            raise BadInput(
                f"as many visible indices as patches ({total}) say where patches that are gathered already belong, which "
                "frame_positions cannot: give positions instead."
            )
        places = _flat_indices(visible, batch, max(t, TIME_STEPS) * y * x if gathered else total)
        patches = patchify(pixels, patch_px) if gathered else gather(pixels, places, patch_px)
    if positions is not None:
        positions = positions[None] if positions.ndim == 2 else positions
        tokens = (batch, patches.shape[1])
        positions = jnp.broadcast_to(positions, (batch, *positions.shape[1:])) if len(positions) == 1 else positions
        check_positions(positions, tokens)
        return patches, positions
    return patches, _positions(places, times, batch, y, x)


def _positions(places: Given, times: Given | None, batch: int, y: int, x: int) -> Given:
    """Returns (t, y, x) of flat indices (B or 1, N); `times` (B, T) are the steps of the frames, their numbers if None."""
    xp = jnp if is_traced(places, times) else np
    places = xp.broadcast_to(places, (batch, places.shape[1]))
    frame = places // (y * x)
    step = frame if times is None else xp.take_along_axis(times, frame, axis=1)
    return xp.stack([step, xp.broadcast_to(places // x % y, step.shape), xp.broadcast_to(places % x, step.shape)], axis=-1)


def _frame_steps(frame_positions: Given | None, batch: int, t: int) -> Given | None:
    if frame_positions is None:
        return None
    if frame_positions.shape not in ((t,), (batch, t)):
        raise BadInput(
            f"frame_positions of shape {frame_positions.shape}: ({t},) or {(batch, t)} is expected, a time step a frame."
        )
    xp = jnp if is_traced(frame_positions) else np
    return xp.broadcast_to(frame_positions, (batch, t))


def _flat_indices(visible: Given, batch: int, limit: int) -> Given:
    """Returns the indices as (B, N), checked as far as they are known."""
    if visible.ndim not in (1, 2) or (visible.ndim == 2 and len(visible) != batch) or 0 in visible.shape:
        raise BadInput(
            f"visible indices of shape {visible.shape}: ({batch}, tokens) or (tokens,) with at least one token is expected."
        )
    if not jnp.issubdtype(visible.dtype, jnp.integer):
        raise BadInput(f"visible indices of dtype {visible.dtype}: integers are expected (for a mask: np.flatnonzero).")
    if visible.shape[-1] > limit:
        raise BadInput(f"{visible.shape[-1]} visible indices, but only {limit} patches were given.")
    if is_traced(visible):
        return jnp.broadcast_to(visible, (batch, visible.shape[-1]))
    indices = np.broadcast_to(np.asarray(visible), (batch, visible.shape[-1]))
    for sample, row in enumerate(indices):
        if row.min() < 0 or row.max() >= limit:
            wrong = row[(row < 0) | (row >= limit)][0]
            raise BadInput(f"visible index {wrong} of sample {sample} is out of range: 0 … {limit - 1} (t·Y·X + y·X + x).")
        values, counts = np.unique(row, return_counts=True)
        if len(values) < len(row):
            raise BadInput(
                f"visible index {values[counts > 1][0]} occurs {np.max(counts)} times in sample {sample}; each patch may be "
                "chosen once (np.unique)."
            )
    return indices
