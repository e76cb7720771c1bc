"""Several inputs in one row: which tokens attend to each other, and an order in which those lie side by side."""

from typing import NamedTuple

import jax.numpy as jnp
from jaxtyping import Array, Int, Shaped


class Segments(NamedTuple):
    """The segments of rows of tokens; `ids` alone say all, `lengths` let kernels skip what lies outside a segment."""

    ids: Int[Array, "B N"]
    """Not negative; tokens attend to those of the same id, padding is a segment like any other."""
    lengths: Int[Array, "B R"] | None = None
    """Tokens of each segment, in the order in which they lie one after the other; 0: there is none, and all sum to N. None if
    segments may lie in any order, or in unknown number."""


def sort_segments(segment_ids: Int[Array, "B N"], n_segments: int) -> tuple[Segments, Int[Array, "B N"]]:
    """Returns segments 1 … n_segments one after the other, all other tokens as one more behind them, and the order of tokens.

    Tokens keep their order within a segment: of rows that are packed this way already the order is 0, 1, …
    """
    ids = jnp.where((segment_ids > 0) & (segment_ids <= n_segments), segment_ids, n_segments + 1)
    order = jnp.argsort(ids, axis=1, stable=True)
    lengths = (ids[:, None] == 1 + jnp.arange(n_segments + 1)[:, None]).sum(-1, dtype=jnp.int32)
    return Segments(jnp.take_along_axis(ids, order, axis=1), lengths), order


def in_order(x: Shaped[Array, "B N D"] | Shaped[Array, "L B N D"], order: Int[Array, "B N"]) -> Shaped[Array, "..."]:
    """Returns the tokens in this order."""
    return (
        jnp.take_along_axis(x, order[..., None], axis=1)
        if x.ndim == 3
        else jnp.take_along_axis(x, order[None, ..., None], axis=2)
    )
