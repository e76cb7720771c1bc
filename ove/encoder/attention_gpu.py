"""Attention on NVIDIA GPUs by cuDNN, as JAX brings it: all tokens, segments one after the other, segments in any order.

Only the second calls what is private to JAX, in `packed_attention`; tests/encoder/test_encoder_private.py compares that with
the JAX installed. All were compiled for an H200 and lowered, and what they ask of cuDNN was computed on a CPU; none was timed.
"""

import importlib
from types import ModuleType

import jax
import jax.numpy as jnp
from einops import rearrange
from jaxtyping import Array, Int

from ove.encoder.attention_pallas import FILLING, Heads
from ove.encoder.segments import Segments

CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
"""JAX's private name of the primitive whose results cuDNN's backward pass needs."""
PRIVATE = "jax._src.cudnn.fused_attention_stablehlo"


def cudnn_attention(q: Heads, k: Heads, v: Heads, segments: Segments | None = None, *, by_length: bool = True) -> Heads:
    """Computes attention (within segments) in bfloat16 or float16; raises at trace time on a machine without CUDA.

    Segments whose lengths are known cost what their own scores cost, if `by_length` (compute capability 9.0 and more). Others
    cost as much as one segment, and a mask of N² values a row, shared by heads.
    """
    n = q.shape[2]
    # A backward pass takes even numbers of tokens only: one more, which nobody attends to.
    lacking = n % 2
    q, k, v = (jnp.pad(rearrange(x, "b a n k -> b n a k"), ((0, 0), (0, lacking), (0, 0), (0, 0))) for x in (q, k, v))
    if segments is None:
        counts = jnp.full(q.shape[0], n, jnp.int32) if lacking else None
        out = jax.nn.dot_product_attention(
            q, k, v, query_seq_lengths=counts, key_value_seq_lengths=counts, implementation="cudnn"
        )
    elif by_length and segments.lengths is not None:
        out = packed_attention(q, k, v, segments.lengths)
    else:
        ids = jnp.pad(segments.ids, ((0, 0), (0, lacking)), constant_values=FILLING)
        mask = ids[:, None, :, None] == ids[:, None, None, :]
        out = jax.nn.dot_product_attention(q, k, v, mask=mask, implementation="cudnn")
    return rearrange(out, "b n a k -> b a n k")[:, :, :n]


def packed_attention(q: Array, k: Array, v: Array, lengths: Int[Array, "B R"]) -> Array:
    """Computes attention of (B, N, heads, width) within segments that lie one after the other, by JAX's private function."""
    starts = jnp.cumsum(lengths, axis=1) - lengths
    # −1 is what JAX leaves out; it expects one start more than lengths.
    counts, starts = (jnp.where(lengths > 0, x, -1).astype(jnp.int32) for x in (lengths, starts))
    starts = jnp.pad(starts, ((0, 0), (0, 1)), constant_values=-1)
    return private().dot_product_attention(
        q, k, v, q_seqlen=counts, kv_seqlen=counts, q_offsets=starts, kv_offsets=starts, scale=q.shape[-1] ** -0.5
    )


def private() -> ModuleType:
    """Returns the module of JAX that hands attention to cuDNN."""
    return importlib.import_module(PRIVATE)
