"""Attention on TPUs by the splash kernel of `jax.experimental.pallas`.

It is loaded where it is used and nowhere else, so that JAX may change it without harm to other machines. Its backward pass is
private: `splash_gradients` alone knows how it is called, and tests/encoder/test_encoder_private.py compares that with the JAX
installed. It was lowered for TPUs and computed in Pallas' interpreter; it was never timed.
"""

import importlib
from types import ModuleType
from typing import Any

import jax
from jaxtyping import Array, Int

from ove.encoder.attention_pallas import Heads, Kernel

SPLASH = "jax.experimental.pallas.ops.tpu.splash_attention"
FUSED_BLOCKS = 4
"""Blocks of keys up to which the backward pass is one kernel, whose memory is so many times the queries'."""


def splash_attention(
    q: Heads, k: Heads, v: Heads, segment_ids: Int[Array, "B N"] | None = None, *, interpret: bool = False
) -> Heads:
    """Computes attention within segments by the splash kernel of `jax.experimental.pallas`; TPU, or anywhere if interpreted."""
    return Kernel(_splash_forward, _splash_backward).attend(q, k, v, segment_ids, interpret)


def splash_kernel() -> ModuleType:
    """Returns the module of the splash kernel."""
    return importlib.import_module(f"{SPLASH}.splash_attention_kernel")


def _splash_forward(interpret: bool, q: Array, k: Array, v: Array, ids: Array | None = None) -> tuple[Array, Array]:
    kernel = _splash(q.shape[2], interpret)
    q = q * q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None) -> tuple[Array, Array]:
        out, (log_total,) = kernel(q, k, v, _splash_segments(ids))
        return out, log_total

    return jax.vmap(of_sample)(q, k, v, ids)


def _splash_backward(interpret: bool, *arrays: Array) -> tuple[Array, ...]:
    q, k, v, *ids, out, log_total, d_out = arrays
    kernel = _splash(q.shape[2], interpret)
    scale = q.shape[-1] ** -0.5

    def of_sample(q: Array, k: Array, v: Array, ids: Array | None, out: Array, log_total: Array, d_out: Array) -> Any:
        return splash_gradients(kernel, (q, k, v, _splash_segments(ids)), (out, log_total), d_out)

    dq, dk, dv = jax.vmap(of_sample)(q * scale, k, v, ids[0] if ids else None, out, log_total, d_out)
    return dq * scale, dk, dv


def splash_gradients(
    kernel: Any, operands: tuple[Any, ...], results: tuple[Array, Array], d_out: Array
) -> tuple[Array, Array, Array]:
    """Calls the kernel's own backward pass for one sample, which is private: JAX calls it by the rules of custom_vjp only."""
    sinks = None
    kept = (*operands, sinks, *results, kernel.dq_mask_info, kernel.dkv_mask_info)
    options = kernel.kwargs | {"save_residuals": False}
    return splash_kernel()._splash_attention_bwd(**options, res=kept, do=d_out)[3:6]


def _splash_segments(ids: Array | None) -> Any:
    return None if ids is None else splash_kernel().SegmentIds(ids, ids)


def _splash(n: int, interpret: bool) -> Any:
    """Makes the splash kernel for one sample: no mask but the segments, blocks as large as divide N.

    The fused backward pass computes each score once, not twice, but writes the gradient of the queries once for each block
    of keys, before it adds them up.
    """
    module, masks = splash_kernel(), importlib.import_module(f"{SPLASH}.splash_attention_mask_info")
    block = max(size for size in (128, 256, 512, 1024) if n % size == 0)
    fused = n // block <= FUSED_BLOCKS
    sizes = module.BlockSizes(
        block_q=block,
        block_kv=block,
        block_kv_compute=block,
        block_q_dkv=block,
        block_kv_dkv=block,
        block_kv_dkv_compute=block,
        block_q_dq=None if fused else block,
        block_kv_dq=None if fused else block,
        use_fused_bwd_kernel=fused,
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
