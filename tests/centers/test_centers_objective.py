"""A bank's steps equal a dense float64 reference: losses, gradients, moments; on any number of devices."""

import dataclasses

import dense_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bank_problem import (
    SETTINGS,
    C,
    L,
    by_center,
    dense,
    drawn_centers,
    embeddings_of,
    fresh_bank,
    labels_of,
    placement_on,
    take,
)
from jax.sharding import Mesh

from ove.centers.gradient import BankPlan
from ove.centers.health import Counted, metrics_of
from ove.centers.placement import BankPlacement
from ove.config import CentersConfig


def reference(bank, e, labels, drawn, config, plan):
    positives = np.unique(labels[labels >= 0])
    sampled = np.union1d(positives, drawn)
    if config.loss == "margin_softmax":
        return sampled, dense_reference.margin_softmax(bank, e, labels, sampled)
    return sampled, dense_reference.sigmoid(
        bank,
        e,
        labels,
        sampled,
        raw=config.loss == "raw",
        negative_weight=plan.n_centers / plan.n_negatives if config.negative_weight == "1/r" else 1.0,
        others=drawn if config.undrawn_positives == "ignore" else None,
    )


def assert_steps_equal_the_reference(placement: BankPlacement, ratio: float, n_steps: int = 3, **settings) -> None:
    config = CentersConfig(init_std=0.3, **settings)
    plan = BankPlan("vid", C, max(1, round(ratio * C)), L)
    bank = fresh_bank(placement, init_std=0.3)
    expected = dense(bank)
    for seed in range(n_steps):
        out = take(bank, seed, placement, plan, config)
        bank, e = out.bank, embeddings_of(seed).astype(np.float64)
        is_own = config.loss.startswith("own_functions:")
        known = dataclasses.replace(config, loss=config.loss.removeprefix("own_functions:"))
        labels, drawn = labels_of(seed), drawn_centers(seed, plan, config)
        sampled, grads = reference(expected, e, labels, drawn, known, plan)
        np.testing.assert_allclose(out.loss, grads.loss, rtol=1e-6)
        np.testing.assert_allclose(out.embeddings, grads.embeddings, atol=1e-5)
        norm = np.sqrt((grads.rows**2).sum() + (grads.logit**2).sum())
        np.testing.assert_allclose(out.metrics["grad_norm"], norm, rtol=1e-5)
        name, others = "own" if is_own else config.loss, drawn if config.undrawn_positives == "ignore" else None
        means = dense_reference.mean_logits(expected, e, labels, sampled, name, others)
        found = [out.metrics[f"{pairs}_logit"] for pairs in ("positive", "negative")]
        np.testing.assert_allclose(found, means, rtol=1e-5, atol=1e-5)
        dense_reference.adamw(expected, grads, sampled, **SETTINGS)
        np.testing.assert_allclose(by_center(bank.rows_m), expected.m, atol=1e-5)
        np.testing.assert_array_equal(by_center(bank.rows_count), expected.count)
        np.testing.assert_allclose([bank.scale, bank.bias], [expected.scale, expected.bias], atol=1e-5)
        # What a step of Adam makes of a gradient near 0 hangs on its rounding, so the rows go on from the same place.
        rows = by_center(bank.rows)
        np.testing.assert_allclose(rows, expected.rows, atol=2e-3)
        expected.rows, expected.scale, expected.bias = rows.astype(np.float64), float(bank.scale), float(bank.bias)
    assert (np.asarray(bank.rows)[C:] == 0).all()


@pytest.mark.parametrize(
    ("loss", "ratio", "n_devices"),
    [
        *(("sigmoid", ratio, n) for ratio in (1.0, 0.1) for n in (1, 2, 8)),
        *(("raw", 1.0, 8), ("raw", 0.1, 1)),
        *(("own_functions:sigmoid", 1.0, 1), ("own_functions:sigmoid", 0.1, 8)),
        *(("margin_softmax", 1.0, 1), ("margin_softmax", 0.1, 2), ("margin_softmax", 0.1, 8)),
    ],
)
def test_steps_equal_a_dense_reference(loss: str, ratio: float, n_devices: int) -> None:
    assert_steps_equal_the_reference(placement_on(n_devices), ratio, loss=loss)


@pytest.mark.parametrize(
    "settings",
    [
        {"chunk_rows": 7},
        {"chunk_rows": 7, "loss": "margin_softmax"},
        {"chunk_rows": 16, "loss": "raw", "undrawn_positives": "ignore"},
        {"negative_weight": "1/r"},
        {"undrawn_positives": "ignore", "negative_weight": "1/r"},
        {"sampler": "feistel"},
    ],
    ids=str,
)
def test_chunks_weights_and_samplers_equal_the_reference_too(settings: dict) -> None:
    assert_steps_equal_the_reference(placement_on(2), 0.2, n_steps=2, **settings)


@pytest.mark.parametrize(
    ("bank_axes", "batch_axes"),
    [(("b", "a"), ("a", "b")), (("b",), ("a",)), (("a", "b"), ("a",)), (("a",), ())],
    ids=str,
)
def test_bank_and_batch_lie_on_any_axes(bank_axes: tuple, batch_axes: tuple) -> None:
    mesh = Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b"))
    assert_steps_equal_the_reference(BankPlacement(mesh, bank_axes, batch_axes), 0.3, n_steps=1)


@pytest.mark.parametrize("n", [1, 2, 7])
def test_metrics_of_a_step_are_means_and_quantiles(n: int) -> None:
    rng = np.random.default_rng(n)
    e = rng.normal(size=(n, 5)) + 1
    e /= np.linalg.norm(e, axis=1, keepdims=True)
    norms = rng.random(40)
    pairs, scalars = ([-6.0, 4.0], [-30.0, 10.0]), (3.0, 2.0)
    counted = Counted(*map(jnp.float32, (*scalars, *pairs, [*norms, np.nan, np.nan])))
    found = metrics_of(counted, jnp.int32(5), jnp.float32(e.sum(0)), jnp.float32(n))
    cosines = [e[i] @ e[j] for i in range(n) for j in range(n) if i != j]
    expected = {"positive_logit": -1.5, "negative_logit": -3.0, "ever_positive": 8, "positive_overflow": 2}
    expected |= {"embedding_cosine": np.mean(cosines) if cosines else 0.0}
    expected |= {f"row_norm_p{q:02d}": np.percentile(norms, q) for q in (5, 50, 95)}
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=1e-5, atol=1e-6, err_msg=name)
