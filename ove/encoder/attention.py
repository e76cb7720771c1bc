"""Scaled dot-product attention, (batch, heads, tokens, width): one front end, a table of backends for kinds of machines."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ove.encoder import machine
from ove.encoder.attention_cpu import attend_in_chunks
from ove.encoder.attention_gpu import cudnn_attention, pallas_attention
from ove.encoder.attention_tpu import splash_attention
from ove.encoder.machine import PLAIN, Machine
from ove.errors import ConfigError

_LOG = logging.getLogger(__name__)


class Case(NamedTuple):
    """What the choice of a backend depends on."""

    here: Machine
    dtype: str
    head_width: int
    odd: bool
    """Whether the number of tokens is odd."""
    segmented: bool

    def __str__(self) -> str:
        tokens = f"an {'odd' if self.odd else 'even'} number of tokens"
        segments = "segments" if self.segmented else "no segments"
        return f"{self.dtype}, heads of {self.head_width}, {tokens}, {segments}, on {self.here.kind}"


class Backend(NamedTuple):
    """An implementation of attention."""

    attend: Callable[..., Array]
    """(q, k, v, segment ids or None) → the result."""
    refusal: Callable[[Case], str]
    """Why it cannot be used in a case; empty if it can."""


def attend(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
    backend: str = "auto",
) -> Float[Array, "B A N K"]:
    """Returns, for each query, the mean of the values weighted by softmax(q·k/√K), in the dtype of `q`.

    With `segment_ids` (not negative) tokens attend to those of the same id only; padding is a segment like any other.

    `backend` is a name of `BACKENDS`, or `auto`. `cudnn`: NVIDIA GPUs, bfloat16 or float16, heads up to 128 wide, no segments.
    `pallas`: the same with segments. `splash`: TPUs. `cpu` (`attend_in_chunks`): everywhere, in plain JAX, a bounded number of
    scores at a time. `reference`: everywhere, with the memory of all scores; the only one that JAX differentiates in forward
    mode, and chosen by itself only for the machine `PLAIN`. ConfigError if the backend cannot do this here.
    """
    # Named, as are the results, for `remat` (encoder.py).
    q, k, v = (checkpoint_name(x, "attention") for x in (q, k, v))
    case = Case(machine.current(), q.dtype.name, q.shape[3], q.shape[2] % 2 == 1, segment_ids is not None)
    return BACKENDS[choose(backend, case)].attend(q, k, v, segment_ids)


@functools.cache
def choose(backend: str, case: Case) -> str:
    """Returns the backend that was asked for, or for `auto` the first of `BACKENDS` that applies. Logs each choice once.

    ConfigError if the name is unknown, or, with the reason, if the backend cannot do it.
    """
    if backend != "auto":
        if backend not in BACKENDS:
            raise ConfigError(f"attention backend {backend!r} is none of auto, {', '.join(BACKENDS)}.")
        if reason := BACKENDS[backend].refusal(case):
            raise ConfigError(
                f"attention backend {backend!r} cannot be used for {case}: {reason}. Choose 'auto', or 'cpu', which "
                "runs everywhere."
            )
        _LOG.info("attention: %s, as requested (%s)", backend, case)
        return backend
    refused: dict[str, str] = {}
    for name, implementation in BACKENDS.items():
        reason = implementation.refusal(case)
        if not reason:
            break
        refused[name] = reason
    if name == "cpu" and case.here.kind != "cpu":
        why = "; ".join(f"{other}: {reason}" for other, reason in refused.items())
        _LOG.warning("attention: cpu, in plain JAX, which is slower than a kernel (%s). %s", case, why)
    else:
        _LOG.info("attention: %s (%s)", name, case)
    return name


def reference(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
) -> Float[Array, "B A N K"]:
    """Computes attention by its definition; scores and softmax in float32. Memory grows with the square of N."""
    scores = jnp.einsum("bank,bamk->banm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if segment_ids is not None:
        together = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        scores = jnp.where(together, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("banm,bamk->bank", weights.astype(v.dtype), v)


def _cudnn_refusal(case: Case) -> str:
    if reason := _gpu_refusal(case):
        return reason
    if case.odd:
        return "it needs an even number of tokens"
    return "it does not support segments" if case.segmented else ""


def _gpu_refusal(case: Case) -> str:
    if case.here.kind != "cuda" or case.here.capability < 8:
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    if case.dtype not in ("bfloat16", "float16"):
        return f"it computes in bfloat16 or float16, not {case.dtype}"
    if case.head_width > 128 or case.head_width % 8:
        return "it needs a head width that 8 divides, up to 128"
    return ""


def _tpu_refusal(case: Case) -> str:
    if case.here.kind != "tpu":
        return "it needs a TPU"
    return "" if case.dtype in ("bfloat16", "float32") else f"it computes in bfloat16 or float32, not {case.dtype}"


BACKENDS = {
    "cudnn": Backend(cudnn_attention, _cudnn_refusal),
    "pallas": Backend(pallas_attention, _gpu_refusal),
    "splash": Backend(splash_attention, _tpu_refusal),
    "cpu": Backend(attend_in_chunks, lambda case: "it has no forward mode" if case.here == PLAIN else ""),
    "reference": Backend(reference, lambda case: ""),
}
"""The implementations, in the order in which `auto` tries them."""
