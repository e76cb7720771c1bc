"""The front end of attention: which implementation is chosen, what is said of it, and what is refused."""

import logging
from typing import get_args, get_type_hints

import jax
import numpy as np
import pytest

from ove.config import EncoderConfig
from ove.encoder import attention, machine
from ove.encoder.attention import BACKENDS, Case, choose
from ove.encoder.machine import PLAIN, Machine, tracing_for
from ove.errors import ConfigError

CPU, TPU, H100 = Machine("cpu"), Machine("tpu"), Machine("cuda", 9.0)


@pytest.fixture(autouse=True)
def forget_choices() -> None:
    choose.cache_clear()


@pytest.mark.parametrize(
    ("here", "dtype", "head_width", "odd", "segmented", "expected"),
    [
        (CPU, "float32", 64, False, False, "cpu"),
        (CPU, "bfloat16", 64, False, True, "cpu"),
        (H100, "bfloat16", 64, False, False, "cudnn"),
        (H100, "float16", 128, False, False, "cudnn"),
        (H100, "bfloat16", 64, True, False, "pallas"),
        (H100, "bfloat16", 64, False, True, "pallas"),
        (H100, "float32", 64, False, False, "cpu"),
        (H100, "bfloat16", 160, False, False, "cpu"),
        (Machine("cuda", 7.5), "bfloat16", 64, False, False, "cpu"),
        (Machine("rocm"), "bfloat16", 64, False, True, "cpu"),
        (TPU, "bfloat16", 64, True, True, "splash"),
        (TPU, "float32", 32, False, False, "splash"),
        (Machine("METAL"), "float32", 64, False, False, "cpu"),
    ],
)
def test_each_machine_gets_its_own(here, dtype, head_width, odd, segmented, expected: str) -> None:
    case = Case(here, dtype, head_width, odd, segmented)
    assert choose("auto", case) == expected
    assert choose("cpu", case) == "cpu"
    assert choose(expected, case) == expected


@pytest.mark.parametrize(
    ("backend", "here", "dtype", "head_width", "odd", "segmented", "why"),
    [
        ("cudnn", CPU, "bfloat16", 64, False, False, "NVIDIA GPU of compute capability 8.0"),
        ("pallas", TPU, "bfloat16", 64, False, False, "NVIDIA GPU of compute capability 8.0"),
        ("splash", H100, "bfloat16", 64, False, False, "needs a TPU"),
        ("cudnn", H100, "float32", 64, False, False, "not float32"),
        ("cudnn", H100, "bfloat16", 256, False, False, "up to 128"),
        ("cudnn", H100, "bfloat16", 64, False, True, "does not support segments"),
        ("cudnn", H100, "bfloat16", 64, True, False, "even number"),
        ("splash", TPU, "float16", 64, False, False, "not float16"),
        ("flash", H100, "bfloat16", 64, False, False, "none of auto, cudnn, pallas, splash, cpu, reference"),
    ],
)
def test_what_cannot_be_done_is_refused_with_the_reason(backend, here, dtype, head_width, odd, segmented, why: str) -> None:
    with pytest.raises(ConfigError, match=why):
        choose(backend, Case(here, dtype, head_width, odd, segmented))


def test_every_backend_is_known_by_its_name_in_the_configuration() -> None:
    assert get_args(get_type_hints(EncoderConfig)["attention"]) == ("auto", *BACKENDS)


def test_without_a_machine_only_the_reference_is_used() -> None:
    case = Case(PLAIN, "float32", 64, False, True)
    assert choose("auto", case) == choose("reference", case) == "reference"
    with pytest.raises(ConfigError, match=r"'cpu' cannot be used .* on plain: it has no forward mode"):
        choose("cpu", case)


def test_a_choice_is_logged_once_with_its_reason(caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, "ove.encoder.attention"):
        for _ in range(2):
            choose("auto", Case(H100, "bfloat16", 64, False, False))
            choose("auto", Case(H100, "float32", 64, False, False))
    said = [(record.levelname, record.getMessage()) for record in caplog.records]
    assert len(said) == 2
    assert said[0][0] == "INFO" and "attention: cudnn (bfloat16, heads of 64" in said[0][1]
    assert said[1][0] == "WARNING" and "not float32" in said[1][1]


def test_attend_asks_for_what_this_machine_can_do() -> None:
    q, k, v = (jax.random.normal(jax.random.key(i), (2, 3, 40, 64)) for i in range(3))
    ids = np.sort(np.random.default_rng(0).integers(0, 4, (2, 40)), axis=1).astype(np.int32)
    for segment_ids in (None, jax.numpy.asarray(ids)):
        expected = attention.reference(q, k, v, segment_ids)
        for backend in ("auto", "cpu", "reference"):
            np.testing.assert_allclose(attention.attend(q, k, v, segment_ids, backend), expected, atol=1e-5)
    with pytest.raises(ConfigError, match=r"'splash' cannot be used for float32.*on cpu: it needs a TPU"):
        attention.attend(q, k, v, backend="splash")


def test_another_machine_can_be_traced_for() -> None:
    with tracing_for(TPU):
        assert machine.current() == TPU
    assert machine.current() == CPU


def test_the_machine_is_that_of_the_default_device(monkeypatch: pytest.MonkeyPatch) -> None:
    assert machine.current() == CPU
    with jax.default_device(jax.devices()[1]):
        assert machine.current() == CPU
    for platform, capability, expected in (
        ("gpu", "9.0", H100),
        ("gpu", "gfx942", Machine("rocm")),
        ("tpu", None, TPU),
    ):
        device = type("Device", (), {"platform": platform, "compute_capability": capability})()
        monkeypatch.setattr(jax, "local_devices", lambda backend=None, device=device: [device])
        assert machine.current() == expected
