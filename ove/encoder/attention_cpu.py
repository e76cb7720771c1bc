"""Attention on a CPU: a head or a few, and a few hundred queries at a time, so that scores stay in the caches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax.ad_checkpoint import checkpoint_name
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int

from ove.encoder.cpu import after

SCORES_AT_ONCE = 2**20
"""Scores held at a time, on each device: 4 MiB (measured at 288 to 2,048 tokens)."""
CHUNK = 512
"""Queries treated at a time in the forward pass, and keys in the backward pass, at most; at least a quarter of it."""


@jax.custom_vjp
def attend_in_chunks(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
) -> Float[Array, "B A N K"]:
    """Computes softmax(q·k/√K)·v chunk by chunk, in the dtype of `q`; scores never leave the caches.

    With `segment_ids` tokens attend to those of the same id only; padding is a segment like any other (its rows are finite).
    The backward pass keeps q, k, v, the result and the log of the softmax's denominator, and computes the scores again.
    """
    return _forward(q, k, v, segment_ids)[0]


def _forward(q: Array, k: Array, v: Array, segment_ids: Array | None = None) -> tuple[Array, tuple[Any, ...]]:
    out, log_total = _split_by_compiler(_results, (q, q), q, k, v, segment_ids)
    # The name by which `remat = "dots"` (encoder.py) keeps them.
    out, log_total = checkpoint_name(out, "attention"), checkpoint_name(log_total, "attention")
    return out, (q, k, v, segment_ids, out, log_total)


def _results(q: Array, k: Array, v: Array, segment_ids: Array | None) -> tuple[Array, Array]:
    """Means of the values, and the log of the softmax's denominator (B, A, N, 1)."""
    scale = q.shape[-1] ** -0.5

    def of_group(chunk: int, q_NK: Array, k_NK: Array, v_NK: Array, spans_N3: Array | None) -> tuple[Array, Array]:
        q_NK = q_NK * scale

        def of_chunk(start: Any, size: int, done: tuple[Array, Array]) -> tuple[Array, Array]:
            def of_window(first: Any, width: int) -> tuple[Array, Array]:
                scores = _product("ck,wk->cw", _rows(q_NK, start, size), _rows(k_NK, first, width))
                scores = _within(scores, spans_N3, start, first)
                top = scores.max(-1, keepdims=True)
                weights = jnp.exp(scores - top)
                total = weights.sum(-1, keepdims=True)
                mixed = _product("cw,wk->ck", weights.astype(v.dtype), _rows(v_NK, first, width)) / total
                return mixed, top + jnp.log(total)

            mixed, log_total = _in_window(of_window, spans_N3, start, size, q_NK.shape[-2])
            return _put(done[0], mixed, start), _put(done[1], log_total, start)

        return _over_chunks(of_chunk, chunk, (jnp.zeros_like(q_NK), jnp.zeros_like(q_NK[..., :1], jnp.float32)))

    return _over_groups(of_group, q, k, v, _spans(segment_ids, q.shape[1]))


