"""The encoder sees a device's samples once, in microbatches, and whole parameters; gradients are those of the whole batch."""

import dataclasses
import functools
from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import config_of

from ove.centers.bank import Bank, init_bank
from ove.centers.gradient import BankGradient, BankPlan
from ove.centers.objective import bank_gradient
from ove.config import CentersConfig, MeshConfig
from ove.encoder import encoder
from ove.train.encoder_grads import BatchArrays, make_gradients
from ove.train.sharding import make_mesh, placement

B, C, E = {"vid": 16, "obj": 8}, 24, 64
PLANS = {bank: BankPlan(bank, C, 8, 2, weight) for bank, weight in (("vid", 1.0), ("obj", 0.25))}
CENTERS = CentersConfig(init_std=0.3)
SPECS = {"patch": {"kernel": jax.P("fsdp")}, "blocks": {"kernel": jax.P(None, "fsdp")}}
KEY = 7


def encode(patch: jax.Array, first: jax.Array, second: jax.Array, batch: dict[str, jax.Array]) -> jax.Array:
    """Instead of the encoder: something whose gradients are easily told."""
    return patch * batch["patches"].sum(1) + first.sum() * second * jnp.tan(batch["positions"].sum(1))


@functools.cache
def problem() -> tuple[BatchArrays, np.ndarray, dict[str, Bank]]:
    """Samples, parameters and banks."""
    rng = np.random.default_rng(0)
    batch = {
        bank: {name: jnp.asarray(rng.normal(size=(n, 5, E)), jnp.float32) for name in ("patches", "positions")}
        | {"labels": jnp.asarray(rng.integers(0, C, (n, 3)), jnp.int32)}
        for bank, n in B.items()
    }
    make = functools.partial(init_bank, n_centers=C, width=E, config=CENTERS, positives=3, negatives=8)
    return batch, rng.normal(size=(3, E)).astype(np.float32), {bank: make(jax.random.key(n)) for n, bank in enumerate(B)}


@functools.cache
def of_whole_batch() -> tuple[np.ndarray, dict[str, BankGradient]]:
    """On one device: the gradients of `encode` by its parameters through those of the embeddings, and those of the banks."""
    batch, params, banks = problem()
    by_params, of_banks, alone = np.zeros((3, E)), {}, placement(make_mesh(devices=jax.devices()[:1]))
    for number, (bank, plan) in enumerate(PLANS.items()):
        embeddings, pull = jax.vjp(functools.partial(encode, batch=batch[bank]), *params)
        gradient = jax.jit(functools.partial(bank_gradient, plan=plan, placement=alone, config=CENTERS))
        key = jax.random.fold_in(jax.random.key(KEY), number)
        of_banks[bank], cotangent = gradient(banks[bank], embeddings, batch[bank]["labels"], key)
        by_params += np.stack(pull(cotangent))
    return by_params, of_banks


@pytest.mark.parametrize(
    ("n_devices", "fsdp", "accumulate"),
    [(4, 2, 2), *(pytest.param(*case, marks=pytest.mark.slow) for case in ((1, 1, 1), (1, 1, 4), (2, 1, 2)))],
)
def test_each_sample_is_embedded_once_and_gradients_are_those_of_the_whole_batch(
    n_devices: int, fsdp: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = []

    def apply(config, params, patches, positions, fetch):
        sizes.append(patches.shape[0])
        layers = [jax.tree.map(lambda leaf, n=n: leaf[n], params["blocks"]) for n in range(2)]
        first, second = ((fetch or (lambda layer: layer))(layer)["kernel"] for layer in layers)
        assert first.shape == (E,)
        batch = {"patches": patches, "positions": positions}
        return SimpleNamespace(pooled=encode(params["patch"]["kernel"], first, second, batch))

    monkeypatch.setattr(encoder, "apply", apply)
    batch, (patch, *layers), banks = problem()
    params = {"patch": {"kernel": jnp.array(patch)}, "blocks": {"kernel": jnp.array(layers)}}
    config = dataclasses.replace(config_of(Path(), grad_accum_steps=accumulate), centers=CENTERS)
    mesh = make_mesh(MeshConfig(fsdp=fsdp), jax.devices()[:n_devices])
    gradients, key = make_gradients(config, mesh, SPECS, PLANS), jax.random.key(KEY)
    program = str(jax.make_jaxpr(gradients)(params, banks, batch, key))
    assert sizes == [n // n_devices // accumulate for n in B.values()]
    assert program.count("= tan ") == len(B)  # and nothing is embedded again for the way back
    grads, found = jax.jit(gradients)(params, banks, batch, key)
    expected, of_banks = of_whole_batch()
    for bank, whole in of_banks.items():
        np.testing.assert_allclose(found[bank].loss, whole.loss, rtol=1e-5)
        np.testing.assert_allclose(found[bank].rows.logit, whole.rows.logit, rtol=1e-4, atol=1e-6)
        np.testing.assert_allclose(found[bank].metrics["grad_norm"], whole.metrics["grad_norm"], rtol=1e-5)
    np.testing.assert_allclose(grads["patch"]["kernel"], expected[0], rtol=1e-4, atol=1e-4)
    np.testing.assert_allclose(grads["blocks"]["kernel"], expected[1:], rtol=1e-4, atol=1e-4)
