"""Attention on NVIDIA GPUs, by kernels that JAX brings: cuDNN, and Pallas' for Triton, the only one there that knows segments.

The Triton kernel is loaded where it is used and nowhere else, so that JAX may drop it without harm to other machines. Its
backward pass is private: `triton_gradients` alone knows how it is called, and tests/encoder/test_encoder_private.py compares
that with the JAX installed. Both were lowered for GPUs, and Triton's was computed in Pallas' interpreter; neither was timed.
"""

import importlib
import warnings
from types import ModuleType
from typing import Any

import jax
from einops import rearrange
from jaxtyping import Array, Int

from ove.encoder.attention_pallas import LANES, Heads, Kernel

CUDNN_FORWARD = "dot_product_attention_fwd_wrapper"
"""JAX's private name of the primitive whose results cuDNN's backward pass needs."""
TRITON = "jax.experimental.pallas.ops.gpu.attention"


def cudnn_attention(q: Heads, k: Heads, v: Heads, segment_ids: None = None) -> Heads:
    """Computes attention among all tokens by cuDNN, in bfloat16 or float16; raises at trace time on a machine without CUDA."""
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    return rearrange(jax.nn.dot_product_attention(q, k, v, implementation="cudnn"), "b n a k -> b a n k")


def pallas_attention(
    q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B N"] | None = None, *, interpret: bool = False
) -> Heads:
    """Computes attention within segments by the Triton kernel of `jax.experimental.pallas`; CUDA, or interpreted anywhere."""
    return Kernel(_triton_forward, _triton_backward).attend(q, k, v, segment_ids, interpret)


def triton_kernel() -> ModuleType:
    """Returns the module of the Triton kernel.

    jax 0.11 deprecates it at its import, and Pallas' Triton backend whenever a program is lowered. A user can do nothing about
    either: both warnings are filtered by their text, the second for good, as programs are lowered later.
    """
    warnings.filterwarnings("ignore", r"The Pallas Triton backend is deprecated", DeprecationWarning)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf"{TRITON} is deprecated", DeprecationWarning)
        return importlib.import_module(TRITON)


def _triton_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> tuple[Array, Array]:
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    out, log_total = triton_kernel().mha(q, k, v, ids, **options, return_residuals=True)
    return rearrange(out, "b n a k -> b a n k"), log_total


def _triton_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    q, k, v, *ids, out, log_total, d_out = arrays
    q, k, v, out, d_out = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v, out, d_out))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    gradients = triton_gradients(options, (q, k, v, ids[0] if ids else None, out, log_total), d_out)
    return tuple(rearrange(x, "b n a k -> b a n k") for x in gradients)


def triton_gradients(options: dict[str, Any], kept: tuple[Array | None, ...], d_out: Array) -> tuple[Array, ...]:
    """Calls the kernel's own backward pass, which is private: JAX calls it by the rules of custom_vjp only."""
    backward = triton_kernel().mha.bwd
    unused = {"causal": False, "num_warps": None, "num_stages": 2, "grid": None, "debug": False, "return_residuals": False}
    return backward(**options, **unused, backward_pass_impl="triton", res=kept, do=d_out)[:3]


def _triton_options(n: int, head_width: int, interpret: bool) -> dict[str, Any]:
    backward = 64 if head_width <= 64 else 32
    sizes = triton_kernel().BlockSizes(
        block_q=LANES, block_k=LANES, block_q_dkv=backward, block_kv_dkv=backward, block_q_dq=backward, block_kv_dq=backward
    )
    return {"sm_scale": head_width**-0.5, "block_sizes": sizes, "interpret": interpret}
