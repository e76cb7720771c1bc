"""A bank of class centers and the state of its optimizer."""

import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32, Int32, Key

from ove.centers.placement import padded
from ove.config import CentersConfig
from ove.errors import ConfigError


class Bank(NamedTuple):
    """All class centers of one data set, with the moments that AdamW keeps; a pytree.

    What is called `rows…` is cut over the devices. Rows are in shuffled order (`ove.centers.shuffle`); those past the last
    center fill up the last shards with zeros.
    """

    rows: Float32[Array, "C E"]
    """The centers."""
    rows_m: Float32[Array, "C E"]
    rows_v: Float32[Array, "C E"]
    rows_count: Int32[Array, "C"]
    """How often each row was updated: with one count for all, a row's first update at step n would be far too large."""
    rows_step: Int32[Array, "C"]
    """Steps that were done when each row was last updated; 0: never."""
    rows_positive: Int32[Array, "C"]
    """In how many steps each row was someone's label."""
    ever_positive: Int32[Array, ""]
    """How many rows were ever someone's label."""
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
    """A fresh bank of `n_centers` rows as wide as the embedding, padded to equal shards.

    Rows N(0, config.init_std), the same whatever `n_shards`; scale config.init_scale; bias −log(negatives/positives), where
    these are the centers of each kind that one embedding meets in a step: with it, fresh logits are about as likely as their
    labels. Spec §3. Under `jax.jit` with `out_shardings` every device makes its own rows. ConfigError if there are no centers.
    """
    if n_centers < 1:
        raise ConfigError(f"a bank of {n_centers} centers cannot be made; give it at least one.")
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
