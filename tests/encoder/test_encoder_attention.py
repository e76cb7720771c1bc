"""All implementations of attention agree, gradients included."""

import jax
import numpy as np
import pytest

from ove.encoder import attention


@pytest.mark.parametrize(("backend", "devices"), [("cpu", 1), ("cpu", 8), ("gpu", 1)])
def test_every_backend_gives_the_same(monkeypatch: pytest.MonkeyPatch, backend: str, devices: int) -> None:
    arrays = [jax.random.normal(jax.random.key(i), (2, 3, 40, 64)) for i in range(3)]
    expected = attention.reference(*arrays)
    monkeypatch.setattr(jax, "default_backend", lambda: backend)
    monkeypatch.setattr(jax, "device_count", lambda: devices)
    np.testing.assert_allclose(attention.attend(*arrays), expected, atol=1e-5)
