"""What the encoder refuses, said so that it can be mended: shapes and dtypes always, values wherever they are known."""

import functools
import logging
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Shaped

from ove.errors import BadInput

_LOG = logging.getLogger(__name__)

NORMALISED_PEAK = 20.0
"""Normalised natural images lie within ±2.7; past this something else was given."""

Given = Shaped[Array | np.ndarray, "..."]


def check_tokens(patches: Given, positions: Given, segment_ids: Given | None, patch_values: int) -> None:
    """Raises BadInput unless patches are (B, N, P), positions (B, N, 3) and segment ids (B, N), of possible dtypes."""
    if patches.ndim != 3 or patches.shape[2] != patch_values:
        raise BadInput(
            f"patches of shape {patches.shape}: (batch, tokens, {patch_values}) is expected, each patch flattened as (row, "
            "column, channel). For images and videos use from_pixels."
        )
    if 0 in patches.shape:
        raise BadInput(f"patches of shape {patches.shape}: there must be at least one sample and one token.")
    check_pixel_dtype(patches, "patches")
    check_positions(positions, patches.shape[:2])
    if segment_ids is None:
        return
    if segment_ids.shape != patches.shape[:2] or not jnp.issubdtype(segment_ids.dtype, jnp.integer):
        raise BadInput(
            f"segment_ids of shape {segment_ids.shape} and dtype {segment_ids.dtype}: integers of shape {patches.shape[:2]} "
            "are expected, one a token: 0 for padding, 1, 2, … for the segments of a row."
        )


def check_pixel_dtype(pixels: Given, name: str) -> None:
    """Raises BadInput unless the values are bytes or floats."""
    if pixels.dtype != jnp.uint8 and not jnp.issubdtype(pixels.dtype, jnp.floating):
        raise BadInput(
            f"{name} of dtype {pixels.dtype}: uint8 (0 … 255) or floats that are normalised already are expected. Integers "
            "between 0 and 255 are converted with .astype(np.uint8)."
        )


def check_positions(positions: Given, tokens: tuple[int, ...]) -> None:
    """Raises BadInput unless there is one (t, y, x) of real numbers for each token."""
    if positions.shape != (*tokens, 3):
        hint = " The coordinate (t, y, x) is the last axis." if positions.ndim == 3 and positions.shape[1] == 3 else ""
        raise BadInput(f"positions of shape {positions.shape}: {(*tokens, 3)} is expected, (t, y, x) of each token.{hint}")
    if not (jnp.issubdtype(positions.dtype, jnp.integer) or jnp.issubdtype(positions.dtype, jnp.floating)):
        raise BadInput(f"positions of dtype {positions.dtype}: integers or floats are expected.")


def count_segments(segment_ids: Given | None, n_segments: int | None) -> int | None:
    """Returns the number S of segments a row may have: the one given, else the largest id of a concrete array."""
    if segment_ids is None:
        if n_segments is not None:
            raise BadInput(f"n_segments = {n_segments} was given without segment_ids; give both or neither.")
        return None
    if n_segments is not None:
        if n_segments < 1:
            raise BadInput(f"n_segments = {n_segments} must be at least 1.")
        return n_segments
    if isinstance(segment_ids, jax.core.Tracer):
        raise BadInput(
            "n_segments is needed under jit, where segment_ids are not known and the shape of the result depends on their "
            "largest: give the most segments that a row may have, as a static number."
        )
    return max(1, int(np.asarray(segment_ids).max()))


class Summary(NamedTuple):
    """What `check_values` needs to know of the arrays, computed where they lie; padding is left out."""

    finite: Array
    least: Array
    most: Array
    position: Array
    first_segment: Array
    last_segment: Array


@jax.jit
def summarise(patches: Array, positions: Array, segment_ids: Array | None) -> Summary:
    """Extremes of the inputs; of bytes only that they are finite."""
    real = True if segment_ids is None else (segment_ids > 0)[..., None]
    ids = jnp.zeros((1, 1), jnp.int32) if segment_ids is None else segment_ids
    position = jnp.where(real, positions, 0).astype(jnp.float32)
    # NaN positions are neither below nor above anything: they become −1, which is refused alike.
    position = jnp.where(jnp.isfinite(position), position, -1).min()
    if patches.dtype == jnp.uint8:
        nothing = jnp.zeros((), jnp.float32)
        return Summary(jnp.array(True), nothing, nothing, position, ids.min(), ids.max())
    values = jnp.where(real, patches, 0).astype(jnp.float32)
    return Summary(jnp.isfinite(values).all(), values.min(), values.max(), position, ids.min(), ids.max())


def check_values(summary: Summary, n_segments: int | None) -> None:
    """Raises BadInput if pixels, positions or segment ids have impossible values; waits for the summary."""
    seen = jax.device_get(summary)
    if not seen.finite:
        raise BadInput("the pixels hold NaN or inf; only finite numbers can be encoded. Look where they come from.")
    if max(-seen.least, seen.most) > NORMALISED_PEAK or (seen.least >= 0 and seen.most > 3):
        raise BadInput(
            f"float pixels between {seen.least:g} and {seen.most:g}: normalised ones are expected, which lie within ±2.7. Give "
            "bytes (.astype(np.uint8)), which are normalised inside, or (pixels / 255 − mean) / std with MEAN_RGB and STD_RGB "
            "of ove.encoder.encoder."
        )
    if seen.least >= 0 and 0.5 < seen.most <= 1:
        _warn_of_unit_range()
    if seen.position < 0:
        raise BadInput(
            "positions hold negative or non-finite numbers; (t, y, x) count from 0 (shift them, or drop the tokens)."
        )
    if seen.first_segment < 0 or (n_segments is not None and seen.last_segment > n_segments):
        raise BadInput(
            f"segment_ids between {seen.first_segment} and {seen.last_segment}: 0 (padding) to n_segments = {n_segments} are "
            "expected."
        )


@functools.cache
def _warn_of_unit_range() -> None:
    _LOG.warning(
        "float pixels between 0 and 1 were given; if they are not normalised yet, subtract MEAN_RGB and divide by STD_RGB of "
        "ove.encoder.encoder, or give bytes. (This is said once.)"
    )


def is_traced(*arrays: Any) -> bool:
    """Returns whether one of the arrays is a tracer (inside jit, grad, vmap)."""
    return any(isinstance(x, jax.core.Tracer) for x in arrays)
