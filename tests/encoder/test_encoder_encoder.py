"""The encoder as a whole: sizes, laws, and ways to run it that must not matter."""

import dataclasses
import re
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from einops import rearrange
from flax import nnx

from ove.config import EncoderConfig
from ove.encoder import block, encoder
from ove.encoder.pool import Pool
from ove.encoder.presets import PRESETS, preset
from ove.errors import ConfigError

CONFIG = EncoderConfig(layers=3, width=64, heads=2, mlp=128)


def batch(n: int = 24) -> tuple[jax.Array, jax.Array]:
    rng = np.random.default_rng(0)
    patches = rng.integers(0, 256, (2, n, CONFIG.patch_values)).astype(np.uint8)
    return jnp.array(patches), jnp.array(rng.integers(0, 16, (2, n, 3)).astype(np.int32))


apply = jax.jit(encoder.apply, static_argnums=0, static_argnames="return_hidden_states")


@pytest.fixture(scope="module")
def params() -> encoder.Params:
    """Fresh parameters, but with queries and keys so large that attention is far from even and positions matter."""
    fresh = jax.jit(lambda: encoder.init(CONFIG, jax.random.key(0)))()
    fresh["blocks"]["attention"]["qkv"]["kernel"] *= 10
    return fresh


class Step(NamedTuple):
    """Loss and gradients on 256 tokens, and the memory that computing them takes beside inputs and results."""

    result: tuple[jax.Array, encoder.Params]
    temporary_bytes: int


def step(config: EncoderConfig, params: encoder.Params) -> Step:
    def loss_of(params: encoder.Params) -> jax.Array:
        pooled = encoder.apply(config, params, *batch(256)).pooled
        return (pooled * jnp.arange(pooled.size).reshape(pooled.shape)).mean()

    compiled = jax.jit(jax.value_and_grad(loss_of)).lower(params).compile()
    return Step(compiled(params), compiled.memory_analysis().temp_size_in_bytes)


@pytest.fixture(scope="module")
def plain(params: encoder.Params) -> Step:
    return step(CONFIG, params)


def test_the_large_preset_is_as_large_as_the_published_model() -> None:
    shapes = jax.eval_shape(lambda: encoder.init(preset("large"), jax.random.key(0)))
    assert sum(leaf.size for leaf in jax.tree.leaves(shapes)) == 315_509_760
    assert all(config.head_width == 64 for config in PRESETS.values())


def test_unknown_presets_and_fields_name_the_nearest() -> None:
    assert preset("tiny", rope="released").rope == "released"
    with pytest.raises(ConfigError, match=r"unknown encoder preset 'tinny'; did you mean 'tiny'\?"):
        preset("tinny")
    with pytest.raises(ConfigError, match=r"unknown encoder field 'layer'.*did you mean 'layers'\?"):
        preset("tiny", layer=3)


def test_a_permutation_of_tokens_with_their_positions_leaves_the_embedding(params: encoder.Params) -> None:
    patches, positions = batch()
    order = np.random.default_rng(1).permutation(patches.shape[1])
    before = apply(CONFIG, params, patches, positions)
    after = apply(CONFIG, params, patches[:, order], positions[:, order])
    np.testing.assert_allclose(after.pooled, before.pooled, atol=1e-5)
    np.testing.assert_allclose(after.tokens, before.tokens[:, order], atol=1e-5)
    moved = apply(CONFIG, params, patches[:, order], positions)
    assert np.abs(np.asarray(moved.pooled - before.pooled)).max() > 1e-4


def test_only_paired_positions_may_be_shifted(params: encoder.Params) -> None:
    patches, positions = batch()
    for rope, moves in (("interleaved", False), ("released", True)):
        config = dataclasses.replace(CONFIG, rope=rope)
        here, there = (
            apply(config, params, patches, places).pooled for places in (positions, positions + jnp.array([5, 3, 2]))
        )
        error = np.abs(np.asarray(here - there)).max()
        assert error > 1e-3 if moves else error < 1e-5


