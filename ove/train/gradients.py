"""How large the gradient of each part of the encoder is."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

PARTS = {
    "patch": ("patch", "pre_norm"),
    "blocks": ("blocks",),
    "head": ("post_norm", "pool"),
}
"""Part → the modules of the encoder that it consists of."""


def part_norms(
    squares: dict[str, Any], over_devices: Callable[[Float32[Array, "parts"]], Float32[Array, "parts"]] = lambda parts: parts
) -> dict[str, Float32[Array, ""]]:
    """`grad_norm/patch`, `/blocks`, `/head`, and `/encoder` over all of them, from the sum of squares of each gradient.

    Euclidean norms before clipping. `squares` is nested as the encoder's parameters; `over_devices` adds up what several
    devices hold. The squares of the parts add up to that of the encoder.
    """
    sums = [
        sum(jax.tree.leaves([squares[module] for module in modules if module in squares]), jnp.zeros(()))
        for modules in PARTS.values()
    ]
    parts = over_devices(jnp.stack(sums))
    norms = {f"grad_norm/{part}": jnp.sqrt(parts[i]) for i, part in enumerate(PARTS)}
    return norms | {"grad_norm/encoder": jnp.sqrt(parts.sum())}
