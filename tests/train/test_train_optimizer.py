"""The schedule ends where it should, and only matrices decay."""

import jax
import jax.numpy as jnp
import optax
import pytest

from ove.config import BankRates, EncoderConfig, TrainConfig
from ove.encoder import encoder
from ove.train.optimizer import clip, learning_rate, make_optimizer


@pytest.mark.parametrize(("schedule", "after_a_quarter"), [("linear", 0.75), ("cosine", 0.853553)])
def test_warm_up_peak_and_end(schedule: str, after_a_quarter: float) -> None:
    rate = learning_rate(TrainConfig(steps=110, warmup_steps=10, schedule=schedule), 0.2)
    assert [float(rate(step)) for step in (0, 5, 10)] == pytest.approx([0, 0.1, 0.2])
    assert float(rate(35)) == pytest.approx(0.2 * after_a_quarter)
    assert float(rate(60)) == pytest.approx(0.1)
    assert float(rate(110)) == pytest.approx(0, abs=1e-8)


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
def test_a_warm_up_longer_than_the_run_is_cut_and_the_rate_may_fall_within_one_step(schedule: str) -> None:
    rate = learning_rate(TrainConfig(steps=4, warmup_steps=50, schedule=schedule), 1.0)
    assert [float(rate(step)) for step in (0, 3, 4)] == pytest.approx([0, 0.75, 1])
    rate = learning_rate(TrainConfig(steps=5, warmup_steps=4, schedule=schedule), 1.0)
    assert [float(rate(step)) for step in (3, 4, 5)] == pytest.approx([0.75, 1, 0], abs=1e-7)


def test_only_kernels_decay() -> None:
    config = EncoderConfig(layers=1, width=64, heads=2, mlp=64)
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    ones = jax.tree.map(lambda leaf: jnp.ones(leaf.shape), params)
    optimizer = make_optimizer(TrainConfig(warmup_steps=0, steps=10, lr=1.0, weight_decay=0.5))
    updates, _ = optimizer.update(jax.tree.map(lambda leaf: leaf * 0, ones), optimizer.init(ones), ones)
    moved = {
        jax.tree_util.keystr(path): float(abs(leaf).max()) for path, leaf in jax.tree_util.tree_flatten_with_path(updates)[0]
    }
    for name, change in moved.items():
        assert change == pytest.approx(0.5 if "kernel" in name else 0.0), name
    assert any("kernel" in name for name in moved)


def test_gradients_are_clipped_together() -> None:
    grads = {"a": {"bias": jnp.full(3, 100.0)}, "b": {"bias": jnp.full(4, 100.0)}}
    norm = optax.tree.norm(grads)
    assert float(optax.tree.norm(clip(grads, norm, 5.0))) == pytest.approx(5.0)
    for before, after in zip(jax.tree.leaves(grads), jax.tree.leaves(clip(grads, norm, 1e4)), strict=True):
        assert (before == after).all()


def test_each_bank_may_have_its_rate() -> None:
    config = TrainConfig(lr_bank=2e-3, lr_by_bank=BankRates(ocr=5e-4))
    assert [config.rate_of(bank) for bank in ("vid", "obj", "ocr")] == [2e-3, 2e-3, 5e-4]
