"""One step on eight devices is one step on one; a state is restored exactly on another number of devices."""

import dataclasses
import functools
from collections.abc import Callable
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import Mesh
from tiny_run import batch, config_of, state_on

from ove.config import RunConfig
from ove.train.checkpoints.checkpoint import Checkpoints
from ove.train.init import TrainState
from ove.train.sharding import batch_sharding, make_mesh, state_shardings
from ove.train.step import make_step

Outcome = tuple[TrainState, dict[str, float]]


@pytest.fixture(scope="module")
def config() -> RunConfig:
    return config_of(Path())


@functools.cache
def step_on(config: RunConfig, n_devices: int) -> Callable:
    devices = jax.devices()[:n_devices]
    return make_step(config, make_mesh(devices=devices), state_on(config, n_devices)[2])


def take_step(config: RunConfig, state: TrainState, n_devices: int) -> Outcome:
    state, metrics = step_on(config, n_devices)(state, batch(0))
    return state, {name: float(value) for name, value in metrics.items()}


@pytest.fixture(scope="module")
def on_one(config: RunConfig) -> Outcome:
    """After two steps, the first of which has a learning rate of 0."""
    return take_step(config, take_step(config, state_on(config, 1)[0], 1)[0], 1)


def assert_close(left: Outcome, right: Outcome) -> None:
    assert left[1].keys() == right[1].keys()
    for name, value in left[1].items():
        np.testing.assert_allclose(right[1][name], value, rtol=1e-6, atol=1e-6, err_msg=name)
    for a, b in zip(jax.tree.leaves(left[0].params), jax.tree.leaves(right[0].params), strict=True):
        # Adam turns the rounding of a gradient near 0 into a step of up to lr: hence the absolute tolerance.
        np.testing.assert_allclose(b, a, atol=2e-5)


def test_a_sharded_step_is_an_unsharded_one(config: RunConfig, on_one: Outcome) -> None:
    state = take_step(config, state_on(config, 8)[0], 8)[0]
    assert len(state.banks["vid"].rows.sharding.device_set) == 8
    assert not state.banks["vid"].rows.sharding.is_fully_replicated
    assert_close(on_one, take_step(config, state, 8))


def test_a_checkpoint_of_eight_devices_is_the_same_on_one(config: RunConfig, on_one: Outcome, tmp_path: Path) -> None:
    state = take_step(config, state_on(config, 8)[0], 8)[0]
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, config, {})
    checkpoints.wait()
    _, abstract, shardings = state_on(config, 1)
    restored = checkpoints.restore(1, checkpoints.meta(1), abstract, shardings)
    checkpoints.close()
    raw = [jax.tree.map(lambda x: x, s._replace(rng=jax.random.key_data(s.rng))) for s in (state, restored)]
    for a, b in zip(*map(jax.tree.leaves, raw), strict=True):
        np.testing.assert_array_equal(a, b)
        assert b.devices() == {jax.devices()[0]}
    assert_close(on_one, take_step(config, restored, 1))


def small(config: RunConfig) -> RunConfig:
    """One bank, one layer: what compiles in half the time."""
    batches = dataclasses.replace(config.batches, heads=config.batches.heads[1:])
    return dataclasses.replace(config, batches=batches, encoder=dataclasses.replace(config.encoder, layers=1))


@pytest.mark.slow
def test_a_run_goes_on_with_other_padding_on_four_devices(config: RunConfig, tmp_path: Path) -> None:
    config = small(config)

    def step(n_devices: int) -> Callable:
        shardings = state_on(config, n_devices, 27)[2]
        return make_step(config, make_mesh(devices=jax.devices()[:n_devices]), shardings, {"obj": 27})

    on_eight = step(8)
    state, _, _ = state_on(config, 8, 27)
    for seed in (0, 1):
        state, _ = on_eight(state, batch(seed))
    assert state.banks["obj"].rows.shape[0] == 32
    checkpoints = Checkpoints(tmp_path, keep=1)
    checkpoints.save(state, config, {})
    checkpoints.wait()
    _, abstract, shardings = state_on(config, 4, 27)
    restored = checkpoints.restore(2, checkpoints.meta(2), abstract, shardings)
    checkpoints.close()
    assert restored.banks["obj"].rows.shape[0] == 28
    np.testing.assert_array_equal(restored.banks["obj"].rows[:27], state.banks["obj"].rows[:27])
    _, expected = on_eight(state, batch(2))
    _, metrics = step(4)(restored, batch(2))
    for name in ("loss", "loss/obj", "grad_norm/obj"):
        np.testing.assert_allclose(float(metrics[name]), float(expected[name]), rtol=1e-6, err_msg=name)


@pytest.mark.slow
def test_the_mesh_may_have_another_shape(config: RunConfig, on_one: Outcome) -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("data", "model"))
    state, abstract, _ = state_on(config, 1)
    shardings = state_shardings(abstract, mesh)
    step = make_step(config, mesh, shardings)
    state = jax.device_put(state, shardings)
    assert len(state.banks["vid"].rows.addressable_shards[0].data) == 1
    for _ in range(2):
        state, metrics = step(state, jax.device_put(batch(0), batch_sharding(mesh)))
    assert_close(on_one, (state, {name: float(value) for name, value in metrics.items()}))


def test_every_part_of_the_state_moves_but_the_key(config: RunConfig, on_one: Outcome) -> None:
    before, _, _ = state_on(config, 1)
    after, metrics = on_one
    assert int(after.step) == 2
    assert (jax.random.key_data(before.rng) == jax.random.key_data(after.rng)).all()
    frozen = [
        jax.tree_util.keystr(path)
        for (path, a), b in zip(
            jax.tree_util.tree_flatten_with_path(before.params)[0], jax.tree.leaves(after.params), strict=True
        )
        if (a == b).all()
    ]
    # Both enter a softmax as the same number for all tokens: the bias of the keys there and of the pooling keys.
    assert all("bias" in name for name in frozen) and len(frozen) <= 2, frozen
    assert (before.banks["vid"].rows != after.banks["vid"].rows).any()
    assert metrics["loss"] == pytest.approx(metrics["loss/vid"] + metrics["loss/obj"])
