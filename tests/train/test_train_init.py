"""What a new run begins with: the encoder of another run or of a published folder, and centers from files."""

import dataclasses
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import published_files
import pytest
from synthetic import CENTERS
from tiny_run import STEPS, batch, config_of, replace_encoder, state_on

from ove.centers.shuffle import row_of
from ove.config import RunConfig
from ove.encoder import encoder
from ove.encoder.encoder import Params, normalise
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.init_from import load_encoder
from ove.train.loop import train


@pytest.fixture(scope="module")
def trained(trained_run: Path, shard_folder: Path) -> Params:
    """The encoder of `trained_run`, from the whole state."""
    _, abstract, shardings = state_on(config_of(shard_folder), 8)
    checkpoints = Checkpoints(trained_run, keep=2)
    state = checkpoints.restore(STEPS, checkpoints.meta(STEPS), abstract, shardings)
    checkpoints.close()
    return jax.device_get(state.params)


def assert_equal(found: Params, expected: Params) -> None:
    assert jax.tree.structure(found) == jax.tree.structure(expected)
    for (path, a), b in zip(jax.tree_util.tree_flatten_with_path(found)[0], jax.tree.leaves(expected), strict=True):
        np.testing.assert_array_equal(a, b, jax.tree_util.keystr(path))


def test_the_encoder_of_a_run_is_taken_and_nothing_else(trained_run: Path, trained: Params) -> None:
    config = config_of(Path(), init_from=str(trained_run), seed=5)
    fresh, _, shardings = state_on(config, 2)
    state = load_encoder(fresh, config, shardings)
    assert_equal(state.params, trained)
    assert (np.asarray(fresh.params["patch"]["kernel"]) != trained["patch"]["kernel"]).all()
    for part in ("step", "banks", "opt_state", "rng", "recent_losses"):
        assert getattr(state, part) is getattr(fresh, part), part
    assert jax.tree.map(lambda leaf: leaf.sharding, state.params) == shardings.params


def test_a_projection_is_taken_only_where_it_fits(trained_run: Path, trained: Params) -> None:
    config = replace_encoder(config_of(Path(), init_from=str(trained_run)), embedding=32)
    fresh, _, shardings = state_on(config, 1)
    state = load_encoder(fresh, config, shardings)
    projection = state.params["pool"].pop("project")
    np.testing.assert_array_equal(projection["kernel"], fresh.params["pool"]["project"]["kernel"])
    assert_equal(state.params, trained)


def test_a_published_encoder_computes_in_a_run_what_the_format_says(tmp_path: Path) -> None:
    sizes, tensors = published_files.CONFIG, published_files.random_tensors(published_files.CONFIG)
    published_files.write_folder(tmp_path, tensors)
    config = replace_encoder(config_of(Path(), init_from=str(tmp_path)), mlp=sizes["intermediate_size"], rope="released")
    fresh, _, shardings = state_on(config, 2)
    state, seen = load_encoder(fresh, config, shardings), batch(0)["vid"]
    found = encoder.apply(config.encoder, jax.device_get(state.params), seen["patches"], seen["positions"]).pooled
    patches, positions = np.asarray(normalise(seen["patches"]), np.float64), np.asarray(seen["positions"])
    expected = published_files.expected(tensors, sizes, patches, positions)["pooler_output"]
    assert expected is not None
    np.testing.assert_allclose(found, expected, atol=2e-5 * np.abs(expected).max())
    assert state.banks is fresh.banks and state.opt_state is fresh.opt_state


def with_centroids(config: RunConfig, path: Path) -> RunConfig:
    """Bank obj begins with the centers in a file; vid with random ones."""
    vid, obj = config.batches.heads
    heads = vid, dataclasses.replace(obj, centroids=str(path))
    return dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=heads))


def test_a_run_begins_with_the_encoder_and_the_centers_it_is_given(
    trained_run: Path, trained: Params, shard_folder: Path, tmp_path: Path
) -> None:
    centers = np.random.default_rng(0).normal(size=(CENTERS, 64)).astype(np.float32)
    np.save(tmp_path / "obj.npy", centers)
    config = config_of(shard_folder, init_from=str(trained_run), steps=1, log_images=0)
    fresh, _, _ = state_on(config, 8)
    state = train(with_centroids(config, tmp_path / "obj.npy"), tmp_path / "run", lambda line: None)
    # The first step has a learning rate of 0.
    assert int(state.step) == 1
    assert_equal(state.params, trained)
    rows = np.asarray(row_of(jnp.arange(CENTERS), CENTERS))
    assert (rows != np.arange(CENTERS)).any()
    for center in range(CENTERS):
        np.testing.assert_array_equal(state.banks["obj"].rows[rows[center]], centers[center], f"center {center}")
    np.testing.assert_array_equal(state.banks["vid"].rows, fresh.banks["vid"].rows)
    assert int(state.banks["obj"].rows_count.max()) == 1 and int(state.opt_state[0].count) == 1
