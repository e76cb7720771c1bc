"""Scaled dot-product attention of heads that lie before tokens: one front end, one implementation a kind of machine."""

import functools
import logging
from collections.abc import Callable
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.ad_checkpoint import checkpoint_name
from jaxtyping import Array, Float, Int

from ove.encoder.attention_accelerators import cudnn_attention, pallas_attention, splash_attention
from ove.encoder.attention_cpu import attend_in_chunks
from ove.errors import ConfigError

LOG = logging.getLogger(__name__)


class Machine(NamedTuple):
    """What the default device is, as far as attention cares."""

    kind: str
    """cuda, tpu, cpu, or what else JAX calls it."""
    capability: float = 0.0
    """Compute capability of an NVIDIA GPU."""


def attend(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
    backend: str = "auto",
) -> Float[Array, "B A N K"]:
    """Each query's mean of the values, weighted by softmax(q·k/√K); the result has the dtype of `q`.

    With `segment_ids` (not negative) tokens attend to those of the same id only; padding is a segment like any other.

    `backend` is the name of an implementation, or `auto`. `cudnn`: NVIDIA GPUs, bfloat16 or float16, heads up to 128 wide,
    no segments. `pallas`: the same with segments. `splash`: TPUs. `cpu` (`attend_in_chunks`): everywhere, in plain JAX, a
    bounded number of scores at a time. `reference`: everywhere, with the memory of all scores; never chosen by itself.
    ConfigError if a backend is asked for that cannot do this here.
    """
    # Named, as are the results, for `remat = "dots"` (encoder.py).
    q, k, v = (checkpoint_name(x, "attention") for x in (q, k, v))
    name = choose(backend, machine(), q.dtype.name, q.shape[3], q.shape[2] % 2 == 1, segment_ids is not None)
    if name == "cudnn":
        return cudnn_attention(q, k, v)
    implementations: dict[str, Callable[..., Array]] = {
        "pallas": pallas_attention,
        "splash": splash_attention,
        "cpu": attend_in_chunks,
        "reference": reference,
    }
    return implementations[name](q, k, v, segment_ids)


def machine() -> Machine:
    """The default device: of a GPU by its compute capability, which other makers' do not have as a number."""
    default = getattr(jax.config, "jax_default_device")  # noqa: B009  (the types of some versions of jax lack it)
    device = default if isinstance(default, jax.Device) else jax.local_devices(backend=default)[0]
    if device.platform not in ("gpu", "cuda"):
        return Machine(device.platform)
    try:
        return Machine("cuda", float(getattr(device, "compute_capability", "")))
    except ValueError:
        return Machine("rocm")


@functools.cache
def choose(backend: str, here: Machine, dtype: str, head_width: int, odd: bool, segmented: bool) -> str:
    """The implementation to use: the one asked for, or for `auto` the first of cudnn, pallas, splash, cpu that can do it.

    Each distinct choice is logged once. `odd` says whether the number of tokens is odd.
    ConfigError, which says why, if the one asked for cannot.
    """
    refusals = {name: _refusal(name, here, dtype, head_width, odd, segmented) for name in ("cudnn", "pallas", "splash")}
    refusals |= {"cpu": "", "reference": ""}
    tokens = f"an {'odd' if odd else 'even'} number of tokens"
    case = f"{dtype}, heads of {head_width}, {tokens}, {'segments' if segmented else 'no segments'}, on {here.kind}"
    if backend != "auto":
        if backend not in refusals:
            raise ConfigError(f"attention backend {backend!r} is none of auto, {', '.join(refusals)}.")
        if refusals[backend]:
            raise ConfigError(
                f"attention backend {backend!r} cannot be used for {case}: {refusals[backend]}. Choose 'auto', or 'cpu', which "
                "runs everywhere."
            )
        LOG.info("attention: %s, as asked for (%s)", backend, case)
        return backend
    name = next(name for name in ("cudnn", "pallas", "splash", "cpu") if not refusals[name])
    if name == "cpu" and here.kind != "cpu":
        why = "; ".join(f"{other}: {reason}" for other, reason in refusals.items() if reason)
        LOG.warning("attention: cpu, in plain JAX, which is slower than a kernel (%s). %s", case, why)
    else:
        LOG.info("attention: %s (%s)", name, case)
    return name


def _refusal(name: str, here: Machine, dtype: str, head_width: int, odd: bool, segmented: bool) -> str:
    """Why an implementation cannot be used; empty if it can."""
    if name == "splash":
        if here.kind != "tpu":
            return "it needs a TPU"
        return "" if dtype in ("bfloat16", "float32") else f"it computes in bfloat16 or float32, not {dtype}"
    if here.kind != "cuda" or here.capability < 8:
        return "it needs an NVIDIA GPU of compute capability 8.0 or more"
    if dtype not in ("bfloat16", "float16"):
        return f"it computes in bfloat16 or float16, not {dtype}"
    if head_width > 128 or head_width % 8:
        return "it needs a head width that 8 divides, up to 128"
    if name == "cudnn" and odd:
        return "it needs an even number of tokens"
    return "it knows no segments" if name == "cudnn" and segmented else ""


def reference(
    q: Float[Array, "B A N K"],
    k: Float[Array, "B A N K"],
    v: Float[Array, "B A N K"],
    segment_ids: Int[Array, "B N"] | None = None,
) -> Float[Array, "B A N K"]:
    """Attention as it is written on paper; scores and softmax in float32. Memory grows with the square of N."""
    scores = jnp.einsum("bank,bamk->banm", q, k, preferred_element_type=jnp.float32) * q.shape[-1] ** -0.5
    if segment_ids is not None:
        together = segment_ids[:, None, :, None] == segment_ids[:, None, None, :]
        scores = jnp.where(together, scores, -jnp.inf)
    weights = jax.nn.softmax(scores, axis=-1)
    return jnp.einsum("banm,bamk->bank", weights.astype(v.dtype), v)
