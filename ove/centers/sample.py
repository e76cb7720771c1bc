"""Which labels and which centers take part in a step."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Int, Int32, Key

from ove.errors import ConfigError


class Drawn(NamedTuple):
    """What one step draws for one bank; integers and booleans, without gradient."""

    ids: Int32[Array, "S"]
    """The centers of the step, each once: rows of the bank; unused slots hold the out-of-range id `n_centers`."""
    is_negative: Bool[Array, "S"]
    """Whether the center was drawn from the bank, and so stands against every sample that lacks it among its labels. A
    center that is only some sample's positive says nothing about the others."""
    labels: Int[Array, "B M"]
    """The labels drawn for this step; −1 is missing."""
    all_labels: Int[Array, "B L"]
    """All labels of the samples: none of them may serve as a negative."""


def draw_labels(key: Key[Array, ""], labels: Int[Array, "B L"], m: int) -> Int[Array, "B m"]:
    """`m` of each sample's labels, drawn without replacement; missing ones (−1) come only when no others are left.

    With m = L all labels, in their order. More labels than there are raise ConfigError.
    """
    if m > labels.shape[1]:
        raise ConfigError(
            f"labels_per_step = {m}, but the samples have {labels.shape[1]} labels; lower labels_per_step or make more labels."
        )
    if m == labels.shape[1]:
        return labels
    order = jnp.where(labels < 0, -1.0, jax.random.uniform(key, labels.shape))
    return jnp.take_along_axis(labels, jax.lax.top_k(order, m)[1], axis=1)


def draw_centers(key: Key[Array, ""], n_centers: int, n: int) -> Int32[Array, "n"]:
    """`n` different centers, each center with the same probability n / n_centers.

    The bank, a ring turned by a random angle, is cut into n arcs as equal as can be; one center is drawn from each. This
    costs O(n), whereas a random permutation costs O(n_centers).
    """
    if not 1 <= n <= n_centers:
        raise ConfigError(f"{n} negatives cannot be drawn from a bank of {n_centers} centers; change the share of negatives.")
    key_turn, key_arc = jax.random.split(key)
    width, longer = divmod(n_centers, n)
    arc = jnp.arange(n, dtype=jnp.int32)
    start = arc * width + jnp.minimum(arc, longer)
    within = jax.random.randint(key_arc, (n,), 0, width + (arc < longer), dtype=jnp.int32)
    turn = jax.random.randint(key_turn, (), 0, n_centers, dtype=jnp.int32)
    return (start + within + turn) % n_centers


def candidates(
    key: Key[Array, ""], labels: Int[Array, "B M"], n_centers: int, n_negatives: int
) -> tuple[Int32[Array, "S"], Bool[Array, "S"]]:
    """The unique positives of the batch and `n_negatives` centers drawn from the whole bank: ids, and which were drawn.

    Labels are in −1…n_centers − 1, where −1 is missing. S = B·M + n_negatives, whatever the labels: a center that is both
    positive and drawn occurs once, in the positive's slot, marked as drawn; unused slots hold the id n_centers. Spec §3.
    """
    known = jnp.where(labels < 0, n_centers, labels).astype(jnp.int32).ravel()
    positive = jnp.unique(known, size=known.size, fill_value=n_centers)
    negative = jnp.sort(draw_centers(key, n_centers, n_negatives))
    unique_negative = jnp.where(_is_in(negative, positive), n_centers, negative)
    ids = jnp.concatenate([positive, unique_negative])
    return ids, jnp.concatenate([_is_in(positive, negative), unique_negative < n_centers])


def _is_in(values: Int32[Array, "V"], ascending: Int32[Array, "W"]) -> Bool[Array, "V"]:
    at = jnp.minimum(jnp.searchsorted(ascending, values), ascending.size - 1)
    return ascending[at] == values
