"""Attention on a CPU: a few heads and a few hundred queries at a time, so that scores stay in the caches."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange, repeat
from jaxtyping import Array, Float, Int

SCORES_AT_ONCE = 2**19
"""Scores held at a time, on each device: what stays in the caches (2 MiB; measured at 256 to 2,048 tokens)."""
CHUNK = 256
"""Queries treated at a time, at most."""


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
    chunk = _chunk(q.shape[2])
    ids = _for_heads(segment_ids, q.shape[1])

    def of_group(group: tuple[Any, ...]) -> tuple[Array, Array]:
        q_GNK, k_GNK, v_GNK, ids_GN1 = group

        def of_chunk(carry: None, xs: tuple[Any, ...]) -> tuple[None, tuple[Array, Array]]:
            q_GCK, ids_GC1 = xs
            scores = _scores(q_GCK, k_GNK, ids_GC1, ids_GN1)
            top = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = weights.sum(-1, keepdims=True)
            mixed = jnp.einsum("gcn,gnk->gck", weights.astype(v.dtype), v_GNK, preferred_element_type=jnp.float32)
            return None, ((mixed / total).astype(q.dtype), top + jnp.log(total))

        out, log_total = jax.lax.scan(of_chunk, None, _split((q_GNK, ids_GN1), chunk))[1]
        return _join(out), _join(log_total)

    out, log_total = _over_groups(of_group, (q, k, v, ids), chunk)
    return out, (q, k, v, segment_ids, out, log_total)


def _backward(kept: tuple[Any, ...], d_out: Array) -> tuple[Array, Array, Array, None]:
    q, k, v, segment_ids, out, log_total = kept
    chunk = _chunk(q.shape[2])
    scale = q.shape[-1] ** -0.5
    ids = _for_heads(segment_ids, q.shape[1])

    def of_group(group: tuple[Any, ...]) -> tuple[Array, Array, Array]:
        q_GNK, k_GNK, v_GNK, ids_GN1, *rest = group

        def of_chunk(sums: tuple[Array, Array], xs: tuple[Any, ...]) -> tuple[tuple[Array, Array], Array]:
            q_GCK, ids_GC1, out_GCK, log_total_GC1, d_out_GCK = xs
            weights = jnp.exp(_scores(q_GCK, k_GNK, ids_GC1, ids_GN1) - log_total_GC1)
            # A product whose left side is transposed is slow on a CPU: dV = PᵀdO is computed as (dOᵀP)ᵀ, dK alike.
            dv_GKN = jnp.einsum("gck,gcn->gkn", d_out_GCK, weights.astype(v.dtype), preferred_element_type=jnp.float32)
            d_weights = jnp.einsum("gck,gnk->gcn", d_out_GCK, v_GNK, preferred_element_type=jnp.float32)
            inner = (d_out_GCK.astype(jnp.float32) * out_GCK).sum(-1, keepdims=True)
            d_scores = (weights * (d_weights - inner) * scale).astype(q.dtype)
            dq_GCK = jnp.einsum("gcn,gnk->gck", d_scores, k_GNK)
            dk_GKN = jnp.einsum("gck,gcn->gkn", q_GCK, d_scores, preferred_element_type=jnp.float32)
            return (sums[0] + dk_GKN, sums[1] + dv_GKN), dq_GCK

        zero = jnp.zeros((q_GNK.shape[0], q_GNK.shape[2], q_GNK.shape[1]), jnp.float32)
        (dk_GKN, dv_GKN), dq = jax.lax.scan(of_chunk, (zero, zero), _split((q_GNK, ids_GN1, *rest), chunk))
        return _join(dq), dk_GKN.swapaxes(1, 2).astype(k.dtype), dv_GKN.swapaxes(1, 2).astype(v.dtype)

    return *_over_groups(of_group, (q, k, v, ids, out, log_total, d_out), chunk), None


attend_in_chunks.defvjp(_forward, _backward)


def _scores(q: Float[Array, "G C K"], k: Float[Array, "G N K"], q_ids: Any, k_ids: Any) -> Float[Array, "G C N"]:
    scores = jnp.einsum("gck,gnk->gcn", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    return scores if q_ids is None else jnp.where(q_ids == k_ids.swapaxes(1, 2), scores, -jnp.inf)


def _for_heads(segment_ids: Int[Array, "B N"] | None, heads: int) -> Int[Array, "B A N 1"] | None:
    return None if segment_ids is None else repeat(segment_ids, "b n -> b a n 1", a=heads)


def _chunk(n: int) -> int:
    """The largest divisor of n up to CHUNK; n itself if that is so small that the loop would cost more than it saves."""
    best = max(c for c in range(1, min(n, CHUNK) + 1) if n % c == 0)
    return best if best >= CHUNK // 8 else n


def _over_groups(function: Any, arrays: tuple[Any, ...], chunk: int) -> Any:
    """`function` over groups of (batch, head) pairs, one after the other.

    On a CPU that plays several devices a group has heads of all samples: a loop over samples that lie on different devices
    would run on each of them for all.
    """
    batch, heads, n = arrays[0].shape[:3]
    devices = jax.device_count()
    apart = batch if devices > 1 else 1
    most = max(1, SCORES_AT_ONCE // (chunk * n * -(-apart // devices)))
    loop = batch * heads // apart
    group = max(g for g in range(1, loop + 1) if loop % g == 0 and g <= most)
    parts = jax.tree.map(
        lambda x: rearrange(x.reshape(apart, loop, *x.shape[2:]), "b (steps g) n k -> steps (b g) n k", g=group), arrays
    )
    done = jax.lax.map(function, parts)
    return jax.tree.map(
        lambda x: rearrange(x, "steps (b g) n k -> b (steps g) n k", b=apart).reshape(batch, heads, *x.shape[2:]), done
    )


def _split(arrays: tuple[Any, ...], chunk: int) -> tuple[Any, ...]:
    return jax.tree.map(lambda x: rearrange(x, "g (chunks c) k -> chunks g c k", c=chunk), arrays)


def _join(x: Float[Array, "chunks G C K"]) -> Float[Array, "G N K"]:
    return rearrange(x, "chunks g c k -> g (chunks c) k")
