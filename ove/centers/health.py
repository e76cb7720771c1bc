"""What a step tells of the state of a bank and of the embeddings that it meets, in time that goes by the sample."""

from typing import NamedTuple

import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int32

from ove.centers.bank import Bank
from ove.centers.losses import LossParts, normalize
from ove.centers.placement import BankPlacement
from ove.centers.sample import RowSample

BankMetrics = dict[str, Float32[Array, ""]]
NORMS = 1024
"""Drawn rows, about, whose norms the quantiles are taken from."""
_QUANTILES = (0.05, 0.5, 0.95)


class Counted(NamedTuple):
    """What one shard has to tell of a step, to be summed over the shards; float32."""

    first_time: Float32[Array, ""]
    """Rows that were someone's label for the first time."""
    overflow: Float32[Array, ""]
    """Positives for which there was no room."""
    positives: Float32[Array, "2"]
    negatives: Float32[Array, "2"]
    """Sum of logits and number of pairs, as in `LossParts`."""
    norms: Float32[Array, "n"]
    """Of drawn rows, NaN in unused slots; 0 in the places of the other shards."""


def count_rows(bank: Bank, sample: RowSample, parts: LossParts, placement: BankPlacement) -> Counted:
    """What the shard `bank` has to tell before it is updated; to be called inside `shard_map`."""
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
        parts.positives,
        parts.negatives,
        jnp.where(is_mine, norms, 0).ravel(),
    )


def metrics_of(counted: Counted, ever_positive: Int32[Array, ""], embeddings: Float[Array, "B E"]) -> BankMetrics:
    """Metrics of a step, given the sums over all shards and `Bank.ever_positive` after it.

    `positive_logit`, `negative_logit`: means over their pairs, NaN where there are none. `ever_positive`: rows that were ever
    someone's label. `positive_overflow`: positives of this step for which there was no room. `row_norm_p05`, `_p50`, `_p95`:
    quantiles over drawn rows (all of them up to about `NORMS`). `embedding_cosine`: mean cosine between two embeddings of the
    batch, 1 where all have become the same.
    """
    n_samples = len(embeddings)
    together = jnp.square(normalize(embeddings).vectors.sum(0)).sum()
    metrics = {
        "positive_logit": counted.positives[0] / counted.positives[1],
        "negative_logit": counted.negatives[0] / counted.negatives[1],
        "ever_positive": ever_positive.astype(jnp.float32),
        "positive_overflow": counted.overflow,
        "embedding_cosine": (together - n_samples) / max(n_samples * (n_samples - 1), 1),
    }
    return metrics | {f"row_norm_p{round(100 * q):02d}": jnp.nanquantile(counted.norms, q) for q in _QUANTILES}
