"""Pooling of all tokens to one embedding by multi-head attention of a learned probe (MAP)."""

import jax
import jax.numpy as jnp
from einops import rearrange
from flax import nnx
from jaxtyping import Array, Float, Int

from ove.encoder.block import Mlp, Norm, linear

MASKED = -1e30
"""Score of tokens outside a segment; finite, so that a segment without tokens gives no NaN."""


class Pool(nnx.Module):
    """a = attention of the probe over the tokens; the embedding is a + MLP(RMSNorm(a)), projected if a length is given.

    No RoPE and no residual from the probe (spec §1, "Pooling head"; the projection is W of the paper's eq. 6).
    """

    def __init__(
        self, width: int, heads: int, mlp: int, norm_eps: float, *, embedding: int = 0, init_std: float, rngs: nnx.Rngs
    ):
        normal = nnx.initializers.normal(init_std)
        self.heads = heads
        self.probe = nnx.Param(jax.random.normal(rngs.params(), (width,), jnp.float32))
        self.q = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.k = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.v = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.out = nnx.Linear(width, width, kernel_init=normal, rngs=rngs)
        self.norm = Norm(width, "rms_norm", norm_eps)
        self.mlp = Mlp(width, mlp, init_std=init_std, rngs=rngs)
        self.projects = embedding > 0
        if self.projects:
            self.project = nnx.Linear(width, embedding, use_bias=False, kernel_init=normal, rngs=rngs)

    def __call__(
        self, tokens: Float[Array, "B N D"], segment_ids: Int[Array, "B N"] | None = None, n_segments: int = 0
    ) -> Float[Array, "B E"] | Float[Array, "B {n_segments} E"]:
        """Returns one embedding a row; with `segment_ids` one for each of the segments 1 … n_segments of a row.

        The embedding of a segment that a row does not have is finite and means nothing.
        """
        seen = self._attend(tokens) if segment_ids is None else self._attend_within(tokens, segment_ids, n_segments)
        a = linear(self.out, seen)
        pooled = a + self.mlp(self.norm(a))
        return linear(self.project, pooled) if self.projects else pooled

    def _scores(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B A N"]:
        # There is one query a head, so keys of the tokens are never needed: q·(W_k x) = (q W_k)·x. The key bias adds the
        # same number to all scores of a head, which softmax ignores; leaving it out makes its gradient exactly 0 instead
        # of rounding noise.
        dtype = tokens.dtype
        q_AK = rearrange(linear(self.q, self.probe[...].astype(dtype)), "(a k) -> a k", a=self.heads)
        k_DAK = rearrange(self.k.kernel[...].astype(dtype), "d (a k) -> d a k", a=self.heads)
        query_AD = jnp.einsum("ak,dak->ad", q_AK, k_DAK) * q_AK.shape[-1] ** -0.5
        return jnp.einsum("bnd,ad->ban", tokens, query_AD, preferred_element_type=jnp.float32)

    def _attend(self, tokens: Float[Array, "B N D"]) -> Float[Array, "B D"]:
        # Nor are values of the tokens: the weighted sum of W_v x is W_v times the weighted sum of x.
        dtype = tokens.dtype
        weights = jax.nn.softmax(self._scores(tokens), axis=-1).astype(dtype)
        v_DAK = rearrange(self.v.kernel[...].astype(dtype), "d (a k) -> d a k", a=self.heads)
        seen_BAD = jnp.einsum("ban,bnd->bad", weights, tokens)
        mixed = rearrange(jnp.einsum("bad,dak->bak", seen_BAD, v_DAK), "b a k -> b (a k)")
        bias = self.v.bias
        assert bias is not None
        return mixed + bias[...].astype(dtype)

    def _attend_within(
        self, tokens: Float[Array, "B N D"], segment_ids: Int[Array, "B N"], n_segments: int
    ) -> Float[Array, "B S D"]:
        # Here the values are computed: weighted sums of x itself would be one row of D a segment and head. Each token
        # belongs to one segment, so that all sums are one product with the membership, whatever the number of heads.
        member_BSN = segment_ids[:, None, :] == 1 + jnp.arange(n_segments)[:, None]
        scores = self._scores(tokens)
        top_BSA = jnp.where(member_BSN[:, :, None], scores[:, None], MASKED).max(-1)
        place = jnp.clip(segment_ids - 1, 0, n_segments - 1)
        top = jnp.take_along_axis(rearrange(jax.lax.stop_gradient(top_BSA), "b s a -> b a s"), place[:, None], axis=-1)
        # Padding is counted nowhere, but its exponential could overflow to inf, and inf · 0 is NaN.
        weights_BAN = jnp.exp(jnp.where(member_BSN.any(1)[:, None], scores - top, 0))
        members = member_BSN.astype(jnp.float32)
        total_BSA = jnp.einsum("bsn,ban->bsa", members, weights_BAN, precision="highest")
        v = rearrange(linear(self.v, tokens), "b n (a k) -> b n a k", a=self.heads)
        weighted = v * rearrange(weights_BAN, "b a n -> b n a 1").astype(v.dtype)
        mixed = jnp.einsum("bsn,bnak->bsak", member_BSN.astype(v.dtype), weighted, preferred_element_type=jnp.float32)
        mixed = mixed / jnp.where(total_BSA > 0, total_BSA, 1)[..., None]
        return rearrange(mixed, "b s a k -> b s (a k)").astype(tokens.dtype)
