"""From pixels: which patches are taken, where they are in space and time, and what is refused."""

import functools
import logging

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx
from hypothesis import given, settings
from hypothesis import strategies as st

from ove.config import EncoderConfig
from ove.encoder import check, encoder, pixels
from ove.errors import BadInput, OveError
from ove.video import patches as on_host

CONFIG = EncoderConfig(layers=1, width=32, heads=1, mlp=64)
GRID = st.tuples(st.integers(1, 5), st.integers(1, 4), st.integers(1, 4))


@functools.cache
def model() -> encoder.Encoder:
    return nnx.merge(encoder.skeleton(CONFIG)[0], jax.jit(lambda: encoder.init(CONFIG, jax.random.key(0)))())


def video(t: int, y: int, x: int, batch: int = 2, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).integers(0, 256, (batch, t, y * 14, x * 14, 3)).astype(np.uint8)


def chosen(total: int, count: int, batch: int = 2) -> np.ndarray:
    rng = np.random.default_rng(1)
    return np.stack([np.sort(rng.permutation(total)[:count]) for _ in range(batch)]).astype(np.int32)


@settings(max_examples=8, deadline=None)
@given(grid=GRID, share=st.floats(0.01, 1))
def test_the_device_gathers_what_the_host_gathers(grid: tuple[int, int, int], share: float) -> None:
    clips = video(*grid)
    flat = chosen(int(np.prod(grid)), max(1, int(share * np.prod(grid))))
    got = pixels.gather(jnp.asarray(clips), flat)
    assert got.dtype == jnp.uint8
    for sample in range(2):
        np.testing.assert_array_equal(got[sample], on_host.take_patches(clips[sample], flat[sample], 14))
        np.testing.assert_array_equal(pixels.patchify(clips)[sample], on_host.frames_to_patches(clips[sample], 14))


def test_gathering_works_on_floats_and_under_jit() -> None:
    clips = np.random.default_rng(0).normal(size=(2, 3, 28, 42, 3)).astype(np.float32)
    flat = chosen(18, 7)
    expected = np.stack([np.asarray(pixels.patchify(clips))[i, row] for i, row in enumerate(flat)])
    np.testing.assert_array_equal(pixels.tokens_of(clips, flat)[0], expected)
    np.testing.assert_array_equal(jax.jit(pixels.tokens_of)(clips, flat)[0], expected)
    np.testing.assert_array_equal(pixels.tokens_of(clips[:, 0], np.array([5, 0]))[0], pixels.patchify(clips[:, 0])[:, [5, 0]])


def test_only_visible_patches_are_touched() -> None:
    clips = jax.ShapeDtypeStruct((4, 64, 224, 224, 3), jnp.uint8)
    flat = jax.ShapeDtypeStruct((4, 2048), jnp.int32)
    params = jax.eval_shape(lambda: encoder.init(CONFIG, jax.random.key(0)))

    def embed(params, clips, flat):
        return encoder.apply(CONFIG, params, *pixels.tokens_of(clips, flat)).pooled

    gather = pixels.gather.lower(clips, flat).compile().memory_analysis()
    assert gather.temp_size_in_bytes < 4 * 2048 * 588
    # No product and no float array has 16,384 rows: what is not visible is neither normalised nor embedded.
    assert "16384" not in jax.jit(embed).lower(params, clips, flat).as_text()


def test_positions_of_images_and_videos() -> None:
    def times(n_frames: int, **options) -> list[int]:
        return np.asarray(pixels.tokens_of(video(n_frames, 1, 1, batch=1), **options)[1])[0, :, 0].tolist()

    image = pixels.tokens_of(video(1, 2, 3)[:, 0])[1]
    np.testing.assert_array_equal(image, np.broadcast_to(on_host.positions(np.arange(6), (1, 2, 3)), (2, 6, 3)))
    assert times(1) == [0]
    assert times(4) == [0, 21, 42, 63]
    assert times(8) == [0, 9, 18, 27, 36, 45, 54, 63]
    assert times(64) == list(range(64))
    assert times(4, frame_positions=np.array([3, 9, 40, 41])) == [3, 9, 40, 41]
    assert times(4, visible=np.array([[1, 3]])) == [1, 3]
    assert times(4, visible=np.array([[1, 3]]), frame_positions=np.array([[3, 9, 40, 41]])) == [9, 41]
    assert times(2, positions=np.full((2, 3), 5)) == [5, 5]