def test_the_scan_over_layers_equals_layer_after_layer(params: encoder.Params) -> None:
    patches, positions = batch()
    seen = apply(CONFIG, params, patches, positions, return_hidden_states=True)

    @jax.jit
    def one_by_one(params: encoder.Params) -> tuple[list[jax.Array], jax.Array]:
        model = nnx.merge(encoder.skeleton(CONFIG)[0], params)
        turns = encoder.angles(positions, CONFIG.head_width, CONFIG.rope_theta, CONFIG.rope)[:, None]
        x = model.pre_norm(block.linear(model.patch, encoder.normalise(patches)))
        states = [x]
        definition, layers = nnx.split(model.blocks)
        for i in range(CONFIG.layers):
            layer = nnx.merge(definition, jax.tree.map(lambda leaf, i=i: leaf[i], layers))
            states.append(layer(states[-1], jnp.cos(turns), jnp.sin(turns)))
        return states, model.post_norm(states[-1])

    states, tokens = one_by_one(params)
    np.testing.assert_allclose(seen.hidden.after_pre_norm, states[0], atol=1e-5)
    np.testing.assert_allclose(seen.hidden.before_post_norm, jnp.stack(states[1:]), atol=1e-5)
    np.testing.assert_allclose(seen.tokens, tokens, atol=1e-5)
    assert apply(CONFIG, params, patches, positions).hidden is None


def test_called_directly_the_encoder_is_compiled_once(params: encoder.Params, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = apply(CONFIG, params, *batch())
    first, second = (nnx.merge(encoder.skeleton(CONFIG)[0], params) for _ in range(2))
    np.testing.assert_allclose(first(*batch()).pooled, expected.pooled, atol=1e-6)
    np.testing.assert_allclose(nnx.jit(lambda model, *xs: model(*xs).pooled)(first, *batch()), expected.pooled, atol=1e-5)
    monkeypatch.setattr(encoder.Encoder, "_encode", lambda *given: pytest.fail("traced again"))
    np.testing.assert_allclose(second(*batch()).pooled, expected.pooled, atol=1e-6)


def gradient_program(config: EncoderConfig, n: int) -> jax.stages.Lowered:
    """The gradient of the encoder for one row of `n` tokens, not compiled."""
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    patches = jax.ShapeDtypeStruct((1, n, config.patch_values), jnp.uint8)
    positions = jax.ShapeDtypeStruct((1, n, 3), jnp.int32)
    return jax.jit(jax.grad(lambda *xs: encoder.apply(config, *xs).pooled.sum())).lower(params, patches, positions)


def test_the_program_does_not_grow_with_layers_nor_keeps_scores() -> None:
    # Of 24 layers as long as of 2, therefore compiled in seconds.
    few, many = (gradient_program(preset("large", layers=layers, remat="dots"), 512).as_text() for layers in (2, 24))
    assert len(many) < 1.02 * len(few)
    # Nothing of a layer that is kept for the backward pass has the size of the scores.
    assert "24x1x16x512x64xf32" in many
    assert not re.search(r"24x(\d+x)*512x(1x)?512x", many)


def test_what_is_recomputed_changes_memory_but_not_gradients(params: encoder.Params, plain: Step) -> None:
    steps = [plain, *(step(dataclasses.replace(CONFIG, remat=remat), params) for remat in ("dots", "full"))]
    for other in steps[1:]:
        jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), other.result, plain.result)
    none, dots, full = (other.temporary_bytes for other in steps)
    assert none > dots > full


def test_the_implementation_of_attention_does_not_change_gradients(params: encoder.Params, plain: Step) -> None:
    got = step(dataclasses.replace(CONFIG, attention="reference"), params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), got.result, plain.result)
    assert got.temporary_bytes > plain.temporary_bytes


