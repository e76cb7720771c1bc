"""JAX's kernels are used by their private functions; these must be what we take them for, and cost other machines nothing."""

import inspect
import subprocess
import sys
import warnings
from pathlib import Path

import pytest

from ove.encoder import attention_gpu, attention_tpu
from ove.encoder.attention_gpu import TRITON
from ove.encoder.attention_tpu import SPLASH

ROOT = Path(__file__).resolve().parents[2]
ADVICE = "has changed with this version of JAX: adapt {place} in ove/encoder, then these names"


def names_of(function: object) -> list[str]:
    return list(inspect.signature(function).parameters)  # type: ignore[arg-type]


def test_the_backward_pass_of_the_triton_kernel_is_called_as_it_is_defined() -> None:
    kernel = attention_gpu.triton_kernel().mha
    expected = (
        "sm_scale causal block_sizes backward_pass_impl num_warps num_stages grid interpret debug return_residuals res do"
    )
    assert names_of(kernel.bwd) == expected.split(), "mha.bwd " + ADVICE.format(place="attention_gpu.triton_gradients")
    # The residuals are what the forward pass returns, in this order.
    assert names_of(kernel)[:4] == ["q", "k", "v", "segment_ids"], "mha " + ADVICE.format(place="attention_gpu._triton_forward")


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
        f"print([name for name in sys.modules if name.startswith(({TRITON!r}, {SPLASH!r}, 'jax.experimental.pallas.ops'))])"
    )
    done = subprocess.run([sys.executable, "-c", program], cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout.strip()) == (0, "[]"), done.stderr


def test_only_the_announced_end_of_triton_is_silenced() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        attention_gpu.triton_kernel()
        attention_gpu.triton_kernel()
        text = "The Pallas Triton backend is deprecated and will be removed in a future JAX version."
        warnings.warn(text, DeprecationWarning, stacklevel=1)
        for other, kind in ((text, UserWarning), ("Another backend is deprecated", DeprecationWarning)):
            with pytest.raises(kind):
                warnings.warn(other, kind, stacklevel=1)
        # Asked for again and again, it is one filter.
        assert sum("Triton" in str(one[1]) for one in warnings.filters) == 1