def test_as_many_indices_as_patches_are_the_places_of_gathered_patches() -> None:
    mosaics = video(2, 2, 2)
    flat = chosen(64 * 4, 8)
    patches, places = pixels.tokens_of(mosaics, flat)
    np.testing.assert_array_equal(patches, pixels.patchify(mosaics))
    for sample in range(2):
        np.testing.assert_array_equal(places[sample], on_host.positions(flat[sample], (64, 2, 2)))


def test_from_pixels_is_the_encoder_on_gathered_patches() -> None:
    clips, flat = video(64, 2, 2), chosen(256, 40)
    got = model().from_pixels(clips, flat)
    places = np.stack([on_host.positions(row, (64, 2, 2)) for row in flat])
    expected = model()(np.stack([on_host.take_patches(c, f, 14) for c, f in zip(clips, flat, strict=True)]), places)
    np.testing.assert_array_equal(got.pooled, expected.pooled)
    traced = jax.eval_shape(lambda clips, flat: model().from_pixels(clips, flat).pooled, clips, flat)
    assert traced.shape == got.pooled.shape
    for a, b in zip(pixels.tokens_of(clips, np.arange(256)), pixels.tokens_of(clips), strict=True):
        np.testing.assert_array_equal(a, b)
    normalised = (clips / 255 - np.array(encoder.MEAN_RGB)) / np.array(encoder.STD_RGB)
    np.testing.assert_allclose(model().from_pixels(normalised, flat).pooled, got.pooled, atol=1e-4)


IMAGES = video(1, 2, 3)[:, 0]
FLOATS = np.random.default_rng(0).normal(size=IMAGES.shape).astype(np.float32)


