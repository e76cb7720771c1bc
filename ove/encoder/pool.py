"""Pooling of all tokens to one embedding by multi-head attention of a learned probe (MAP)."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float

from ove.encoder.block import Mlp, Norm, linear


class Pool(nnx.Module):
    """a = attention of the probe over the tokens; the embedding is a + MLP(RMSNorm(a)).

    No RoPE and no residual from the probe (spec §1, "Pooling head").
    """

    def __init__(self, width: int, heads: int, mlp: int, norm_eps: float, *, init_std: float, rngs: nnx.Rngs):
        normal = nnx.initializers.normal(init_std)
        self.heads = heads
        self.probe = nnx.Param(jax.random.normal(rngs.params(), (width,), jnp.float32))
        self.q = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.k = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.v = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.norm = Norm(width, "rms_norm", norm_eps)
        self.mlp = Mlp(width, mlp, init_std=init_std, rngs=rngs)

    def __call__(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        a = linear(self.out, self._attend(tokens))
        return a + self.mlp(self.norm(a))

    def _attend(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        # There is one query a head, so keys and values of the tokens are never needed: q·(W_k x) = (q W_k)·x, and the
        # weighted sum of W_v x is W_v times the weighted sum of x. The key bias adds the same number to all scores of a
        # head, which softmax ignores; leaving it out makes its gradient exactly 0 instead of rounding noise.
        dtype = tokens.dtype
        q_AK = rearrange(linear(self.q, self.probe[...].astype(dtype)), "(a k) -> a k", a=self.heads)
        k_DAK = rearrange(self.k.kernel[...].astype(dtype), "d (a k) -> d a k", a=self.heads)
        v_DAK = rearrange(self.v.kernel[...].astype(dtype), "d (a k) -> d a k", a=self.heads)
        query_AD = jnp.einsum("ak,dak->ad", q_AK, k_DAK) * q_AK.shape[-1] ** -0.5
        scores = jnp.einsum("bnd,ad->ban", tokens, query_AD, preferred_element_type=jnp.float32)
        weights = jax.nn.softmax(scores, axis=-1).astype(dtype)
        seen_BAD = jnp.einsum("ban,bnd->bad", weights, tokens)
        mixed = rearrange(jnp.einsum("bad,dak->bak", seen_BAD, v_DAK), "b a k -> b (a k)")
        bias = self.v.bias
        assert bias is not None
        return mixed + bias[...].astype(dtype)
