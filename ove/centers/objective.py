"""The loss of one bank for one step, in three moves, so that the gradient is as small as what was drawn.

    drawn = draw(key, labels, n_centers, n_negatives=…, labels_per_step=…)    # integers only
    sampled = gather(bank, drawn)                                             # rows, scale, bias

    def loss_of(params, sampled):
        pooled = apply(config.encoder, params, patches, positions).pooled
        return loss(sampled, drawn, pooled, config.centers)

    (value, aux), (grads, bank_grads) = jax.value_and_grad(loss_of, argnums=(0, 1), has_aux=True)(params, sampled)
    bank = update_rows(bank, drawn, bank_grads, lr=…, …)

With several banks `sampled` is a dictionary of them, and the loss their weighted sum. All of it works under jit and with
the batch sharded over devices.
"""

import jax
from jaxtyping import Array, Float, Float32, Int, Key

from ove.centers.bank import Bank, Sampled
from ove.centers.losses import LogitMeans, raw_loss, sigmoid_loss
from ove.centers.sample import Drawn, candidates, draw_labels
from ove.config import CentersConfig


def draw(key: Key[Array, ""], labels: Int[Array, "B L"], n_centers: int, *, n_negatives: int, labels_per_step: int) -> Drawn:
    """`labels_per_step` labels of each sample and `n_negatives` of the bank's `n_centers` centers.

    Labels are in −1…n_centers − 1, where −1 is missing; ConfigError if there are fewer labels or centers than are to be
    drawn. Spec §3.
    """
    key_labels, key_centers = jax.random.split(key)
    drawn_labels = draw_labels(key_labels, labels, labels_per_step)
    ids, is_negative = candidates(key_centers, drawn_labels, n_centers, n_negatives)
    return Drawn(ids, is_negative, drawn_labels, labels)


def gather(bank: Bank, drawn: Drawn) -> Sampled:
    """The drawn rows, and scale and bias; rows of 0 for unused slots.

    Differentiate with respect to the result, never through this function: its gradient would be as large as the bank.
    """
    return Sampled(bank.rows.at[drawn.ids].get(mode="fill", fill_value=0.0), bank.scale, bank.bias)


def loss(
    sampled: Sampled, drawn: Drawn, embeddings: Float[Array, "B E"], config: CentersConfig
) -> tuple[Float32[Array, ""], LogitMeans]:
    """The loss of one bank, the mean over its embeddings, and the mean logits of positives and negatives.

    Differentiable in `sampled` and `embeddings`; computed in float32. Spec §3.
    """
    kind = {"sigmoid": sigmoid_loss, "raw": raw_loss}[config.loss]
    return kind(embeddings, sampled, drawn)
