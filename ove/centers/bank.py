"""A bank of class centers with the state of its optimizer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from ove.centers.placement import padded
from ove.config import CentersConfig
from ove.errors import ConfigError


class Bank(NamedTuple):
    """All class centers of one data set, with their AdamW moments; a pytree.

    Fields `rows…` are sharded over the devices. Rows are in shuffled order (`ove.centers.shuffle`); rows after the last center
    are zero padding.
    """

    rows: Float32[Array, "C E"]
    """The centers."""
    rows_m: Float32[Array, "C E"]
    rows_v: Float32[Array, "C E"]
    rows_count: Int32[Array, "C"]
    """Updates of each row; a common count would make the first update of a row at step n far too large."""
    rows_step: Int32[Array, "C"]
    """Step after which each row was last updated; 0: never."""
    rows_positive: Int32[Array, "C"]
    """Number of steps in which each row was a positive."""
    ever_positive: Int32[Array, ""]
    """Number of rows that were ever a positive."""
    scale: Float32[Array, ""]
    bias: Float32[Array, ""]
    """Logit = scale · cosine + bias."""
    logit_m: Float32[Array, "2"]
    logit_v: Float32[Array, "2"]
    logit_count: Int32[Array, ""]
    """Moments and count of (scale, bias), which are updated in every step."""


def init_bank(
    key: Key[Array, ""],
    n_centers: int,
    width: int,
    config: CentersConfig,
    *,
    positives: int,
    negatives: int,
    n_shards: int = 1,
) -> Bank:
    """Returns a fresh bank of `n_centers` rows, padded to equal shards.

    Rows are drawn from N(0, config.init_std), independent of `n_shards`; the scale is config.init_scale, the bias
    −log(negatives/positives), with the centers of each kind per embedding and step, so that initial probabilities match the
    label frequencies. Spec §3. Under `jax.jit` with `out_shardings` every device makes its own rows.
    ConfigError for n_centers < 1.
    """
    if n_centers < 1:
        raise ConfigError(f"n_centers = {n_centers}; a bank needs at least 1 center.")
    n_rows = padded(n_centers, n_shards)
    is_center = jnp.arange(n_rows)[:, None] < n_centers
    rows = jnp.where(is_center, config.init_std * jax.random.normal(key, (n_rows, width), jnp.float32), 0)
    return Bank(
        rows=rows,
        rows_m=jnp.zeros((n_rows, width), jnp.float32),
        rows_v=jnp.zeros((n_rows, width), jnp.float32),
        rows_count=jnp.zeros(n_rows, jnp.int32),
        rows_step=jnp.zeros(n_rows, jnp.int32),
        rows_positive=jnp.zeros(n_rows, jnp.int32),
        ever_positive=jnp.int32(0),
        scale=jnp.float32(config.init_scale),
        bias=jnp.float32(-math.log(negatives / positives)),
        logit_m=jnp.zeros(2, jnp.float32),
        logit_v=jnp.zeros(2, jnp.float32),
        logit_count=jnp.int32(0),
    )
