"""The encoder: patches and their positions to tokens and one embedding."""

import functools
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from flax import nnx
from jaxtyping import Array, Float, Key, UInt8

from ove.config import EncoderConfig
from ove.encoder.attention_gpu import CUDNN_FORWARD
from ove.encoder.block import Block, Norm, linear
from ove.encoder.check import Given, check_tokens, check_values, count_segments, is_traced, summarise
from ove.encoder.pixels import tokens_of
from ove.encoder.pool import Pool
from ove.encoder.rope3d import angles
from ove.records import MEAN_RGB, STD_RGB

Params = dict[str, Any]
"""Nested dictionary of float32 arrays; those of `blocks` have the layers as their first axis."""
Fetch = Callable[[Params], Params]
"""Makes the parameters of one layer whole where each device keeps but a piece of them; see `apply`."""


class Hidden(NamedTuple):
    """What the layers put out, named by the norms before and after."""

    after_pre_norm: Float[Array, "B N D"]
    """What goes into the first block."""
    before_post_norm: Float[Array, "layers B N D"]
    """Output of each block, no norm applied: [0] is that of the first (`hidden_states[1]` of the published code)."""


class Encoded(NamedTuple):
    """What the encoder makes of a batch. Of padding it makes finite numbers that mean nothing."""

    tokens: Float[Array, "B N D"]
    """After the last norm (post_norm); without a head there is none, and these are the last block's output."""
    pooled: Float[Array, "B E"] | Float[Array, "B S E"] | None
    """The embedding of each row; with segment ids, of each of its segments 1 … S (finite but meaningless for segments that a
    row does not have). None if the encoder has no head."""
    hidden: Hidden | None
    """With `return_hidden_states`."""


class Encoder(nnx.Module):
    """A vision transformer over a set of patches (spec §1); the order of the tokens carries no meaning."""

    origin: object | None = None
    """What `ove.encoder.published.load` keeps of the file that the parameters came from."""

    def __init__(self, config: EncoderConfig, *, rngs: nnx.Rngs):
        self.config = config
        normal = nnx.initializers.normal(config.init_std)
        self.patch = nnx.Linear(config.patch_values, config.width, use_bias=False, kernel_init=normal, rngs=rngs)
        self.pre_norm = Norm(config.width, config.norm, config.norm_eps)

        @nnx.split_rngs(splits=config.layers)
        @nnx.vmap(in_axes=(0,), out_axes=0)
        def stack(rngs: nnx.Rngs) -> Block:
            return Block(config, rngs=rngs)

        self.blocks = stack(rngs)
        if config.pooling_head:
            self.post_norm = Norm(config.width, config.norm, config.norm_eps)
            sizes = config.width, config.heads, config.mlp, config.norm_eps
            self.pool = Pool(*sizes, embedding=config.embedding, init_std=config.init_std, rngs=rngs)

    def __call__(
        self,
        patches: Given,
        positions: Given,
        segment_ids: Given | None = None,
        *,
        n_segments: int | None = None,
        return_hidden_states: bool = False,
    ) -> Encoded:
        """Patches (B, N, P) and their (t, y, x), (B, N, 3), to tokens and embeddings in the compute dtype.

        Patches are bytes, which are normalised here, or floats that are normalised already. `segment_ids` (B, N) packs several
        inputs into one row: 0 is padding, 1 … S the segments; attention and pooling stay inside a segment. `n_segments` is S,
        under jit a static number; without it the largest id is taken (each other S is compiled anew). BadInput says what
        cannot be encoded; values are checked where they are known, not under jit.
        """
        check_tokens(patches, positions, segment_ids, self.config.patch_values)
        n_segments = count_segments(segment_ids, n_segments) if self.config.pooling_head else n_segments
        patches, positions = jnp.asarray(patches), jnp.asarray(positions)  # once to the device, for two programs
        # Dispatched before the encoder, read after it: a device that works on its own does not stand idle for the checks.
        known = not is_traced(patches, positions, segment_ids)
        summary = summarise(patches, positions, segment_ids) if known else None
        encode = functools.partial(_encode, n_segments=n_segments, hidden=return_hidden_states)
        encoded = encode(*nnx.split(self), patches, positions, segment_ids)
        if summary is not None:
            check_values(summary, n_segments)
        return encoded

    def from_pixels(
        self,
        pixels: Given,
        visible: Given | None = None,
        positions: Given | None = None,
        frame_positions: Given | None = None,
        *,
        return_hidden_states: bool = False,
    ) -> Encoded:
        """Images (B, H, W, 3) or videos (B, T, H, W, 3) to tokens and embeddings; 14 must divide height and width.

        Pixels are bytes, or floats that are normalised already. Of `visible` patches only those are gathered and embedded.
        Where patches are in space and time, and what `visible`, `positions` and `frame_positions` may be: `tokens_of`.
        """
        tokens = tokens_of(pixels, visible, positions, frame_positions, self.config.patch_px)
        return self(*tokens, return_hidden_states=return_hidden_states)

    def _encode(
        self,
        patches: Array,
        positions: Array,
        segment_ids: Array | None,
        n_segments: int,
        hidden: bool,
        fetch: Fetch | None = None,
    ) -> Encoded:
        config = self.config
        dtype = jnp.dtype(config.compute)
        if segment_ids is not None:
            # Whatever lies in the padding, NaN included, reaches neither results nor gradients.
            real = (segment_ids > 0)[..., None]
            patches, positions = jnp.where(real, patches, 0), jnp.where(real, positions, 0)
        if patches.dtype == jnp.uint8:
            patches = normalise(patches)
        turns = angles(positions, config.head_width, config.rope_theta, config.rope)[:, None]
        cos, sin = jnp.cos(turns).astype(dtype), jnp.sin(turns).astype(dtype)
        start = self.pre_norm(linear(self.patch, patches.astype(dtype)))

        graphdef, layers = nnx.split(self.blocks)

        def body(x: Array, layer: Any) -> tuple[Array, Array | None]:
            if fetch is not None:
                layer = fetch(nnx.to_pure_dict(layer))
            x = nnx.merge(graphdef, layer)(x, cos, sin, segment_ids)
            return x, (x if hidden else None)

        x, seen = jax.lax.scan(_remat(body, config.remat), start, layers)
        between = Hidden(start, seen) if hidden else None
        if not config.pooling_head:
            return Encoded(x, None, between)
        x = self.post_norm(x)
        return Encoded(x, self.pool(x, segment_ids, n_segments), between)


