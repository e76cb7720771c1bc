"""Steps equal training that is written down plainly (plain_training.py): gradients, clipping, AdamW, rates, banks, skipping."""

import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from plain_training import Metrics, PlainState, PlainTraining, begin, by_path, skipped
from tiny_run import config_of, replace_encoder, state_on

from ove.config import BankRates, CentersConfig, HeadConfig, RunConfig
from ove.train.encoder_grads import BatchArrays
from ove.train.init import TrainState
from ove.train.sharding import batch_sharding, make_mesh
from ove.train.step import make_step

C, N_DEVICES = 37, 2
STEPS, SKIPPED = 6, 4
"""Steps taken, and the number (from 0) of the one whose loss is a spike."""
LINEAR = (0.0, 0.5, 1.0, 0.75, 0.5, 0.25)
"""Parts of the peak at each step: 2 steps of warm-up, then 4 down to 0."""
COSINE = (0.0, 0.5, 1.0, 0.8535534, 0.5, 0.1464466)
"""(1 + cos(0, π/4, π/2, 3π/4)) / 2."""
LR, LR_VID, LR_OBJ = 0.01, 0.02, 0.03


# An eps about as large as gradients are: else Adam makes a whole step of the rounding of a gradient near 0.


def clipped() -> RunConfig:
    """Every gradient is far longer than `clip_norm`."""
    return of(clip_norm=0.3, adam_eps=1e-3, grad_accum_steps=1, schedule="linear")


def not_clipped() -> RunConfig:
    """No gradient is; besides, microbatches, the other schedule, and decay by elapsed steps."""
    config = of(clip_norm=1e4, adam_eps=0.3, grad_accum_steps=2, schedule="cosine")
    return dataclasses.replace(config, centers=CentersConfig(decay="elapsed"))


def of(**train: Any) -> RunConfig:
    adam = {"b1": 0.8, "b2": 0.95, "weight_decay": 0.3}
    rates = {"lr": LR, "lr_bank": LR_OBJ, "lr_by_bank": BankRates(vid=LR_VID), "steps": STEPS, "warmup_steps": 2}
    config = config_of(Path(), **adam, **rates, on_spike="skip", **train)
    heads = HeadConfig("vid", 8, 1.0, 0.25, 2), HeadConfig("obj", 8, 0.25, 0.1, 3)
    config = dataclasses.replace(config, batches=dataclasses.replace(config.batches, heads=heads))
    return replace_encoder(config, layers=1, width=32, heads=1, mlp=48, embedding=24, init_std=0.1)


def batch(seed: int) -> BatchArrays:
    """Labels are shared, repeated and missing."""
    rng = np.random.default_rng(seed)

    def of_bank() -> dict[str, jax.Array]:
        labels = rng.integers(0, C, (8, 4), dtype=np.int32)
        labels[1], labels[2, :2], labels[3, 1:], labels[4] = labels[0], labels[2, 2], -1, -1
        return {
            "patches": jnp.asarray(rng.integers(0, 256, (8, 6, 588), dtype=np.uint8)),
            "positions": jnp.asarray(rng.integers(0, 9, (8, 6, 3), dtype=np.int32)),
            "labels": jnp.asarray(labels),
        }

    return {"vid": of_bank(), "obj": of_bank()}


class Taken(NamedTuple):
    """A step, and what it should be."""

    before: TrainState
    after: TrainState
    metrics: Metrics
    expected: PlainState
    expected_metrics: Metrics


@pytest.fixture(scope="module", params=[clipped, not_clipped], ids=["clipped", "not clipped, in microbatches"])
def taken(request: pytest.FixtureRequest) -> list[Taken]:
    return steps(request.param)


def steps(make: Callable[[], RunConfig]) -> list[Taken]:
    config = make()
    state, _, shardings = state_on(config, N_DEVICES, C)
    shape = COSINE if config.train.schedule == "cosine" else LINEAR
    rates = [{"lr": LR * part, "vid": LR_VID * part, "obj": LR_OBJ * part} for part in shape]
    plain, expected = PlainTraining(config, state, rates), begin(state, C)
    mesh = make_mesh(devices=jax.devices()[:N_DEVICES])
    step, on_mesh = make_step(config, mesh, shardings, {"vid": C, "obj": C}), batch_sharding(mesh)
    # Half of the time of this file would be LLVM's.
    fast = step.lower(state, jax.device_put(batch(0), on_mesh)).compile({"xla_backend_optimization_level": 0})
    found = []
    for number in range(STEPS):
        usual = 1e-3 if number == SKIPPED else 1e6
        recent = jnp.full(state.recent_losses.shape, usual, jnp.float32)
        state = state._replace(recent_losses=jax.device_put(recent, shardings.recent_losses))
        before = in_numpy(state)
        state, metrics = fast(state, jax.device_put(batch(number), on_mesh))
        after, expected_metrics = plain.step(expected, batch(number))
        expected = skipped(expected) if number == SKIPPED else after
        found.append(Taken(before, in_numpy(state), jax.tree.map(float, metrics), expected, expected_metrics))
    return found


def in_numpy(state: TrainState) -> TrainState:
    return jax.tree.map(np.array, state._replace(rng=jax.random.key_data(state.rng)))


def assert_close(found: Any, expected: Any, what: str, size: float = 1.0) -> None:
    """To a few roundings of float32, of numbers that are as large as `size`."""
    np.testing.assert_allclose(found, expected, rtol=2e-5, atol=5e-6 * size, err_msg=what)


def test_what_is_logged_is_that_of_the_plain_loss_and_its_gradient(taken: list[Taken]) -> None:
    for number, step in enumerate(taken):
        for name, value in step.expected_metrics.items():
            np.testing.assert_allclose(step.metrics[name], value, rtol=2e-5, err_msg=f"{name} of step {number}")
        flags = [step.metrics[name] for name in ("skipped", "spike/vid", "spike/obj")]
        assert flags == [float(number == SKIPPED)] * 3


def test_gradients_are_long_or_short_as_meant(taken: list[Taken]) -> None:
    lengths = [step.metrics[f"grad_norm/{name}"] for step in taken for name in ("encoder", "vid", "obj")]
    assert min(lengths) > 2 * 0.3 and max(lengths) < 1e4


def test_the_moments_of_the_encoder_are_those_of_the_plain_gradient(taken: list[Taken]) -> None:
    for number, step in enumerate(taken):
        adam = step.after.opt_state[0]
        assert adam.count == step.expected.applied
        for moment, expected, power in ((adam.mu, step.expected.m, 1), (adam.nu, step.expected.v, 2)):
            for name, values in by_path(moment).items():
                size = np.abs(expected[name]).max() if "bias" not in name else max(np.abs(e).max() for e in expected.values())
                assert_close(values, expected[name], f"moment {power} of {name} after step {number}", size)


def test_the_parameters_are_those_of_plain_adamw(taken: list[Taken]) -> None:
    for number, step in enumerate(taken):
        moved = 0.0
        for name, values in by_path(step.after.params).items():
            assert_close(values, step.expected.params[name], f"{name} after step {number}")
            moved = max(moved, np.abs(values - by_path(step.before.params)[name]).max())
        # By nothing while the rate is 0, else far more than what is let pass above.
        assert moved == 0 if number in (0, SKIPPED) else moved > 0.1 * LR


def test_every_row_of_the_banks_is_that_of_plain_adamw_on_the_sampled_rows(taken: list[Taken]) -> None:
    for number, step in enumerate(taken):
        for bank in ("vid", "obj"):
            found, expected, before = step.after.banks[bank], step.expected.banks[bank], step.before.banks[bank]
            for table in ("rows_count", "rows_step", "rows_positive"):
                np.testing.assert_array_equal(getattr(found, table)[:C], getattr(expected, table), f"{table}, step {number}")
            for table in ("rows", "rows_m", "rows_v"):
                values = getattr(expected, table)
                assert_close(getattr(found, table)[:C], values, f"{table} of {bank} after step {number}", np.abs(values).max())
            left = expected.rows_step != number + 1
            assert 5 < left.sum() <= (C if number == SKIPPED else C - 9)
            for table in ("rows", "rows_m", "rows_v"):
                np.testing.assert_array_equal(getattr(found, table)[:C][left], getattr(before, table)[:C][left])
                assert not getattr(found, table)[C:].any(), "padding"
            assert_close([found.scale, found.bias], expected.logit, f"scale and bias of {bank} after step {number}")
            assert_close(found.logit_m, expected.logit_m, f"logit_m of {bank} after step {number}")
            assert_close(found.logit_v, expected.logit_v, f"logit_v of {bank} after step {number}")
            assert found.logit_count == expected.logit_count
            assert found.ever_positive == (expected.rows_positive > 0).sum()


def test_a_spike_leaves_everything_as_it_was_but_is_remembered(taken: list[Taken]) -> None:
    step = taken[SKIPPED]
    for part in ("params", "banks", "opt_state", "rng"):
        for before, after in zip(*(jax.tree.leaves(getattr(state, part)) for state in step[:2]), strict=True):
            np.testing.assert_array_equal(after, before)
    assert step.after.step == SKIPPED + 1
    for number, step in enumerate(taken):
        losses = np.float32([step.metrics["loss/vid"], step.metrics["loss/obj"]])
        np.testing.assert_array_equal(step.after.recent_losses[:, -1], losses, f"step {number}")
        np.testing.assert_array_equal(step.after.recent_losses[:, :-1], step.before.recent_losses[:, 1:])
