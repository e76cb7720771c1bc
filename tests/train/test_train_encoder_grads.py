"""What the encoder gets to see: a device's samples, in microbatches, and parameters that are whole; and what comes back."""

from pathlib import Path
from types import SimpleNamespace

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from tiny_run import config_of

from ove.config import MeshConfig
from ove.encoder import encoder
from ove.train.encoder_grads import make_encode
from ove.train.sharding import make_mesh


@pytest.mark.parametrize(
    ("n_devices", "fsdp", "accumulate"), [(1, 1, 1), (2, 1, 1), (1, 1, 4), (2, 1, 2), (2, 2, 2), (4, 2, 1)]
)
def test_the_encoder_sees_a_microbatch_of_each_device_at_a_time_and_whole_parameters(
    n_devices: int, fsdp: int, accumulate: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    sizes = set()

    def apply(config, params, patches, positions, fetch):
        """Instead of the encoder: something whose gradients are easily told."""
        sizes.add(patches.shape[0])
        layers = [jax.tree.map(lambda leaf, n=n: leaf[n], params["blocks"]) for n in range(2)]
        first, second = ((fetch or (lambda layer: layer))(layer)["kernel"] for layer in layers)
        assert first.shape == (4,)
        return SimpleNamespace(pooled=params["patch"]["kernel"] * patches.sum(1) + first.sum() * second * positions.sum(1))

    monkeypatch.setattr(encoder, "apply", apply)
    rng = np.random.default_rng(0)
    batch = {"obj": {name: rng.normal(size=(8, 5, 4)).astype(np.float32) for name in ("patches", "positions")}}
    patch, first, second = np.array([1.0, 2, 3, 4]), np.array([0.5, 0.25, 1, -0.5]), np.array([2.0, 1, -1, 0.5])
    params = {"patch": {"kernel": jnp.array(patch)}, "blocks": {"kernel": jnp.array([first, second])}}
    specs = {"patch": {"kernel": jax.P("fsdp")}, "blocks": {"kernel": jax.P(None, "fsdp")}}
    mesh = make_mesh(MeshConfig(fsdp=fsdp), jax.devices()[:n_devices])
    encode = make_encode(config_of(Path()).encoder, mesh, specs, accumulate)
    by_sample = rng.normal(size=(8, 4)).astype(np.float32)

    def total(params):
        found = encode(params, batch)["obj"]
        return (found * by_sample).sum(), found

    grads, found = jax.jit(jax.grad(total, has_aux=True))(params)
    assert sizes == {8 // n_devices // accumulate}
    embeds_again = "remat2" in str(jax.make_jaxpr(jax.grad(total, has_aux=True))(params))
    assert embeds_again == (accumulate > 1)
    patches, positions = (batch["obj"][name].sum(1) for name in ("patches", "positions"))
    np.testing.assert_allclose(found, patches * patch + first.sum() * second * positions, rtol=1e-5, atol=1e-5)
    moved = (positions * by_sample).sum(0)
    np.testing.assert_allclose(grads["patch"]["kernel"], (patches * by_sample).sum(0), rtol=1e-4, atol=1e-5)
    expected = [np.full(4, (moved * second).sum()), first.sum() * moved]
    np.testing.assert_allclose(grads["blocks"]["kernel"], expected, rtol=1e-4, atol=1e-5)
