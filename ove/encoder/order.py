"""Which of two computations that do not need each other comes first."""

import jax
import jax.numpy as jnp
from jaxtyping import Array, Shaped


def after(x: Shaped[Array, "..."], y: Shaped[Array, "..."]) -> Shaped[Array, "..."]:
    """`x`, which whatever uses it gets only once `y` is there; floats of any shapes.

    XLA's CPU backend starts all that it can at once. What is cut out of a stack for later, such as a layer's weights and what
    was kept for its backward pass, then lies about as a copy for as long as the layer takes. With this it waits: a third less
    memory for a training step, in no more time. Elsewhere, and where several devices would have to agree, it is `x` itself.
    """
    if jax.default_backend() != "cpu" or jax.device_count() > 1:
        return x
    # A zero that XLA does not see through, and that is one even if y is not finite. (XLA drops an optimization_barrier before
    # it chooses the order.)
    bits = jax.lax.bitcast_convert_type(y[(0,) * y.ndim].astype(jnp.float32), jnp.uint32)
    return x + ((bits >> 31) >> 1).astype(x.dtype)
