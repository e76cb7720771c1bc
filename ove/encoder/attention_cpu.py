"""Attention on a CPU: a head or a few, and a few hundred queries at a time, so that scores stay in the caches."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ove.encoder.order import after

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
    """Each query's mean of the values, weighted by softmax(q·k/√K), in the dtype of `q`; scores never leave the caches.

    With `segment_ids` tokens attend to those of the same id only; padding is a segment like any other (its rows are finite).
    The backward pass keeps q, k, v, the result and the log of the softmax's denominator, and computes the scores again.
    """
    return _forward(q, k, v, segment_ids)[0]


def _forward(q: Array, k: Array, v: Array, segment_ids: Array | None = None) -> tuple[Array, tuple[Any, ...]]:
    scale = q.shape[-1] ** -0.5

    def of_group(chunk: int, q_NK: Array, k_NK: Array, v_NK: Array, ids_N1: Array | None) -> tuple[Array, Array]:
        q_NK = q_NK * scale

        def of_chunk(start: Any, size: int, done: tuple[Array, Array]) -> tuple[Array, Array]:
            scores = _product("ck,nk->cn", _rows(q_NK, start, size), k_NK)
            scores = _within(scores, ids_N1, start, size)
            top = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = weights.sum(-1, keepdims=True)
            mixed = _product("cn,nk->ck", weights.astype(v.dtype), v_NK) / total
            return _put(done[0], mixed, start), _put(done[1], top + jnp.log(total), start)

        return _over_chunks(of_chunk, chunk, (jnp.zeros_like(q_NK), jnp.zeros_like(q_NK[..., :1], jnp.float32)))

    out, log_total = _over_groups(of_group, q, k, v, _for_heads(segment_ids, q.shape[1]))
    # The name by which `remat = "dots"` (encoder.py) keeps them.
    out, log_total = checkpoint_name(out, "attention"), checkpoint_name(log_total, "attention")
    return out, (q, k, v, segment_ids, out, log_total)


def _backward(kept: tuple[Any, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, out, log_total = kept
    q, k, v, out, log_total = (after(x, d_out) for x in (q, k, v, out, log_total))
    scale = q.shape[-1] ** -0.5

    def of_group(
        chunk: int,
        q_NK: Array,
        k_NK: Array,
        v_NK: Array,
        out_NK: Array,
        log_total_N1: Array,
        d_out_NK: Array,
        ids_N1: Array | None,
    ) -> tuple[Array, Array, Array]:
        q_NK = q_NK * scale
        inner_1N = (d_out_NK.astype(jnp.float32) * out_NK).sum(-1, keepdims=True).swapaxes(-1, -2)
        log_total_1N = log_total_N1.swapaxes(-1, -2)
        # A product whose left side is transposed is slow on a CPU. With chunks of keys, not of queries, only dQ = dSᵀᵀK has
        # one; it is computed as (Kᵀ dSᵀ)ᵀ from a Kᵀ which is laid out once, behind a barrier lest XLA undoes it.
        k_KN = jax.lax.optimization_barrier(k_NK.swapaxes(-1, -2))

        def of_chunk(start: Any, size: int, sums: tuple[Array, ...]) -> tuple[Array, ...]:
            dq_KN, dk_NK, dv_NK = sums
            scores = _product("ck,nk->cn", _rows(k_NK, start, size), q_NK)
            weights = jnp.exp(_within(scores, ids_N1, start, size) - log_total_1N)
            dv_CK = _product("cn,nk->ck", weights.astype(v.dtype), d_out_NK)
            d_weights = _product("ck,nk->cn", _rows(v_NK, start, size), d_out_NK)
            d_scores = (weights * (d_weights - inner_1N)).astype(q.dtype)
            dk_CK = _product("cn,nk->ck", d_scores, q_NK)
            dq_KN = dq_KN + _product("kc,cn->kn", jax.lax.dynamic_slice_in_dim(k_KN, start, size, axis=-1), d_scores)
            return dq_KN, _put(dk_NK, dk_CK, start), _put(dv_NK, dv_CK, start)

        zero_KN = jnp.zeros_like(k_KN, jnp.float32)
        dq_KN, dk_NK, dv_NK = _over_chunks(of_chunk, chunk, (zero_KN, jnp.zeros_like(k_NK), jnp.zeros_like(v_NK)), n_axis=-1)
        return (dq_KN * scale).swapaxes(-1, -2).astype(q.dtype), dk_NK, dv_NK

    ids = _for_heads(segment_ids, q.shape[1])
    return *_over_groups(of_group, q, k, v, out, log_total, d_out, ids), None


attend_in_chunks.defvjp(_forward, _backward)


def _over_groups(function: Callable[..., Any], *arrays: Any) -> Any:
    """`function` over groups of (batch, head) pairs, one after the other; a group of one has no axis for it.

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
    """carry = function(start, size, carry) for all chunks of the tokens; the last may be shorter."""
    n = carry[0].shape[n_axis]
    carry = jax.lax.fori_loop(0, n // size, lambda i, carry: function(i * size, size, carry), carry)
    return function(n - n % size, n % size, carry) if n % size else carry


def _within(scores: Float[Array, "*G C N"], ids: Int[Array, "*G N 1"] | None, start: Any, size: int) -> Float[Array, "*G C N"]:
    return scores if ids is None else jnp.where(_rows(ids, start, size) == ids.swapaxes(-1, -2), scores, -jnp.inf)


def _for_heads(segment_ids: Int[Array, "B N"] | None, heads: int) -> Int[Array, "B A N 1"] | None:
    return None if segment_ids is None else repeat(segment_ids, "b n -> b a n 1", a=heads)


def _product(contraction: str, x: Array, y: Array) -> Float[Array, "*G n m"]:
    """Matrix product in float32, over the leading axis if there is one."""
    if x.ndim == 2:
        # With an axis of length 1, because jax.checkpoint may be told to keep products that have none.
        return _product(contraction, x[None], y[None])[0]
    left, right, out = contraction.replace("->", ",").split(",")
    return jnp.einsum(f"g{left},g{right}->g{out}", x, y, preferred_element_type=jnp.float32)


def _rows(x: Array, start: Any, size: int) -> Array:
    return jax.lax.dynamic_slice_in_dim(x, start, size, axis=-2)


def _put(x: Array, rows: Array, start: Any) -> Array:
    return jax.lax.dynamic_update_slice_in_dim(x, rows.astype(x.dtype), start, axis=-2)