def test_parameters_start_as_specified() -> None:
    config = dataclasses.replace(CONFIG, width=256, heads=4, mlp=512)
    big = jax.jit(lambda: encoder.init(config, jax.random.key(1)))()
    for path, leaf in jax.tree_util.tree_leaves_with_path(big):
        name = path[-1].key
        if name == "bias":
            assert np.all(np.asarray(leaf) == 0)
        elif name == "scale":
            assert np.all(np.asarray(leaf) == 1)
        else:
            np.testing.assert_allclose(np.std(leaf), 1.0 if name == "probe" else 0.02, rtol=0.15)
        assert leaf.dtype == jnp.float32
    kernels = np.asarray(big["blocks"]["mlp"]["fc1"]["kernel"])
    assert np.abs(kernels[0] - kernels[1]).max() > 0.01


def test_without_a_head_tokens_are_the_last_hidden_state() -> None:
    config = dataclasses.replace(CONFIG, pooling_head=False, norm="rms_norm")
    params = jax.jit(lambda: encoder.init(config, jax.random.key(0)))()
    seen = apply(config, params, *batch(), return_hidden_states=True)
    assert seen.pooled is None
    assert "post_norm" not in params and "bias" not in params["pre_norm"]
    np.testing.assert_array_equal(seen.tokens, seen.hidden.before_post_norm[-1])


def test_bfloat16_activations_stay_near_float32(params: encoder.Params) -> None:
    seen = apply(dataclasses.replace(CONFIG, compute="bfloat16"), params, *batch())
    expected = apply(CONFIG, params, *batch())
    assert seen.tokens.dtype == seen.pooled.dtype == jnp.bfloat16
    np.testing.assert_allclose(seen.tokens.astype(jnp.float32), expected.tokens, atol=0.1)


def test_pooling_is_attention_of_the_probe_over_keys_and_values(params: encoder.Params) -> None:
    pool = nnx.merge(encoder.skeleton(CONFIG)[0], params).pool
    noise = jax.tree.map(lambda leaf: leaf + 0.2 * jax.random.normal(jax.random.key(1), leaf.shape), nnx.state(pool))
    definition = nnx.graphdef(pool)
    tokens = jax.random.normal(jax.random.key(2), (2, 24, CONFIG.width))

    def by_the_book(pool: Pool, tokens: jax.Array) -> jax.Array:
        def heads(layer: nnx.Linear, x: jax.Array) -> jax.Array:
            return rearrange(block.linear(layer, x), "b n (a k) -> b n a k", a=CONFIG.heads)

        probe = jnp.broadcast_to(pool.probe[...], (2, 1, CONFIG.width))
        mixed = jax.nn.dot_product_attention(heads(pool.q, probe), heads(pool.k, tokens), heads(pool.v, tokens))
        a = block.linear(pool.out, rearrange(mixed, "b 1 a k -> b (a k)"))
        normed = a / jnp.sqrt((a**2).mean(-1, keepdims=True) + CONFIG.norm_eps) * pool.norm.scale[...]
        hidden = jax.nn.gelu(block.linear(pool.mlp.fc1, normed), approximate=False)
        return a + block.linear(pool.mlp.fc2, hidden)

    @jax.jit
    def both(noise: nnx.State, tokens: jax.Array) -> tuple[jax.Array, jax.Array]:
        pool = nnx.merge(definition, noise)
        return pool(tokens), by_the_book(pool, tokens)

    np.testing.assert_allclose(*both(noise, tokens), rtol=1e-4, atol=1e-4)


def test_pixels_are_normalised_per_colour() -> None:
    white = jnp.full((1, 1, CONFIG.patch_values), 255, jnp.uint8)
    expected = (1 - np.array(encoder.MEAN_RGB)) / np.array(encoder.STD_RGB)
    np.testing.assert_allclose(encoder.normalise(white)[0, 0, :3], expected, rtol=1e-5)
    np.testing.assert_allclose(encoder.normalise(white)[0, 0, -3:], expected, rtol=1e-5)
