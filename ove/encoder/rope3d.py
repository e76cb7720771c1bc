"""Rotary position embedding over time, rows and columns."""

from typing import Literal

import jax.numpy as jnp
import numpy as np
from einops import rearrange, repeat
from jaxtyping import Array, Float, Float32, Int

from ove.encoder import machine

SPLIT_TYX = (4, 6, 6)
"""Sixteenths of the frequencies that time, rows and columns get (spec §1; K = 64 → 8, 12, 12)."""


def angles(
    positions: Int[Array, "*B N 3"] | Float[Array, "*B N 3"],
    head_width: int,
    theta: float,
    layout: Literal["interleaved", "released"],
) -> Float32[Array, "*B N {head_width}"]:
    """Positions (t, y, x) to the angle, in radians, by which each value of a head is turned.

    `interleaved` gives both members of an adjacent pair the same angle: attention then depends on offsets only (the paper's
    law). `released` lays the frequencies out twice in a row, as the published weights were trained: not a rotation.
    `head_width` must be a multiple of 32. Spec §1, "3D RoPE".
    """
    half = head_width // 2
    parts = []
    for axis, sixteenths in enumerate(SPLIT_TYX):
        n = half * sixteenths // 16
        inverse = theta ** (-jnp.arange(n, dtype=jnp.float32) / n)
        parts.append(positions[..., axis, None].astype(jnp.float32) * inverse)
    turns = jnp.concatenate(parts, axis=-1)
    if layout == "interleaved":
        return repeat(turns, "... f -> ... (f pair)", pair=2)
    return repeat(turns, "... f -> ... (copy f)", copy=2)


def rotate(x: Float[Array, "*B N K"], cos: Float[Array, "*#B N K"], sin: Float[Array, "*#B N K"]) -> Float[Array, "*B N K"]:
    """Heads turned pair by pair by the angles whose cosines and sines are given.

    out[2j] = x[2j]·cos[2j] − x[2j+1]·sin[2j]; out[2j+1] = x[2j+1]·cos[2j+1] + x[2j]·sin[2j+1]. The result has x's dtype;
    leading axes of cos and sin broadcast. Spec §1.
    """
    if machine.current().kind == "tpu":
        # Exact, as each sum has one term, and without the copies of x that moving values within its last axis takes there.
        quarter_turns = jnp.asarray(np.kron(np.eye(x.shape[-1] // 2), [[0, 1], [-1, 0]]), x.dtype)
        partner = jnp.matmul(x, quarter_turns, precision="highest" if x.dtype == jnp.float32 else None)
    else:
        even, odd = jnp.moveaxis(rearrange(x, "... (f pair) -> ... f pair", pair=2), -1, 0)
        partner = jnp.stack([-odd, even], axis=-1).reshape(x.shape)
    return x * cos.astype(x.dtype) + partner * sin.astype(x.dtype)
