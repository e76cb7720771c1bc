"""The loss and its gradients equal a float64 brute force that goes pair by pair."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from ove.centers import objective
from ove.centers.bank import Bank, init_bank
from ove.centers.sample import Drawn
from ove.config import CentersConfig

B, L, M, C, E, NEGATIVES = 16, 6, 4, 40, 24, 12


def problem(labels_per_step: int = L) -> tuple[Bank, Drawn, jax.Array]:
    """A bank, what a step draws from it, and embeddings; labels are shared, doubled and missing."""
    rng = np.random.default_rng(3)
    labels = rng.integers(0, C, (B, L)).astype(np.int32)
    labels[1] = labels[0]
    labels[2, :3] = labels[2, 3]
    labels[3, 2:] = -1
    labels[4] = -1
    bank = init_bank(jax.random.key(0), C, E, CentersConfig(init_std=0.3), positives=L, negatives=NEGATIVES)
    drawn = objective.draw(jax.random.key(1), jnp.array(labels), C, n_negatives=NEGATIVES, labels_per_step=labels_per_step)
    return bank, drawn, jax.random.normal(jax.random.key(2), (B, E))


def brute_force(bank: Bank, drawn: Drawn, embeddings: np.ndarray, kind: str) -> tuple[float, np.ndarray, np.ndarray]:
    """Loss, gradient of the embeddings, gradient of the whole bank."""
    rows, e = np.asarray(bank.rows, np.float64), np.asarray(embeddings, np.float64)
    ids, is_negative = np.asarray(drawn.ids), np.asarray(drawn.is_negative)
    scale, bias = (float(bank.scale), float(bank.bias)) if kind == "sigmoid" else (1.0, 0.0)
    negatives = set(ids[is_negative].tolist())
    loss, grad_e, grad_rows = 0.0, np.zeros_like(e), np.zeros_like(rows)
    for u in range(len(e)):
        mine = set(np.asarray(drawn.labels)[u].tolist()) - {-1}
        known = set(np.asarray(drawn.all_labels)[u].tolist()) - {-1}
        for k in mine | negatives:
            y = 1.0 if k in known else -1.0
            ne, nc = np.linalg.norm(e[u]), np.linalg.norm(rows[k])
            if kind == "raw":
                ne = nc = 1.0
            eu, ck = e[u] / ne, rows[k] / nc
            cosine = eu @ ck
            loss += np.logaddexp(0, -y * (scale * cosine + bias)) / len(e)
            slope = -y * scale / (1 + np.exp(y * (scale * cosine + bias))) / len(e)
            radial = 0.0 if kind == "raw" else cosine
            grad_e[u] += slope * (ck - radial * eu) / ne
            grad_rows[k] += slope * (eu - radial * ck) / nc
    return loss, grad_e, grad_rows


@pytest.mark.parametrize("kind", ["sigmoid", "raw"])
@pytest.mark.parametrize("labels_per_step", [L, M])
def test_loss_and_gradients_equal_brute_force(kind: str, labels_per_step: int) -> None:
    bank, drawn, embeddings = problem(labels_per_step)
    config = CentersConfig(loss=kind)

    def loss_of(sampled, embeddings):
        return objective.loss(sampled, drawn, embeddings, config)[0]

    loss, (grads, grad_e) = jax.value_and_grad(loss_of, argnums=(0, 1))(objective.gather(bank, drawn), embeddings)
    expected, expected_e, expected_rows = brute_force(bank, drawn, np.asarray(embeddings), kind)
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    np.testing.assert_allclose(grad_e, expected_e, atol=1e-5)
    got_rows = np.zeros((C, E))
    used = np.asarray(drawn.ids) < C
    got_rows[np.asarray(drawn.ids)[used]] = np.asarray(grads.rows)[used]
    np.testing.assert_allclose(got_rows, expected_rows, atol=1e-5)
    assert np.all(np.asarray(grads.rows)[~used] == 0)


def test_scale_and_bias_have_the_slope_of_the_loss() -> None:
    bank, drawn, embeddings = problem()
    sampled = objective.gather(bank, drawn)
    grads = jax.grad(lambda s: objective.loss(s, drawn, embeddings, CentersConfig())[0])(sampled)
    for name in ("scale", "bias"):
        up, down = (
            brute_force(bank._replace(**{name: getattr(bank, name) + h}), drawn, np.asarray(embeddings), "sigmoid")[0]
            for h in (0.01, -0.01)
        )
        np.testing.assert_allclose(getattr(grads, name), (up - down) / 0.02, rtol=1e-3)


def test_mean_logits_are_those_of_the_counted_pairs() -> None:
    bank, drawn, embeddings = problem()
    aux = objective.loss(objective.gather(bank, drawn), drawn, embeddings, CentersConfig(loss="raw"))[1]
    logits = np.asarray(embeddings, np.float64) @ np.asarray(bank.rows, np.float64).T
    negatives = np.asarray(drawn.ids)[np.asarray(drawn.is_negative)]
    is_label = (np.asarray(drawn.all_labels)[:, :, None] == np.arange(C)).any(1)
    np.testing.assert_allclose(aux["positive_logit"], logits[is_label].mean(), rtol=1e-5)
    np.testing.assert_allclose(aux["negative_logit"], logits[:, negatives][~is_label[:, negatives]].mean(), rtol=1e-5)


def test_fresh_bank_predicts_the_share_of_positives() -> None:
    bank = init_bank(jax.random.key(0), C, E, CentersConfig(), positives=3, negatives=9)
    np.testing.assert_allclose(np.exp(float(bank.bias)), 3 / 9, rtol=1e-6)


def test_loss_of_a_sharded_batch_equals_the_unsharded_one() -> None:
    bank, drawn, embeddings = problem()
    labels = drawn.all_labels

    @jax.jit
    def grads_of(bank, labels, embeddings):
        drawn = objective.draw(jax.random.key(1), labels, C, n_negatives=NEGATIVES, labels_per_step=M)
        return jax.value_and_grad(lambda sampled, e: objective.loss(sampled, drawn, e, CentersConfig())[0], argnums=(0, 1))(
            objective.gather(bank, drawn), embeddings
        )

    mesh = Mesh(np.array(jax.devices()), ("data",))
    by_batch, by_row = NamedSharding(mesh, PartitionSpec("data")), NamedSharding(mesh, PartitionSpec("data", None))
    assert len(jax.devices()) == 8
    placed = bank._replace(rows=jax.device_put(bank.rows, by_row))
    got = grads_of(placed, jax.device_put(labels, by_batch), jax.device_put(embeddings, by_batch))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6), got, grads_of(bank, labels, embeddings))
