"""A batch in microbatches gives the loss, gradients and metrics of the whole batch: those of a dense float64 reference."""

import jax
import numpy as np
import pytest
from bank_problem import C, L, by_center, dense, drawn_centers, embeddings_of, fresh_bank, labels_of, placement_on
from einops import rearrange
from jax.sharding import Mesh
from test_centers_objective import reference

from ove.centers.bank import Bank
from ove.centers.gradient import BankGradient, BankPlan, draw_batch, microbatch_gradient, no_sums, total_gradient
from ove.centers.objective import bank_specs, gradient_specs
from ove.centers.placement import BankPlacement
from ove.config import CentersConfig

SEED, WEIGHT = 3, 0.5


def gradient(bank: Bank, placement: BankPlacement, config: CentersConfig, a: int) -> tuple[BankGradient, jax.Array]:
    """Of a batch in `a` microbatches, and the gradient of its embeddings."""
    plan, by_sample = BankPlan("vid", C, 20, L, WEIGHT), placement.samples

    def in_shard(bank: Bank, e: jax.Array, labels: jax.Array) -> tuple[BankGradient, jax.Array]:
        drawn = draw_batch(bank, labels, jax.random.key(SEED), a, plan, placement, config)

        def microbatch(total, at):
            cotangent, sums = microbatch_gradient(bank, drawn, *at, plan, placement, config)
            return jax.tree.map(jax.numpy.add, total, sums), cotangent

        at = drawn.known, drawn.chosen, rearrange(e, "(a b) e -> a b e", a=a)
        sums, cotangents = jax.lax.scan(microbatch, no_sums(bank, drawn), at)
        return total_gradient(bank, drawn, sums, plan, placement), rearrange(cotangents, "a b e -> (a b) e")

    specs = {"in_specs": (bank_specs(placement), by_sample, by_sample), "out_specs": (gradient_specs(placement), by_sample)}
    step = jax.jit(
        jax.shard_map(in_shard, mesh=placement.mesh, check_vma=False, **specs),
        compiler_options={"xla_backend_optimization_level": 0},
    )
    batch = (jax.device_put(x, placement.sharding(by_sample)) for x in (embeddings_of(SEED), labels_of(SEED)))
    return step(bank, *batch)


def rows_by_center(found: BankGradient, n_rows: int, n_shards: int) -> np.ndarray:
    table, length = np.zeros((n_rows, found.rows.rows.shape[1])), n_rows // n_shards
    shards = (np.split(np.asarray(x), n_shards) for x in (found.rows.ids, found.rows.rows))
    for shard, (ids, rows) in enumerate(zip(*shards, strict=True)):
        table[ids[ids < length] + shard * length] = rows[ids < length]
    return by_center(table)


def on_mesh() -> BankPlacement:
    mesh = Mesh(np.array(jax.devices()).reshape(2, 4), ("data", "bank"))
    return BankPlacement(mesh, ("bank",), ("data", "bank"))


@pytest.mark.parametrize(
    ("settings", "place", "a"),
    [
        ({"chunk_rows": 7, "negative_weight": "1/r", "undrawn_positives": "ignore"}, on_mesh, 2),
        ({"loss": "margin_softmax"}, on_mesh, 2),
        pytest.param({}, lambda: placement_on(1), 16, marks=pytest.mark.slow),
        pytest.param({"loss": "raw"}, lambda: placement_on(2), 4, marks=pytest.mark.slow),
        pytest.param({"loss": "margin_softmax", "chunk_rows": 7}, lambda: placement_on(4), 2, marks=pytest.mark.slow),
        pytest.param({"loss": "own_functions:sigmoid"}, lambda: placement_on(2), 2, marks=pytest.mark.slow),
    ],
    ids=["sigmoid, copies of banks", "softmax, copies of banks", "16 of 1", "raw", "softmax", "own"],
)
def test_microbatches_give_what_the_whole_batch_does(settings: dict, place, a: int) -> None:
    config, placement = CentersConfig(init_std=0.3, **settings), place()
    known = CentersConfig(**settings | {"loss": str(config.loss).removeprefix("own_functions:")})
    bank, plan = fresh_bank(placement, init_std=0.3), BankPlan("vid", C, 20, L)
    labels, drawn = labels_of(SEED), drawn_centers(SEED, plan, config)
    sampled, expected = reference(dense(bank), embeddings_of(SEED).astype(np.float64), labels, drawn, known, plan)
    whole, parts = (gradient(bank, placement, config, n) for n in (1, a))
    for found, cotangent in (whole, parts):
        np.testing.assert_allclose(found.loss, expected.loss, rtol=1e-6)
        np.testing.assert_allclose(cotangent, WEIGHT * expected.embeddings, rtol=1e-5, atol=1e-6)
        table = rows_by_center(found, len(bank.rows), placement.n_shards)
        np.testing.assert_allclose(table, expected.rows, rtol=1e-5, atol=1e-6)
        assert set(np.flatnonzero(table.any(axis=1))) <= set(sampled)
        np.testing.assert_allclose(found.rows.logit, expected.logit, rtol=1e-5, atol=1e-6)
        norm = WEIGHT * np.sqrt((expected.rows**2).sum() + (expected.logit**2).sum())
        np.testing.assert_allclose(found.metrics["grad_norm"], norm, rtol=1e-5)
    assert whole[0].metrics.keys() == parts[0].metrics.keys()
    for name, value in whole[0].metrics.items():
        np.testing.assert_allclose(parts[0].metrics[name], value, rtol=2e-5, atol=1e-6, err_msg=name)
    np.testing.assert_array_equal(parts[0].rows.ids, whole[0].rows.ids)
    assert parts[0].first_time == whole[0].first_time == len(np.unique(labels[labels >= 0]))
    unit = embeddings_of(SEED) / np.linalg.norm(embeddings_of(SEED), axis=1, keepdims=True)
    pairs = (unit @ unit.T)[~np.eye(len(unit), dtype=bool)]
    np.testing.assert_allclose(parts[0].metrics["embedding_cosine"], pairs.mean(), rtol=1e-4, atol=1e-6)


def test_samples_and_labels_are_counted_and_a_label_outside_the_bank_makes_nan() -> None:
    config, placement = CentersConfig(loss="margin_softmax"), placement_on(2)
    plan, bank = BankPlan("vid", C, 20, L), fresh_bank(placement)

    def n(bank: Bank, labels: jax.Array) -> tuple[jax.Array, jax.Array]:
        drawn = draw_batch(bank, labels, jax.random.key(0), 1, plan, placement, config)
        return drawn.n_samples, drawn.n_labels

    specs = {"in_specs": (bank_specs(placement), placement.samples), "out_specs": jax.P()}
    count = jax.jit(jax.shard_map(n, mesh=placement.mesh, check_vma=False, **specs))
    labels = labels_of(0)
    distinct = sum(len(set(row[row >= 0].tolist())) for row in labels)
    assert [float(x) for x in count(bank, labels)] == [len(labels), distinct]
    assert [float(x) for x in count(bank, np.full_like(labels, -1))] == [len(labels), 1]
    labels[5, 0] = C
    assert np.isnan([float(x) for x in count(bank, labels)]).all()