@functools.partial(jax.jit, static_argnums=0, static_argnames=("n_segments", "hidden", "fetch"), inline=True)
def _encode(
    graphdef: Any,
    state: Any,
    patches: Array,
    positions: Array,
    segment_ids: Array | None,
    *,
    n_segments: int | None,
    hidden: bool,
    fetch: Fetch | None = None,
) -> Encoded:
    # One program for all calls of one model and shape; called directly, the scan over layers would be compiled each time.
    return nnx.merge(graphdef, state)._encode(patches, positions, segment_ids, n_segments or 0, hidden, fetch)


def normalise(patches: UInt8[Array, "B N P"]) -> Float[Array, "B N P"]:
    """Converts flattened RGB patches of bytes to float32, standardised by mean and deviation of natural images (spec §4)."""
    n_pixels = patches.shape[-1] // 3
    scale = 1 / (255 * jnp.tile(jnp.array(STD_RGB, jnp.float32), n_pixels))
    shift = jnp.tile(jnp.array(MEAN_RGB, jnp.float32) / jnp.array(STD_RGB, jnp.float32), n_pixels)
    return patches.astype(jnp.float32) * scale - shift


def init(config: EncoderConfig, key: Key[Array, ""]) -> Params:
    """Initialises float32 parameters of the encoder; works under jit and eval_shape.

    Kernels N(0, config.init_std), probe N(0, 1), biases 0, norms 1 (spec §1).
    """
    return nnx.to_pure_dict(nnx.state(Encoder(config, rngs=nnx.Rngs(params=key)), nnx.Param))


def apply(
    config: EncoderConfig,
    params: Params,
    patches: Given,
    positions: Given,
    segment_ids: Given | None = None,
    *,
    n_segments: int | None = None,
    return_hidden_states: bool = False,
    fetch: Fetch | None = None,
) -> Encoded:
    """As calling the encoder that has the parameters which `init` gives; values are not checked (for training).

    `fetch`, a hashable function, is given the parameters of one layer after the other, as they are nested in `params["blocks"]`
    but without the axis of the layers, and returns those to compute with; the backward pass fetches them again.
    """
    check_tokens(patches, positions, segment_ids, config.patch_values)
    n_segments = count_segments(segment_ids, n_segments) if config.pooling_head else n_segments
    encode = functools.partial(_encode, n_segments=n_segments, hidden=return_hidden_states, fetch=fetch)
    return encode(skeleton(config)[0], params, patches, positions, segment_ids)


@functools.lru_cache(maxsize=16)
def skeleton(config: EncoderConfig) -> tuple[nnx.GraphDef[Encoder], Params]:
    """Returns the encoder without parameters (a graph definition to merge them with) and their shapes as ShapeDtypeStructs."""
    model = nnx.eval_shape(lambda: Encoder(config, rngs=nnx.Rngs(params=jax.random.key(0))))
    return nnx.split(model, nnx.Param, ...)[0], nnx.to_pure_dict(nnx.state(model, nnx.Param))


def _remat(body: Any, mode: str) -> Any:
    """Wraps `body` so that its backward pass keeps the input of each layer and what the mode says, and recomputes the rest.

    `none`: what attention needs (queries, keys, values, its result, the logarithm of its denominator), the residual stream
    between attention and MLP and the hidden values before the GELU. Norms and GELU cost less to compute again than their
    results cost to store: the tiny encoder takes 11 % less time and half the memory (N = 512, CPU). `dots`: what attention
    needs. `full`: nothing. Scores, and parameters that were fetched, are never kept.
    """
    names = {"none": ("attention", "residual", "mlp"), "dots": ("attention",), "full": ()}[mode]
    named = jax.checkpoint_policies.save_only_these_names(*names)

    def keep(primitive: Any, *arrays: Any, **options: Any) -> Any:
        # The results of cuDNN, which names nothing.
        return (bool(names) and primitive.name == CUDNN_FORWARD) or named(primitive, *arrays, **options)

    # Without the barriers of prevent_cse, which a scan does not need.
    return jax.checkpoint(body, policy=keep, prevent_cse=False)
