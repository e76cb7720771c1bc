"""Metrics of a bank and of the embeddings of a step, in time that scales with the sample."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float32, Int32

from ove.centers.bank import Bank
from ove.centers.placement import BankPlacement
from ove.centers.sample import RowSample

BankMetrics = dict[str, Float32[Array, ""]]
NORMS = 1024
"""Approximate number of drawn rows for the quantiles of norms."""
_QUANTILES = (0.05, 0.5, 0.95)


class Counted(NamedTuple):
    """Statistics of one shard and step, to be summed over the shards; float32."""

    first_time: Float32[Array, ""]
    """Rows that are positives for the first time."""
    overflow: Float32[Array, ""]
    """Positives beyond the capacity."""
    positives: Float32[Array, "2"]
    negatives: Float32[Array, "2"]
    """Sum of logits and number of pairs, as in `LossParts`."""
    norms: Float32[Array, "n"]
    """Norms of drawn rows, NaN in unused slots; 0 in the slots of other shards."""


def count_rows(
    bank: Bank,
    sample: RowSample,
    positives: Float32[Array, "2"],
    negatives: Float32[Array, "2"],
    placement: BankPlacement,
) -> Counted:
    """Returns the statistics of the shard `bank` before its update; inside `shard_map`."""
    before = bank.rows_positive.at[sample.ids].get(mode="fill", fill_value=1)
    first_time = (sample.is_positive & (before == 0)).sum()
    n_slots, n_shards = len(sample.ids), placement.n_shards
    n_norms = min(n_slots, max(1, NORMS // n_shards))
    slot = np.arange(n_norms) * n_slots // n_norms
    rows = bank.rows.at[sample.ids[slot]].get(mode="fill", fill_value=0.0)
    norms = jnp.where(sample.is_drawn[slot], jnp.linalg.norm(rows, axis=1), jnp.nan)
    is_mine = jnp.arange(n_shards)[:, None] == placement.shard()
    return Counted(
        first_time.astype(jnp.float32),
        sample.overflow.astype(jnp.float32),
        positives,
        negatives,
        jnp.where(is_mine, norms, 0).ravel(),
    )


def metrics_of(
    counted: Counted, ever_positive: Int32[Array, ""], seen: Float32[Array, "E"], n_samples: Float32[Array, ""]
) -> BankMetrics:
    """Returns the metrics of a step from the sums over all shards, `Bank.ever_positive` before it, and the sum of the
    normalised embeddings.

    `positive_logit`, `negative_logit`: means over pairs, NaN without pairs. `ever_positive`: rows that were ever a positive.
    `positive_overflow`: positives of this step beyond the capacity. `row_norm_p05`, `_p50`, `_p95`: quantiles over about
    `NORMS` drawn rows. `embedding_cosine`: mean cosine between two embeddings of the batch; 1 means collapse.
    """
    metrics = {
        "positive_logit": counted.positives[0] / counted.positives[1],
        "negative_logit": counted.negatives[0] / counted.negatives[1],
        "ever_positive": ever_positive + counted.first_time,
        "positive_overflow": counted.overflow,
        "embedding_cosine": (jnp.square(seen).sum() - n_samples) / jnp.maximum(n_samples * (n_samples - 1), 1),
    }
    return metrics | {f"row_norm_p{round(100 * q):02d}": jnp.nanquantile(counted.norms, q) for q in _QUANTILES}
