"""Attention on a CPU: a few heads and a few hundred queries at a time, so that scores stay in the caches."""

from typing import Any

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Float

SCORES_AT_ONCE = 2**19
"""Scores that `grouped` holds at a time: what stays in the caches (2 MiB; measured at 256 to 2,048 tokens)."""
CHUNK = 256
"""Queries that `grouped` treats at a time, at most."""


@jax.custom_vjp
def grouped(q: Float[Array, "B A N K"], k: Float[Array, "B A N K"], v: Float[Array, "B A N K"]) -> Float[Array, "B A N K"]:
    """As `reference`, a few heads and a few hundred queries at a time, so that scores never leave the caches.

    The backward pass keeps q, k, v, the result and the log of the softmax's denominator, and computes the scores again.
    """
    return _grouped_forward(q, k, v)[0]


def _grouped_forward(q: Array, k: Array, v: Array) -> tuple[Array, tuple[Array, ...]]:
    chunk = _chunk(q.shape[2])

    def of_group(qkv: tuple[Array, ...]) -> tuple[Array, Array]:
        q_GNK, k_GNK, v_GNK = qkv

        def of_chunk(carry: None, q_GCK: Array) -> tuple[None, tuple[Array, Array]]:
            scores = _scores(q_GCK, k_GNK)
            top = scores.max(-1, keepdims=True)
            weights = jnp.exp(scores - top)
            total = weights.sum(-1, keepdims=True)
            mixed = jnp.einsum("gcn,gnk->gck", weights.astype(v.dtype), v_GNK, preferred_element_type=jnp.float32)
            return None, ((mixed / total).astype(q.dtype), top + jnp.log(total))

        out, log_total = jax.lax.scan(of_chunk, None, _split(q_GNK, chunk))[1]
        return _join(out), _join(log_total)

    out, log_total = _over_groups(of_group, (q, k, v), chunk)
    return out, (q, k, v, out, log_total)


def _grouped_backward(kept: tuple[Array, ...], d_out: Array) -> tuple[Array, Array, Array]:
    q, k, v = kept[:3]
    chunk = _chunk(q.shape[2])
    scale = q.shape[-1] ** -0.5

    def of_group(group: tuple[Array, ...]) -> tuple[Array, Array, Array]:
        q_GNK, k_GNK, v_GNK, out_GNK, log_total_GN1, d_out_GNK = group

        def of_chunk(sums: tuple[Array, Array], xs: tuple[Array, ...]) -> tuple[tuple[Array, Array], Array]:
            q_GCK, out_GCK, log_total_GC1, d_out_GCK = xs
            weights = jnp.exp(_scores(q_GCK, k_GNK) - log_total_GC1)
            # A product whose left side is transposed is slow on a CPU: dV = PᵀdO is computed as (dOᵀP)ᵀ, dK alike.
            dv_GKN = jnp.einsum("gck,gcn->gkn", d_out_GCK, weights.astype(v.dtype), preferred_element_type=jnp.float32)
            d_weights = jnp.einsum("gck,gnk->gcn", d_out_GCK, v_GNK, preferred_element_type=jnp.float32)
            inner = (d_out_GCK.astype(jnp.float32) * out_GCK).sum(-1, keepdims=True)
            d_scores = (weights * (d_weights - inner) * scale).astype(q.dtype)
            dq_GCK = jnp.einsum("gcn,gnk->gck", d_scores, k_GNK)
            dk_GKN = jnp.einsum("gck,gcn->gkn", q_GCK, d_scores, preferred_element_type=jnp.float32)
            return (sums[0] + dk_GKN, sums[1] + dv_GKN), dq_GCK

        zero = jnp.zeros((q_GNK.shape[0], q_GNK.shape[2], q_GNK.shape[1]), jnp.float32)
        xs = tuple(_split(x, chunk) for x in (q_GNK, out_GNK, log_total_GN1, d_out_GNK))
        (dk_GKN, dv_GKN), dq = jax.lax.scan(of_chunk, (zero, zero), xs)
        return _join(dq), dk_GKN.swapaxes(1, 2).astype(k.dtype), dv_GKN.swapaxes(1, 2).astype(v.dtype)

    return _over_groups(of_group, (*kept, d_out), chunk)


grouped.defvjp(_grouped_forward, _grouped_backward)


def _scores(q: Float[Array, "G C K"], k: Float[Array, "G N K"]) -> Float[Array, "G C N"]:
    return jnp.einsum("gck,gnk->gcn", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5


def _chunk(n: int) -> int:
    """The largest divisor of n up to CHUNK; n itself if that is so small that the loop would cost more than it saves."""
    best = max(c for c in range(1, min(n, CHUNK) + 1) if n % c == 0)
    return best if best >= CHUNK // 8 else n


def _over_groups(function: Any, arrays: tuple[Array, ...], chunk: int) -> Any:
    """`function` over groups of (batch, head) pairs, one after the other."""
    batch, heads, n = arrays[0].shape[:3]
    most = max(1, SCORES_AT_ONCE // (chunk * n))
    group = max(g for g in range(1, batch * heads + 1) if batch * heads % g == 0 and g <= most)
    parts = tuple(rearrange(x, "b a n k -> (b a) n k").reshape(-1, group, *x.shape[2:]) for x in arrays)
    done = jax.lax.map(function, parts)
    return jax.tree.map(lambda x: x.reshape(batch, heads, *x.shape[2:]), done)


def _split(x: Float[Array, "G N K"], chunk: int) -> Float[Array, "chunks G C K"]:
    return rearrange(x, "g (chunks c) k -> chunks g c k", c=chunk)


def _join(x: Float[Array, "chunks G C K"]) -> Float[Array, "G N K"]:
    return rearrange(x, "chunks g c k -> g (chunks c) k")
