"""How large the gradient of each part of the encoder is."""

from typing import Any

import jax.numpy as jnp
import optax
from jaxtyping import Array, Float32

PARTS = {
    "patch": ("patch", "pre_norm"),
    "blocks": ("blocks",),
    "head": ("post_norm", "pool"),
}
"""Part → the modules of the encoder that it consists of."""


def part_norms(grads: dict[str, Any]) -> dict[str, Float32[Array, ""]]:
    """`grad_norm/patch`, `/blocks`, `/head`, and `/encoder` over all of them, from the gradients of the encoder's parameters.

    Euclidean norms before clipping. The squares of the parts add up to that of the encoder.
    """
    norms = {
        f"grad_norm/{part}": optax.tree.norm([grads[module] for module in modules if module in grads])
        for part, modules in PARTS.items()
    }
    whole = jnp.sqrt(sum(jnp.square(norm) for norm in norms.values()))
    return norms | {"grad_norm/encoder": whole}
