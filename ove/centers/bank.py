"""A bank of class centers and the state of its optimizer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from ove.config import CentersConfig


class Bank(NamedTuple):
    """All class centers of one data set, with the moments that AdamW keeps; a pytree."""

    rows: Float32[Array, "C E"]
    """The centers."""
    rows_m: Float32[Array, "C E"]
    rows_v: Float32[Array, "C E"]
    rows_count: Int32[Array, "C"]
    """How often each row was updated: with one count for all, a row's first update at step n would be far too large."""
    scale: Float32[Array, ""]
    bias: Float32[Array, ""]
    """Logit = scale · cosine + bias."""
    logit_m: Float32[Array, "2"]
    logit_v: Float32[Array, "2"]
    logit_count: Int32[Array, ""]
    """Moments and count of (scale, bias), which are updated in every step."""


class Sampled(NamedTuple):
    """The part of a bank that one step sees, and the only part that gets a gradient; a pytree of float32."""

    rows: Float32[Array, "S E"]
    """The centers of the step; 0 in unused slots."""
    scale: Float32[Array, ""]
    bias: Float32[Array, ""]


def init_bank(
    key: Key[Array, ""], n_centers: int, width: int, config: CentersConfig, *, positives: int, negatives: int
) -> Bank:
    """A fresh bank of `n_centers` rows as wide as the embedding.

    Rows N(0, config.init_std); scale config.init_scale; bias −log(negatives/positives), where these are the centers of
    each kind that one embedding meets in a step: with it, fresh logits are about as likely as their labels. Spec §3.
    """
    shape = (n_centers, width)
    return Bank(
        rows=config.init_std * jax.random.normal(key, shape, jnp.float32),
        rows_m=jnp.zeros(shape, jnp.float32),
        rows_v=jnp.zeros(shape, jnp.float32),
        rows_count=jnp.zeros(n_centers, jnp.int32),
        scale=jnp.float32(config.init_scale),
        bias=jnp.float32(-math.log(negatives / positives)),
        logit_m=jnp.zeros(2, jnp.float32),
        logit_v=jnp.zeros(2, jnp.float32),
        logit_count=jnp.int32(0),
    )
