"""The forward and the backward passes of JAX's own Pallas kernels of attention, Triton's for GPUs and splash for TPUs.

Each of them is a module of jax.experimental that is loaded where it is used and nowhere else: one that goes with the next
version of JAX takes no other machine with it. Their backward passes are private; `triton_gradients` and `splash_gradients` are
the only places that know how they are called, and tests/encoder/test_encoder_private.py compares that with the JAX installed.
"""

import importlib
import warnings
from types import ModuleType
from typing import Any

import jax
from einops import rearrange
from jaxtyping import Array

LANES = 128
"""Both kernels take whole blocks of tokens: a multiple of this."""
TRITON = "jax.experimental.pallas.ops.gpu.attention"
SPLASH = "jax.experimental.pallas.ops.tpu.splash_attention"

Forward = tuple[Array, Array]


def triton_kernel() -> ModuleType:
    """The module of the Triton kernel, the only one for GPUs that knows segments.

    jax 0.11 announces the end of it at its import, and that of Pallas' Triton backend whenever a program is lowered. Both are
    silenced, by their words, because a user can do nothing about them; the second for good, as programs are lowered later.
    """
    warnings.filterwarnings("ignore", r"The Pallas Triton backend is deprecated", DeprecationWarning)
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", rf"{TRITON} is deprecated", DeprecationWarning)
        return importlib.import_module(TRITON)


def triton_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> Forward:
    """(B, A, N, K) thrice and segments (B, N) → the means of the values, the log of the softmax's denominator (B, A, N)."""
    q, k, v = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    out, log_total = triton_kernel().mha(q, k, v, ids, **options, return_residuals=True)
    return rearrange(out, "b n a k -> b a n k"), log_total


def triton_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    """q, k, v, segments if any, both results of `triton_forward`, and the gradient of the first → gradients of q, k, v."""
    q, k, v, *ids, out, log_total, d_out = arrays
    q, k, v, out, d_out = (rearrange(x, "b a n k -> b n a k") for x in (q, k, v, out, d_out))
    options = _triton_options(q.shape[1], q.shape[-1], interpret)
    gradients = triton_gradients(options, (q, k, v, ids[0] if ids else None, out, log_total), d_out)
    return tuple(rearrange(x, "b n a k -> b a n k") for x in gradients)


def triton_gradients(options: dict[str, Any], kept: tuple[Array | None, ...], d_out: Array) -> tuple[Array, ...]:
    """The kernel's own backward pass, which JAX calls by the rules of custom_vjp only: private."""
    backward = triton_kernel().mha.bwd
    unused = {"causal": False, "num_warps": None, "num_stages": 2, "grid": None, "debug": False, "return_residuals": False}
    return backward(**options, **unused, backward_pass_impl="triton", res=kept, do=d_out)[:3]


def _triton_options(n: int, head_width: int, interpret: bool) -> dict[str, Any]:
    backward = 64 if head_width <= 64 else 32
    sizes = triton_kernel().BlockSizes(
        block_q=LANES, block_k=LANES, block_q_dkv=backward, block_kv_dkv=backward, block_q_dq=backward, block_kv_dq=backward
    )
    return {"sm_scale": head_width**-0.5, "block_sizes": sizes, "interpret": interpret}


def splash_kernel() -> ModuleType:
    """The module of the splash kernel."""
    return importlib.import_module(f"{SPLASH}.splash_attention_kernel")


def splash_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> Forward:
    """As `triton_forward`."""
    kernel = _splash(q.shape[2], interpret)
    q = q * q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None) -> Forward:
        out, (log_total,) = kernel(q, k, v, _splash_segments(ids))
        return out, log_total

    return jax.vmap(of_sample)(q, k, v, ids)


def splash_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    """As `triton_backward`."""
    q, k, v, *ids, out, log_total, d_out = arrays
    kernel = _splash(q.shape[2], interpret)
    scale = q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None, out: Array, log_total: Array, d_out: Array) -> Any:
        return splash_gradients(kernel, (q, k, v, _splash_segments(ids)), (out, log_total), d_out)

    dq, dk, dv = jax.vmap(of_sample)(q * scale, k, v, ids[0] if ids else None, out, log_total, d_out)
    return dq * scale, dk, dv


def splash_gradients(kernel: Any, operands: tuple[Any, ...], results: Forward, d_out: Array) -> tuple[Array, Array, Array]:
    """The kernel's own backward pass for one sample, which JAX calls by the rules of custom_vjp only: private."""
    sinks = None
    kept = (*operands, sinks, *results, kernel.dq_mask_info, kernel.dkv_mask_info)
    options = kernel.kwargs | {"save_residuals": False}
    return splash_kernel()._splash_attention_bwd(**options, res=kept, do=d_out)[3:6]


def _splash_segments(ids: Array | None) -> Any:
    return None if ids is None else splash_kernel().SegmentIds(ids, ids)


def _splash(n: int, interpret: bool) -> Any:
    """The splash kernel for one sample: no mask but the segments, blocks as large as divide N."""
    module, masks = splash_kernel(), importlib.import_module(f"{SPLASH}.splash_attention_mask_info")
    block = max(size for size in (128, 256, 512) if n % size == 0)
    sizes = module.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=block,
        block_kv_dq=block,
    )
    # No information on masks at all: every block is computed. What make_splash_mha derives from a mask that allows everything
    # is constant arrays, which a function that is split among devices may not hold.
    unmasked = masks.MaskInfo(*[None] * len(masks.MaskInfo._fields))
    return module.SplashAttentionKernel(
        unmasked,
        unmasked,
        unmasked,
        block_sizes=sizes,
        is_mqa=False,
        save_residuals=True,
        mask_value=module.DEFAULT_MASK_VALUE,
        attn_logits_soft_cap=None,
        residual_checkpoint_name=None,
        mask_function=None,
        interpret=interpret,
    )