def _backward(kept: tuple[Any, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, out, log_total = kept
    return *_split_by_compiler(_gradients, (q, k, v), q, k, v, out, log_total, d_out, segment_ids), None


def _gradients(
    q: Array, k: Array, v: Array, out: Array, log_total: Array, d_out: Array, segment_ids: Array | None
) -> tuple[Array, Array, Array]:
    """Returns the gradients of q, k and v."""
    q, k, v, out, log_total = (after(x, d_out) for x in (q, k, v, out, log_total))
    scale = q.shape[-1] ** -0.5

    def of_group(chunk: int, *arrays: Any) -> tuple[Array, Array, Array]:
        q_NK, k_NK, v_NK, out_NK, log_total_N1, d_out_NK, spans_N3 = arrays
        q_NK = q_NK * scale
        inner_1N = (d_out_NK.astype(jnp.float32) * out_NK).sum(-1, keepdims=True).swapaxes(-1, -2)
        log_total_1N = log_total_N1.swapaxes(-1, -2)
        # A product whose left side is transposed is slow on a CPU. With chunks of keys, not of queries, only dQ = dSᵀᵀK has
        # one; it is computed as (Kᵀ dSᵀ)ᵀ from a Kᵀ which is laid out once, behind a barrier lest XLA undoes it.
        k_KN = jax.lax.optimization_barrier(k_NK.swapaxes(-1, -2))

        def of_chunk(start: Any, size: int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            def of_window(first: Any, width: int) -> tuple[Array, Array, Array]:
                q_WK, d_out_WK = _rows(q_NK, first, width), _rows(d_out_NK, first, width)
                scores = _product("ck,wk->cw", _rows(k_NK, start, size), q_WK)
                scores = _within(scores, spans_N3, start, first)
                weights = jnp.exp(scores - _columns(log_total_1N, first, width))
                dv_CK = _product("cw,wk->ck", weights.astype(v.dtype), d_out_WK)
                d_weights = _product("ck,wk->cw", _rows(v_NK, start, size), d_out_WK)
                d_scores = (weights * (d_weights - _columns(inner_1N, first, width))).astype(q.dtype)
                dk_CK = _product("cw,wk->ck", d_scores, q_WK)
                dq_KW = _columns(sums[0], first, width) + _product("kc,cw->kw", _columns(k_KN, start, size), d_scores)
                return jax.lax.dynamic_update_slice_in_dim(sums[0], dq_KW, first, axis=-1), dk_CK, dv_CK

            dq_KN, dk_CK, dv_CK = _in_window(of_window, spans_N3, start, size, q_NK.shape[-2])
            return dq_KN, _put(sums[1], dk_CK, start), _put(sums[2], dv_CK, start)

        sums = (jnp.zeros_like(k_KN, jnp.float32), jnp.zeros_like(k_NK), jnp.zeros_like(v_NK))
        dq_KN, dk_NK, dv_NK = _over_chunks(of_chunk, chunk, sums, n_axis=-1)
        return (dq_KN * scale).swapaxes(-1, -2).astype(q.dtype), dk_NK, dv_NK

    return _over_groups(of_group, q, k, v, out, log_total, d_out, _spans(segment_ids, q.shape[1]))


attend_in_chunks.defvjp(_forward, _backward)


def _split_by_compiler(function: Callable[..., Any], like: tuple[Array, ...], *arrays: Any) -> Any:
    """Applies `function` to arrays; where the mesh has Explicit axes, its results are sharded like `like`.

    With such axes, which `jax.make_mesh` makes, the sharding is part of an array's type, and what we put together in loops
    would have to say it at each step. Within, the compiler splits the work as it does for other meshes.
    """
    mesh = jax.typeof(like[0]).sharding.mesh
    if not mesh.explicit_axes:
        return function(*arrays)
    # The last axis is the only one in which a result may differ, and it is never split.
    places = tuple(NamedSharding(mesh, PartitionSpec(*jax.typeof(x).sharding.spec[:3])) for x in like)
    return jax.sharding.auto_axes(function, axes=mesh.explicit_axes, out_sharding=places)(*arrays)


def _over_groups(function: Callable[..., Any], *arrays: Any) -> Any:
    """Applies `function` to groups of (batch, head) pairs, one after the other; a group of one has no axis for it.

    On a CPU that plays several devices a group has heads of all samples: a loop over samples that lie on different devices
    would run on each of them for all.
    """
    batch, heads, n = arrays[0].shape[:3]
    devices = jax.device_count()
    apart = batch if devices > 1 else 1
    local = -(-apart // devices)
    chunk = min(n, max(CHUNK // 4, min(CHUNK, SCORES_AT_ONCE // (n * local))))
    most = max(1, SCORES_AT_ONCE // (chunk * n * local))
    loop = batch * heads // apart
    group = max(g for g in range(1, loop + 1) if loop % g == 0 and g <= most)
    # With an axis of length 1 XLA's CPU backend chooses layouts that cost a copy of each array.
    single = apart * group == 1

    def split(x: Array) -> Array:
        x = rearrange(x.reshape(apart, loop, *x.shape[2:]), "b (steps g) n k -> steps (b g) n k", g=group)
        return x[:, 0] if single else x

    def join(x: Array) -> Array:
        x = x[:, None] if single else x
        return rearrange(x, "steps (b g) n k -> b (steps g) n k", b=apart).reshape(batch, heads, *x.shape[2:])

    return jax.tree.map(join, jax.lax.map(lambda parts: function(chunk, *parts), jax.tree.map(split, arrays)))


def _over_chunks(function: Callable[[Any, int, Any], Any], size: int, carry: Any, n_axis: int = -2) -> Any:
    """Runs carry = function(start, size, carry) over all chunks of the tokens; the last may be shorter."""
    n = carry[0].shape[n_axis]
    carry = jax.lax.fori_loop(0, n // size, lambda i, carry: function(i * size, size, carry), carry)
    return function(n - n % size, n % size, carry) if n % size else carry


def _in_window(function: Callable[[Any, int], Any], spans: Int[Array, "*G N 3"] | None, start: Any, size: int, n: int) -> Any:
    """Calls function(first, width) with a window that holds all tokens which the `size` tokens from `start` attend to.

    Where segments are packed one after the other, most of a row need not be looked at.
    """
    if spans is None or jax.device_count() > 1:
        return function(0, n)
    widths = [*[width for width in (size, 2 * size) if width < n], n]
    rows = _rows(spans, start, size)
    first = rows[..., 1].min()
    needed = rows[..., 2].max() - first + 1
    branches = [lambda first, width=width: function(jnp.minimum(first, n - width), width) for width in widths]
    return jax.lax.switch(sum((needed > width).astype(jnp.int32) for width in widths[:-1]), branches, first)


def _within(
    scores: Float[Array, "*G C W"], spans: Int[Array, "*G N 3"] | None, start: Any, first: Any
) -> Float[Array, "*G C W"]:
    """Scores of the tokens from `start` with those from `first`, −∞ where their segments differ."""
    if spans is None:
        return scores
    ids_C1, ids_W1 = (_rows(spans[..., :1], at, size) for at, size in zip((start, first), scores.shape[-2:], strict=True))
    return jnp.where(ids_C1 == ids_W1.swapaxes(-1, -2), scores, -jnp.inf)


def _spans(segment_ids: Int[Array, "B N"] | None, heads: int) -> Int[Array, "B A N 3"] | None:
    """Returns for each token its segment, and that segment's first and last token."""
    if segment_ids is None:
        return None
    n = segment_ids.shape[1]
    same_BNN = segment_ids[:, :, None] == segment_ids[:, None, :]
    first = jnp.where(same_BNN, jnp.arange(n), n).min(-1)
    last = jnp.where(same_BNN, jnp.arange(n), -1).max(-1)
    return repeat(jnp.stack([segment_ids, first, last], axis=-1), "b n s -> b a n s", a=heads)


def _product(contraction: str, x: Array, y: Array) -> Float[Array, "*G n m"]:
    """Multiplies matrices in float32, over the leading axis if there is one."""
    if x.ndim == 2:
        # With an axis of length 1, because jax.checkpoint may be told to keep products that have none.
        return _product(contraction, x[None], y[None])[0]
    left, right, out = contraction.replace("->", ",").split(",")
    return jnp.einsum(f"g{left},g{right}->g{out}", x, y, preferred_element_type=jnp.float32)


def _rows(x: Array, start: Any, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=-2)


def _put(x: Array, rows: Array, start: Any) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, rows.astype(x.dtype), start, axis=-2)


def _columns(x: Array, start: Any, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=-1)
