"""The same losses on 1, 2 and 8 devices, with parameters whole or cut, in one batch or in microbatches."""

import dataclasses
import functools
from pathlib import Path

import jax
import numpy as np
import pytest
from tiny_run import batch, config_of, replace_encoder, state_on

from ove.config import MeshConfig, RunConfig
from ove.train.sharding import batch_sharding, make_mesh, state_shardings
from ove.train.step import make_step

STEPS = 4


@functools.cache
def losses(
    n_devices: int, fsdp: int, accumulate: int, bank: int = 0, remat: str = "none", n_banks: int = 2
) -> list[dict[str, float]]:
    """Metrics of some steps; the batch of 8 becomes 32 so that everything divides it."""
    config = _config(accumulate, remat, n_banks)
    mesh = make_mesh(MeshConfig(fsdp=fsdp, bank=bank), jax.devices()[:n_devices])
    state, abstract, _ = state_on(_config(1, "none", n_banks), 1)
    shardings = state_shardings(abstract, mesh)
    step = make_step(config, mesh, shardings)
    state, found = jax.device_put(state, shardings), []
    for number in range(STEPS):
        wide = jax.tree.map(lambda *parts: np.concatenate(parts), *(batch(10 * number + i) for i in range(4)))
        wide = {bank: wide[bank] for bank in state.banks}
        state, metrics = step(state, jax.device_put(wide, batch_sharding(mesh)))
        found.append({name: float(value) for name, value in metrics.items()})
    for leaf in (state.params["blocks"]["mlp"]["fc1"]["kernel"], state.opt_state[0].mu["pool"]["q"]["kernel"]):
        assert leaf.addressable_shards[0].data.shape[-1] * fsdp == leaf.shape[-1]
    return found


def _config(accumulate: int, remat: str, n_banks: int) -> RunConfig:
    config = replace_encoder(config_of(Path(), grad_accum_steps=accumulate), remat=remat)
    heads = tuple(dataclasses.replace(head, batch_size=32) for head in config.batches.heads[-n_banks:])
    return dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=heads))


def assert_same(found: list[dict[str, float]], n_banks: int = 2) -> None:
    for step, (here, there) in enumerate(zip(losses(1, 1, 1, n_banks=n_banks), found, strict=True)):
        for name in here:
            np.testing.assert_allclose(there[name], here[name], rtol=1e-5, atol=1e-5, err_msg=f"{name} of step {step}")


def test_parameters_cut_in_four_and_four_microbatches() -> None:
    assert_same(losses(8, 4, 4, n_banks=1), n_banks=1)


@pytest.mark.slow
@pytest.mark.parametrize("accumulate", [1, 4])
@pytest.mark.parametrize(("n_devices", "fsdp"), [(1, 1), (2, 1), (2, 2), (8, 1), (8, 2), (8, 8)])
def test_any_devices(n_devices: int, fsdp: int, accumulate: int) -> None:
    assert_same(losses(n_devices, fsdp, accumulate))


@pytest.mark.slow
@pytest.mark.parametrize("remat", ["dots", "full"])
@pytest.mark.parametrize("accumulate", [1, 4])
def test_any_remat(remat: str, accumulate: int) -> None:
    assert_same(losses(8, 2, accumulate, 0, remat))


@pytest.mark.slow
@pytest.mark.parametrize(("fsdp", "bank"), [(1, 2), (2, 2), (2, 1)])
def test_banks_in_copies(fsdp: int, bank: int) -> None:
    assert_same(losses(8, fsdp, 1, bank))
