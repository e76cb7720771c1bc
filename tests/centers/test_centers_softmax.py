"""The margin softmax where its filter acts: cosines above it count as 0 and pull nothing, in loss and gradients."""

import functools

import dense_reference
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from bank_problem import by_center, centers_in_rows, drawn_centers, place, placement_on

from ove.centers.bank import init_bank
from ove.centers.gradient import BankPlan
from ove.centers.losses import LossInputs, LossParts
from ove.centers.objective import bank_gradient
from ove.centers.placement import BankPlacement
from ove.centers.sample import RowSample
from ove.centers.softmax import margin_softmax_parts
from ove.config import CentersConfig

C, B, E = 61, 12, 3
"""So few axes that many of the cosines lie above the filter."""
FILTER = 0.75


def table_by_center(ids: np.ndarray, values: np.ndarray, n_rows: int, n_shards: int) -> np.ndarray:
    """The gradient that the shards found for their sampled rows as a table in the order of the centers."""
    table, length = np.zeros((n_rows, values.shape[1])), n_rows // n_shards
    for shard, (mine, found) in enumerate(zip(np.split(ids, n_shards), np.split(values, n_shards), strict=True)):
        table[mine[mine < length] + shard * length] = found[mine < length]
    return by_center(table, C)


@pytest.mark.parametrize(("n_devices", "negatives", "chunk_rows", "scale"), [(1, C, 4096, 64.0), (2, 20, 7, 8.0)])
def test_loss_and_gradients_equal_the_reference_where_cosines_are_filtered(
    n_devices: int, negatives: int, chunk_rows: int, scale: float
) -> None:
    placement, plan = placement_on(n_devices), BankPlan("vid", C, negatives, 4)
    config = CentersConfig(loss="margin_softmax", chunk_rows=chunk_rows, init_std=1.0, softmax_scale=scale)
    rng = np.random.default_rng(4)
    e, labels = rng.normal(size=(B, E)).astype(np.float32), rng.integers(0, C, (B, 4)).astype(np.int32)
    labels[0], labels[1, 1:], labels[2] = labels[3], -1, -1
    bank = init_bank(jax.random.key(1), C, E, config, positives=4, negatives=20, n_shards=n_devices)
    centers = by_center(bank.rows, C).astype(np.float64)
    labels[4, :2] = np.argsort(-(centers / np.linalg.norm(centers, axis=1, keepdims=True)) @ e[4])[:2]  # both above the filter
    n_rows = len(bank.rows)

    @functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    def gradient(bank, e, labels):
        return bank_gradient(bank, e, labels, jax.random.key(0), plan=plan, placement=placement, config=config)

    samples = placement.sharding(placement.samples)
    out, cotangent = gradient(place(bank, placement), jax.device_put(e, samples), jax.device_put(labels, samples))
    sampled = np.union1d(labels[labels >= 0], drawn_centers(0, plan, config))
    cosine = dense_reference.cosines(e.astype(np.float64), centers)
    is_label = np.zeros((B, C), bool)
    for u in range(B):
        is_label[u, [k for k in labels[u] if k >= 0]] = True
    filtered = (cosine > FILTER) & np.isin(np.arange(C), sampled)
    assert (filtered & ~is_label).sum() > 20 and (filtered & is_label)[4].sum() >= 2
    expected = dense_reference.margin_softmax(
        dense_reference.DenseBank(centers, 1.0, 0.0), e.astype(np.float64), labels, sampled, scale, limit=FILTER
    )
    np.testing.assert_allclose(out.loss, expected.loss, rtol=1e-5)
    np.testing.assert_allclose(cotangent, expected.embeddings, rtol=1e-4, atol=1e-5)
    rows = table_by_center(*(np.asarray(x) for x in (out.rows.ids, out.rows.rows)), n_rows, n_devices)
    np.testing.assert_allclose(rows, expected.rows, rtol=1e-4, atol=1e-5)
    assert centers_in_rows(C).tolist() != list(range(C))


def parts_of(cosines: list[float], labels: list[int], config: CentersConfig) -> LossParts:
    """The loss of one embedding along x against unit rows in the plane at these cosines."""
    rows = jnp.array([[c, np.sqrt(1 - c * c)] for c in cosines], jnp.float32)
    ids, true = jnp.arange(len(cosines), dtype=jnp.int32), jnp.ones(len(cosines), bool)
    sample = RowSample(ids, true, true, jnp.int32(0))
    placement: BankPlacement = placement_on(1)

    def part(rows):
        slot, sizes = jnp.array([labels], jnp.int32), (jnp.float32(1), jnp.float32(len(labels)))
        bank = init_bank(jax.random.key(0), len(cosines), 2, config, positives=1, negatives=1)._replace(rows=rows)
        return tuple(
            margin_softmax_parts(LossInputs(jnp.array([[1.0, 0.0]]), bank, sample, slot, slot, *sizes, 1.0, placement, config))
        )

    spec = jax.P()
    return LossParts(*jax.jit(jax.shard_map(part, mesh=placement.mesh, in_specs=spec, out_specs=spec, check_vma=False))(rows))


def test_a_case_worked_out_by_hand() -> None:
    """Scale 10, margin 0.3; two labels at the cosines 0.6 and 0.8, other rows at 0.96, 0.28 and 0.

    In the softmax of the first label 0.8 and 0.96 count as 0, in that of the second 0.96 does:
      10·(0.6 − 0.3), 10·0, 10·0, 10·0.28, 10·0     and     10·(0.8 − 0.3), 10·0.6, 10·0, 10·0.28, 10·0.
    """
    config = CentersConfig(loss="margin_softmax", softmax_scale=10.0)
    parts = parts_of([0.6, 0.8, 0.96, 0.28, 0.0], [0, 1], config)
    e3, e5, e6, e28 = 20.0855369, 148.4131591, 403.4287935, 16.4446468
    first, second = e3 + 1 + 1 + e28 + 1, e5 + e6 + 1 + e28 + 1
    np.testing.assert_allclose(parts.loss, ((np.log(first) - 3) + (np.log(second) - 5)) / 2, rtol=1e-6)
    by_cosine = 10 / 2 * np.array([e3 / first - 1 + e6 / second, e5 / second - 1, 0, e28 / first + e28 / second])
    # Along y, at right angles to the embedding, a row (c, √(1 − c²)) feels −c·√(1 − c²) of the gradient by its cosine.
    tangents = -np.array([0.6 * 0.8, 0.8 * 0.6, 0.96 * 0.28, 0.28 * 0.96])
    np.testing.assert_allclose(parts.rows[:4, 1], by_cosine * tangents, rtol=1e-5, atol=1e-7)
    np.testing.assert_array_equal(parts.rows[2], [0, 0])


def test_a_filter_of_one_is_none() -> None:
    config = CentersConfig(loss="margin_softmax", softmax_scale=10.0, softmax_filter=1.0)
    parts = parts_of([0.6, 0.96, 1.0], [0], config)
    np.testing.assert_allclose(parts.loss, np.log(np.exp(3) + np.exp(9.6) + np.exp(10)) - 3, rtol=1e-6)
    labels = parts_of([0.6, 1.0], [0, 1], config)
    both = np.log(np.exp(3) + np.exp(10)) - 3 + np.log(np.exp(7) + np.exp(6)) - 7
    np.testing.assert_allclose(labels.loss, both / 2, rtol=1e-6)
