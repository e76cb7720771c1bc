"""The work of a step by the formula is that of its program; shares of a peak are told only where there is one."""

import dataclasses
import math
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import jax
import jax.numpy as jnp
import own_functions
import pytest
from tiny_run import config_of

from ove.config import EncoderConfig
from ove.encoder import encoder
from ove.encoder.presets import PRESETS
from ove.train.monitor.speed import bank_flops, encoder_flops, memory_gib, peak_flops, rates, workload


def is_program(x: Any) -> bool:
    return hasattr(x, "eqns") or hasattr(x, "jaxpr")


def products(program: Any) -> int:
    """Operations of all matrix products in a program; what a scan repeats counts as often."""
    total = 0
    for equation in getattr(program, "jaxpr", program).eqns:
        if equation.primitive.name == "dot_general":
            (contracted, _), _ = equation.params["dimension_numbers"]
            left = equation.invars[0].aval.shape
            total += 2 * math.prod(equation.outvars[0].aval.shape) * math.prod(left[axis] for axis in contracted)
        times = equation.params["length"] if equation.primitive.name == "scan" else 1
        # A custom derivative comes with its forward and backward programs as functions, which are not run here.
        for inner in filter(is_program, jax.tree.leaves(list(equation.params.values()), is_leaf=is_program)):
            total += times * products(inner)
    return total


@pytest.mark.parametrize("embedding", [0, 64])
def test_the_forward_pass_is_the_formula(embedding: int) -> None:
    config = EncoderConfig(layers=3, width=128, heads=4, mlp=320, attention="reference", embedding=embedding)
    n = 40
    params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    seen = jax.ShapeDtypeStruct((1, n, 588), jnp.float32), jax.ShapeDtypeStruct((1, n, 3), jnp.int32)
    program = jax.make_jaxpr(lambda *given: encoder.apply(config, *given).pooled)(params, *seen)
    patches = 2 * n * 588 * 128
    forward = patches + (encoder_flops(config, n) - 2 * patches) / 3
    # The formula leaves out what does not go by the sample: the probe's query and its product with the keys' kernel.
    assert products(program) == forward + 4 * 128**2


def test_the_large_encoder_takes_about_6_operations_a_parameter_and_token_and_its_attention() -> None:
    config, n = PRESETS["large"], 2048
    in_blocks = config.layers * (4 * config.width**2 + 2 * config.width * config.mlp)
    attention = 12 * config.layers * n**2 * config.width
    assert encoder_flops(config, n) == pytest.approx(6 * in_blocks * n + attention, rel=0.01)


def test_a_step_is_the_sum_of_its_samples_and_banks() -> None:
    config = config_of(Path())
    work = workload(config, {"vid": 100, "obj": 8}, {"vid": 16, "obj": 4})
    assert (work.samples, work.tokens) == (16, 8 * 16 + 8 * 4)
    vid, obj = config.batches.heads
    # 50 negatives and 2 labels each of 8 samples; a bank of 8 rows has no more than 8.
    assert bank_flops(config, vid, 100) == 6 * 8 * (50 + 16) * 64
    assert bank_flops(config, obj, 8) == 6 * 8 * 8 * 64
    encoders = 8 * (encoder_flops(config.encoder, 16) + encoder_flops(config.encoder, 4))
    assert work.flops == encoders + bank_flops(config, vid, 100) + bank_flops(config, obj, 8)
    softmax = dataclasses.replace(config, centers=dataclasses.replace(config.centers, loss="margin_softmax"))
    assert bank_flops(softmax, vid, 100) == 8 / 6 * bank_flops(config, vid, 100)


def test_ones_own_loss_counts_what_it_declares_or_as_much_as_the_sigmoid(monkeypatch: pytest.MonkeyPatch) -> None:
    config = config_of(Path())
    own = dataclasses.replace(config, centers=dataclasses.replace(config.centers, loss="own_functions:sigmoid"))
    head = config.batches.heads[0]
    assert bank_flops(own, head, 100) == bank_flops(config, head, 100)
    monkeypatch.setattr(own_functions.sigmoid, "flops", 9, raising=False)
    assert bank_flops(own, head, 100) == 9 / 6 * bank_flops(config, head, 100)


def test_a_peak_is_that_of_the_device_or_none() -> None:
    for kind, tflops in (
        ("NVIDIA H100 80GB HBM3", 989),
        ("NVIDIA H100 PCIe", 756),
        ("NVIDIA A100-SXM4-40GB", 312),
        ("TPU v5", 459),
        ("TPU v5 lite", 197),
        ("TPU v6 lite", 918),
    ):
        assert peak_flops(kind, "bfloat16") == tflops * 1e12
        assert peak_flops(kind, "float32") is None
    assert peak_flops("cpu", "bfloat16") is None
    assert peak_flops("NVIDIA H100 80GB HBM3", "bfloat16", 100.0) == peak_flops("cpu", "float32", 100.0) == 1e14


def test_rates_are_of_all_devices_and_shares_of_one() -> None:
    work = workload(config_of(Path()), {"vid": 8, "obj": 8}, {"vid": 16, "obj": 4})
    values = rates(work, 500.0, 8, 1e12)
    assert values["tokens_per_s"] == 2 * 160
    assert values["tflops_per_device"] == pytest.approx(2 * work.flops / 8 / 1e12)
    assert values["mfu"] == pytest.approx(values["tflops_per_device"])
    assert "mfu" not in rates(work, 500.0, 8, None)


def test_memory_is_what_the_fullest_device_tells() -> None:
    here = memory_gib(jax.local_devices())
    assert here.keys() == {"host_memory_gib"} and 0.01 < here["host_memory_gib"] < 1000
    gib = 2**30
    devices = [Mock(spec=jax.Device) for _ in range(2)]
    for used, device in zip((1, 3), devices, strict=True):
        device.memory_stats.return_value = {"bytes_in_use": used * gib, "peak_bytes_in_use": 2 * used * gib}
    told = memory_gib(devices)
    assert (told["device_memory_gib"], told["device_memory_peak_gib"]) == (3, 6)