@pytest.mark.parametrize(
    ("given", "options", "message"),
    [
        (IMAGES[:, :27], {}, r"27×42 .*14 must divide both sides. Resize or crop, for example to 28×42"),
        (IMAGES[:, :5, :], {}, "for example to 14×42"),
        (np.moveaxis(IMAGES, -1, 1), {}, r"\(2, 3, 28, 42\).*channels-first: np.moveaxis\(pixels, 1, -1\)"),
        (np.moveaxis(video(4, 2, 3), -1, 1), {}, r"channels-first: np.moveaxis\(pixels, 1, -1\)"),
        (np.moveaxis(video(4, 2, 3), -1, 2), {}, r"channels-first: np.moveaxis\(pixels, 2, -1\)"),
        (IMAGES[..., :1], {}, "channels last, RGB"),
        (IMAGES[0], {}, r"batch axis: pixels\[None\]"),
        (IMAGES[:0], {}, "at least one sample"),
        (IMAGES.astype(np.int32), {}, "dtype int32: uint8.*astype"),
        (IMAGES.astype(np.float32), {}, "float pixels between 0 and 255: normalised ones are expected"),
        (IMAGES.astype(np.float32) // 16, {}, "float pixels between 0 and 15"),
        (FLOATS * 100, {}, "normalised ones are expected"),
        (np.where(np.arange(42)[:, None] == 30, np.nan, FLOATS), {}, "NaN or inf"),
        (np.where(np.arange(42)[:, None] == 30, np.inf, FLOATS), {}, "NaN or inf"),
        (IMAGES, {"visible": np.array([0, 6])}, r"index 6 of sample 0 is out of range: 0 … 5"),
        (IMAGES, {"visible": np.array([[0, 1], [-1, 2]])}, "index -1 of sample 1"),
        (IMAGES, {"visible": np.array([[0, 1], [2, 2]])}, "index 2 occurs 2 times in sample 1"),
        (IMAGES, {"visible": np.array([0, 1, 2, 3, 4, 64 * 6])}, "index 384 .*out of range: 0 … 383"),
        (IMAGES, {"visible": np.arange(7)}, "7 visible indices, but only 6"),
        (IMAGES, {"visible": np.zeros((2, 0), np.int32)}, "at least one token"),
        (IMAGES, {"visible": np.zeros((3, 2), np.int32)}, r"shape \(3, 2\): \(2, tokens\)"),
        (IMAGES, {"visible": np.array(3)}, r"shape \(\)"),
        (IMAGES, {"visible": np.array([True] * 6)}, "dtype bool.*flatnonzero"),
        (IMAGES, {"positions": np.zeros((2, 5, 3), np.int32)}, r"\(2, 5, 3\): \(2, 6, 3\) is expected"),
        (IMAGES, {"positions": np.zeros((2, 3, 6), np.int32)}, "coordinate .t, y, x. is the last axis"),
        (IMAGES, {"positions": np.zeros(6, np.int32)}, r"\(6,\): \(2, 6, 3\) is expected"),
        (IMAGES, {"positions": np.zeros((2, 6, 3), complex)}, "dtype complex128"),
        (IMAGES, {"positions": np.full((2, 6, 3), -1)}, "negative or non-finite"),
        (IMAGES, {"positions": np.full((2, 6, 3), np.nan)}, "negative or non-finite"),
        (video(3, 1, 1), {"frame_positions": np.arange(4)}, r"frame_positions of shape \(4,\): \(3,\) or \(2, 3\)"),
        (video(3, 1, 1), {"frame_positions": np.arange(3), "visible": np.arange(3)}, "give positions instead"),
        (video(3, 1, 1), {"frame_positions": np.array([0, -2, 3])}, "negative"),
    ],
)
def test_what_cannot_be_encoded_is_refused_with_the_remedy(given: np.ndarray, options: dict, message: str) -> None:
    with pytest.raises(BadInput, match=message) as error:
        model().from_pixels(given, **options)
    assert isinstance(error.value, ValueError) and isinstance(error.value, OveError)


@pytest.mark.parametrize(
    ("patches", "positions", "message"),
    [
        (np.zeros((2, 6, 588), np.uint8), np.zeros((2, 5, 3), np.int32), r"positions of shape \(2, 5, 3\)"),
        (np.zeros((2, 6, 587), np.uint8), np.zeros((2, 6, 3), np.int32), r"\(2, 6, 587\).*588"),
        (np.zeros((6, 588), np.uint8), np.zeros((6, 3), np.int32), r"\(6, 588\).*batch, tokens, 588"),
        (np.zeros((2, 0, 588), np.uint8), np.zeros((2, 0, 3), np.int32), "at least one sample and one token"),
        (np.zeros((2, 6, 588), bool), np.zeros((2, 6, 3), np.int32), "patches of dtype bool"),
        (np.zeros((2, 6, 588), np.uint8), np.zeros((2, 6, 3), bool), "positions of dtype bool"),
    ],
)
def test_shapes_and_dtypes_are_refused_under_jit_too(patches: np.ndarray, positions: np.ndarray, message: str) -> None:
    for call in (model(), jax.jit(lambda *xs: model()(*xs).pooled)):
        with pytest.raises(BadInput, match=message):
            call(patches, positions)


def test_pixels_between_0_and_1_are_taken_with_a_warning_once(caplog: pytest.LogCaptureFixture) -> None:
    check._warn_of_unit_range.cache_clear()
    with caplog.at_level(logging.WARNING, "ove.encoder.check"):
        for _ in range(2):
            model().from_pixels((IMAGES / 255).astype(np.float32))
        model().from_pixels(np.zeros_like(FLOATS))
    assert [record.getMessage()[:30] for record in caplog.records] == ["float pixels between 0 and 1 w"]
