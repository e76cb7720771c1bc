"""JAX's kernels are used by their private functions; these must be what we take them for, and cost other machines nothing."""

import inspect
import subprocess
import sys
from pathlib import Path

from ove.encoder import attention_gpu, attention_tpu
from ove.encoder.attention_gpu import CUDNN_FORWARD
from ove.encoder.attention_tpu import SPLASH

ROOT = Path(__file__).resolve().parents[2]
ADVICE = "has changed with this version of JAX: adapt {place} in ove/encoder, then these names"


def names_of(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_cudnn_is_called_as_it_is_defined() -> None:
    module, advice = attention_gpu.private(), ADVICE.format(place="attention_gpu.packed_attention")
    expected = "query key value bias mask q_seqlen kv_seqlen q_offsets kv_offsets fp8_params scale mask_type"
    assert names_of(module.dot_product_attention)[:12] == expected.split(), "dot_product_attention " + advice
    defaults = inspect.signature(module.dot_product_attention).parameters
    assert (defaults["mask_type"].default.name, defaults["qkv_layout"].default) == ("NO_MASK", "BTNH"), advice
    primitive = module._dot_product_attention_fwd_p_wrapper.name
    assert primitive == CUDNN_FORWARD, "the primitive " + ADVICE.format(place="attention_gpu.CUDNN_FORWARD")


def test_the_backward_pass_of_the_splash_kernel_is_called_as_it_is_defined() -> None:
    module = attention_tpu.splash_kernel()
    advice = ADVICE.format(place="attention_tpu.splash_gradients")
    expected = (
        "save_residuals mask_value is_mqa block_sizes residual_checkpoint_name mask_function attn_logits_soft_cap interpret"
    )
    kernel = attention_tpu._splash(256, False)
    assert names_of(module._splash_attention_bwd) == [*expected.split(), "res", "do"], "_splash_attention_bwd " + advice
    assert sorted(kernel.kwargs) == sorted(expected.split()), "SplashAttentionKernel.kwargs " + advice
    masks = "data_next mask_next block_mask partial_mask_blocks q_sequence is_dynamic_mask"
    assert type(kernel.dq_mask_info)._fields == tuple(masks.split()), "MaskInfo " + ADVICE.format(place="attention_tpu._splash")
    assert module.SegmentIds._fields == ("q", "kv"), "SegmentIds " + ADVICE.format(place="attention_tpu._splash_segments")


def test_the_kernels_of_other_machines_are_not_imported() -> None:
    program = (
        "import sys, warnings; warnings.simplefilter('error'); import ove.encoder.encoder, ove.encoder.attention; "
        f"print([name for name in sys.modules if name.startswith(({SPLASH!r}, 'jax.experimental.pallas.ops'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr
