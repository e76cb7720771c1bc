"""Spikes are found by what is usual, and a step that is skipped leaves everything as it was."""

import dataclasses
import json
import statistics
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tiny_run import batch, config_of, state_on

from ove.config import RunConfig, TrainConfig
from ove.errors import ConfigError, TrainingStopped
from ove.records import Batch
from ove.train.init import TrainState
from ove.train.monitor.guards import ENOUGH, WINDOW, check_step, detect_spikes, init_loss_window
from ove.train.sharding import make_mesh
from ove.train.step import make_step

judged = jax.jit(detect_spikes, static_argnums=2)


def spikes_in(losses: np.ndarray, mads: float = 10.0) -> np.ndarray:
    """(banks, steps): which of the losses of some banks are spikes."""
    recent, found = init_loss_window(len(losses)), []
    for step in losses.T:
        is_spike, recent = judged(recent, jnp.asarray(step, jnp.float32), mads)
        found.append(np.asarray(is_spike))
    return np.stack(found, axis=1)


def test_a_jump_is_a_spike_of_its_bank_alone() -> None:
    rng = np.random.default_rng(0)
    losses = 5 + 0.2 * rng.standard_normal((2, 3 * ENOUGH))
    losses[1, [ENOUGH - 2, ENOUGH, 50]] = 40, 40, 9
    found = spikes_in(losses)
    # Before enough is known nothing is.
    assert np.argwhere(found).tolist() == [[1, ENOUGH], [1, 50]]
    assert not spikes_in(losses, mads=1e6).any()


@pytest.mark.parametrize("mads", [3.0, 10.0])
def test_a_spike_lies_above_median_and_deviations_of_the_known_losses(mads: float) -> None:
    rng = np.random.default_rng(0)
    recent = rng.normal(5, 1, (5, WINDOW)).astype(np.float32)
    recent[1] += 100 * (rng.random(WINDOW) < 0.2)
    recent[2, : WINDOW - ENOUGH] = np.nan
    recent[3, : WINDOW - ENOUGH + 1] = np.nan
    recent[4] = 5
    limits = []
    for losses in recent:
        known = [float(loss) for loss in losses if np.isfinite(loss)]
        median = statistics.median(known)
        spread = statistics.median(abs(loss - median) for loss in known)
        limits.append(median + mads * max(spread, 0.01 * median))
    for factor, found in ((0.9999, [False] * 5), (1.0001, [True, True, True, False, True])):
        losses = np.float32(limits) * np.float32(factor)
        is_spike, after = judged(jnp.asarray(recent), jnp.asarray(losses), mads)
        assert is_spike.tolist() == found
        np.testing.assert_array_equal(after, np.concatenate([recent[:, 1:], losses[:, None]], axis=1))


def test_a_loss_that_hardly_differs_may_differ() -> None:
    losses = np.full((1, ENOUGH + 2), 3.0)
    losses[0, -2:] = 3.29, 3.31
    assert spikes_in(losses)[0, -2:].tolist() == [False, True]


def test_a_loss_that_rises_for_good_is_usual_after_half_a_window() -> None:
    losses = np.concatenate([np.full(WINDOW, 1.0), np.full(WINDOW, 2.0)])[None]
    found = spikes_in(losses)[0, WINDOW:]
    assert found[: WINDOW // 2].all() and not found[WINDOW // 2 + 1 :].any()


@settings(max_examples=25, deadline=None)
@given(st.lists(st.sampled_from([np.nan, np.inf, -np.inf, 1.0, 2.0]), min_size=1, max_size=60))
def test_what_is_not_finite_is_no_spike_and_not_remembered(losses: list[float]) -> None:
    recent = init_loss_window(1)
    for loss in losses:
        is_spike, recent = judged(recent, jnp.array([loss], jnp.float32), 10.0)
        assert np.isfinite(loss) or not is_spike[0]
    finite = [loss for loss in losses if np.isfinite(loss)]
    assert np.asarray(recent)[0, WINDOW - len(finite) :].tolist() == finite
    assert np.isnan(recent[0, : WINDOW - len(finite)]).all()


def samples(n: int) -> dict[str, Batch]:
    rows = np.arange(n)
    return {
        "vid": Batch(
            patches=np.zeros((n, 1, 588), np.uint8),
            positions=np.zeros((n, 1, 3), np.int32),
            labels=np.zeros((n, 1), np.int32),
            mode=np.zeros(n, np.int32),
            replaced=np.zeros(n, bool),
            source=(rows % 2).astype(np.int32),
            record=rows * 10,
        )
    }


def key_of(bank: str, source: int, record: int) -> str:
    return f"{bank} {source} {record}"


VALUES = {"loss": 9.0, "loss/vid": 9.0, "grad_norm/vid": 1.0, "grad_norm/blocks": 1.0, "spike/vid": 0.0}


def test_a_spike_is_told_or_stops_the_run_and_its_batch_is_noted(tmp_path: Path) -> None:
    spiked = VALUES | {"spike/vid": 1.0}
    for policy, said in (("ignore", "nothing is done"), ("skip", "the step is skipped")):
        config = TrainConfig(on_spike=policy)  # type: ignore[arg-type]
        assert check_step(config, 7, VALUES, samples(2), tmp_path, key_of) == []
        (line,) = check_step(config, 7, spiked, samples(2), tmp_path, key_of)
        assert line == f"step 7: the loss has jumped (vid 9); {said}, see spike_step_7.json"
    with pytest.raises(TrainingStopped, match=r"step 8: the loss has jumped \(vid 9\) by more than train.spike_mads = 10"):
        check_step(TrainConfig(on_spike="stop"), 8, spiked, samples(2), tmp_path, key_of)
    noted = json.loads((tmp_path / "spike_step_8.json").read_text())
    assert noted == {
        "step": 8,
        "banks": {
            "vid": [
                {"key": "vid 0 0", "source": 0, "record": 0, "mode": "codec"},
                {"key": "vid 1 10", "source": 1, "record": 10, "mode": "codec"},
            ]
        },
    }


@pytest.mark.parametrize("name", ["loss/vid", "grad_norm/vid", "grad_norm/blocks"])
def test_what_is_not_finite_stops_whatever_the_policy(tmp_path: Path, name: str) -> None:
    what, part = name.split("/")
    called = {"loss": "loss of bank", "grad_norm": "gradient of"}[what]
    with pytest.raises(TrainingStopped, match=rf"the {called} {part} is nan at step 3; the records of its batch are in "):
        check_step(TrainConfig(on_spike="skip"), 3, VALUES | {name: float("nan")}, samples(1), tmp_path, key_of)
    assert (tmp_path / "not_finite_step_3.json").exists()


def test_settings_that_make_no_sense_are_refused() -> None:
    for wrong in ({"spike_mads": 0.0}, {"eval_every": -1}, {"peak_tflops": -1.0}, {"log_images": -1}, {"eval_limit_s": -1.0}):
        with pytest.raises(ConfigError, match=next(iter(wrong))):
            TrainConfig(**wrong)  # type: ignore[arg-type]


def small() -> RunConfig:
    """One bank, one layer: what compiles in half the time."""
    config = config_of(Path(), on_spike="skip")
    batches = dataclasses.replace(config.batches, heads=config.batches.heads[1:])
    return dataclasses.replace(config, batches=batches, encoder=dataclasses.replace(config.encoder, layers=1))


def as_numbers(state: TrainState) -> list[np.ndarray]:
    """Copies of everything that a step may change but for what tells where it is."""
    return [np.array(leaf) for leaf in jax.tree.leaves((state.params, state.banks, state.opt_state))]


def test_a_skipped_step_changes_neither_parameters_nor_moments_nor_banks_on_eight_devices() -> None:
    config = small()
    state, _, shardings = state_on(config, 8)
    step = make_step(config, make_mesh(devices=jax.devices()[:8]), shardings)
    (usual,) = state.recent_losses.shape[:1]

    def knowing(state: TrainState, loss: float) -> TrainState:
        """As after a window of this loss."""
        recent = jnp.full((usual, WINDOW), loss, jnp.float32)
        return state._replace(recent_losses=jax.device_put(recent, shardings.recent_losses))

    state, metrics = step(knowing(state, 1e6), batch(0))  # the first step has a learning rate of 0
    before = as_numbers(state)
    state, metrics = step(knowing(state, 1e-3), batch(1))
    assert (float(metrics["skipped"]), float(metrics["spike/obj"])) == (1, 1)
    for old, new in zip(before, as_numbers(state), strict=True):
        np.testing.assert_array_equal(old, new)
    assert int(state.step) == 2
    assert np.asarray(state.recent_losses)[0, -1] == float(metrics["loss/obj"])

    state, metrics = step(knowing(state, 1e6), batch(1))
    assert (float(metrics["skipped"]), float(metrics["spike/obj"])) == (0, 0)
    changed = [(old != new).any() for old, new in zip(before, as_numbers(state), strict=True)]
    assert sum(changed) > len(changed) / 2
