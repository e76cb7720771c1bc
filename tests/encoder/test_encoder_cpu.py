"""The parts of a block that a CPU computes in a way of its own: their gradients, their order, and their plain namesakes."""

import dataclasses
import functools
import math
from collections.abc import Callable

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from ove.config import EncoderConfig
from ove.encoder import attention_cpu, cpu, encoder
from ove.encoder.block import Norm, gelu
from ove.encoder.cpu import after
from ove.encoder.machine import PLAIN, Machine, tracing_for

EPS = 1e-2


def as_on_paper(x: jax.Array, scale: jax.Array, bias: jax.Array | None) -> jax.Array:
    if bias is None:
        return x / jnp.sqrt((x**2).mean(-1, keepdims=True) + EPS) * scale
    return (x - x.mean(-1, keepdims=True)) / jnp.sqrt(x.var(-1, keepdims=True) + EPS) * scale + bias


@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("leading", [(), (2, 7)])
def test_norms_have_the_gradients_of_their_definition(centred: bool, leading: tuple[int, ...]) -> None:
    x, d_out = (jax.random.normal(jax.random.key(i), (*leading, 96)) + 0.5 for i in range(2))
    scale, bias = (jax.random.normal(jax.random.key(i), (96,)) for i in (2, 3))
    given = (x, scale, bias if centred else None)
    got, pull = jax.vjp(lambda *xs: cpu.norm(EPS, *xs), *given)
    expected, pull_expected = jax.vjp(as_on_paper, *given)
    np.testing.assert_allclose(got, expected, atol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), pull(d_out), pull_expected(d_out))


def test_norms_of_bfloat16_have_float32_gradients_of_their_parameters() -> None:
    x = jax.random.normal(jax.random.key(0), (4, 64), jnp.bfloat16)
    out, pull = jax.vjp(lambda *xs: cpu.norm(EPS, *xs), x, jnp.ones(64), jnp.zeros(64))
    dtypes = [leaf.dtype for leaf in (out, *pull(jnp.ones_like(out)))]
    assert dtypes == [jnp.bfloat16, jnp.bfloat16, jnp.float32, jnp.float32]


@pytest.mark.parametrize("here", [Machine("cpu"), PLAIN])
def test_gelu_is_exact_and_so_is_its_gradient(here: Machine) -> None:
    x = jnp.linspace(-9, 9, 20_001)
    exact = np.array([0.5 * v * (1 + math.erf(v / math.sqrt(2))) for v in np.asarray(x, np.float64)])
    with tracing_for(here):
        np.testing.assert_allclose(gelu(x), exact, atol=1e-6)
        np.testing.assert_allclose(gelu(x.astype(jnp.bfloat16)).astype(jnp.float32), exact, rtol=0.02, atol=0.01)
        got, expected = (
            jax.vjp(f, x)[1](jnp.ones_like(x))[0] for f in (gelu, functools.partial(jax.nn.gelu, approximate=False))
        )
    np.testing.assert_allclose(got, expected, atol=1e-6)


def test_linear_layers_have_the_gradients_of_a_product() -> None:
    shapes = [(4, 10, 24), (24, 56), (56,), (4, 10, 56)]
    x, kernel, bias, d_out = (jax.random.normal(jax.random.key(i), shape) for i, shape in enumerate(shapes))
    got, expected = (jax.vjp(f, x, kernel, bias)[1](d_out) for f in (cpu.linear, lambda x, kernel, bias: x @ kernel + bias))
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-5), got, expected)


@pytest.mark.parametrize("y", [1.0, -1.0, -0.0, np.inf, -np.inf, np.nan])
def test_waiting_changes_no_value(monkeypatch: pytest.MonkeyPatch, y: float) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)
    for dtype in (jnp.float32, jnp.bfloat16):
        x = jax.random.normal(jax.random.key(0), (3, 5), dtype)
        waited = jax.jit(after)(x, jnp.full((2, 2), y, dtype))
        assert waited.dtype == dtype
        np.testing.assert_array_equal(waited, x)


def test_waiting_saves_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(jax, "device_count", lambda: 1)

    def temporary(eps: float) -> list[int]:
        # Each call has an epsilon of its own, lest what was traced for another be taken.
        config = EncoderConfig(layers=2, width=256, heads=4, mlp=1024, norm_eps=eps)
        params = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
        inputs = jnp.zeros((1, 256, config.patch_values), jnp.uint8), jnp.zeros((1, 256, 3), jnp.int32)
        programs = [lambda p: encoder.apply(config, p, *inputs).pooled.sum()]
        programs.append(jax.grad(programs[0]))
        return [jax.jit(f).lower(params).compile().memory_analysis().temp_size_in_bytes for f in programs]

    waiting = temporary(1e-6)
    for module in (cpu, attention_cpu):
        monkeypatch.setattr(module, "after", lambda x, y: x)
    forward, both = (a / b for a, b in zip(waiting, temporary(2e-6), strict=True))
    assert forward < 0.8
    assert both < 0.8


CONFIG = EncoderConfig(layers=2, width=64, heads=2, mlp=128)


@pytest.fixture(scope="module")
def problem() -> tuple[Callable[[encoder.Params], jax.Array], encoder.Params, encoder.Params]:
    """A function of parameters, the parameters, and a direction to change them in."""
    rng = np.random.default_rng(0)
    patches = rng.normal(size=(1, 12, CONFIG.patch_values)).astype(np.float32)
    positions = rng.integers(0, 16, (1, 12, 3)).astype(np.int32)
    params, direction = (jax.jit(lambda key: encoder.init(CONFIG, key))(jax.random.key(i)) for i in range(2))
    return lambda params: encoder.apply(CONFIG, params, patches, positions).pooled.mean(), params, direction


def test_on_the_plain_machine_forward_mode_gives_the_derivative_of_reverse_mode(problem: tuple) -> None:
    function, params, direction = problem
    value, gradient = jax.jit(jax.value_and_grad(function))(params)
    slope = sum(jax.tree.leaves(jax.tree.map(jnp.vdot, gradient, direction)))
    with tracing_for(PLAIN):
        got = jax.jit(lambda *xs: jax.jvp(function, *xs))((params,), (direction,))
        plain_gradient = jax.jit(jax.grad(function))(params)
    np.testing.assert_allclose(got, (value, slope), rtol=1e-4)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-6), plain_gradient, gradient)


def test_on_a_cpu_forward_mode_is_refused_by_jax(problem: tuple) -> None:
    function, params, direction = problem
    with pytest.raises(TypeError, match="forward-mode"):
        jax.jvp(function, (params,), (direction,))


def test_the_machine_traced_for_is_part_of_the_key_of_compiled_programs(problem: tuple) -> None:
    function, params, _ = problem
    compiled = jax.jit(function)
    compiled(params)
    with tracing_for(PLAIN):
        assert "custom_vjp" not in str(jax.make_jaxpr(compiled)(params))
    assert "custom_vjp" in str(jax.make_jaxpr(compiled)(params))


@pytest.mark.parametrize("kind", ["layer_norm", "rms_norm"])
def test_plain_norms_equal_those_of_a_cpu(kind: str) -> None:
    x = jax.random.normal(jax.random.key(0), (3, 5, 64), jnp.bfloat16) + 1
    norm = Norm(64, kind, EPS)
    on_cpu = norm(x)
    with tracing_for(PLAIN):
        plain = norm(x)
    assert plain.dtype == jnp.bfloat16
    np.testing.assert_array_equal(plain.astype(jnp.float32), on_cpu.astype(jnp.float32))


def test_a_program_for_tpus_computes_what_one_for_cpus_does() -> None:
    # `released`: both values of a pair have angles of their own, and none may be taken for the other.
    config = dataclasses.replace(CONFIG, layers=1, rope="released", attention="cpu", remat="full")
    rng = np.random.default_rng(0)
    inputs = rng.integers(0, 256, (2, 12, config.patch_values), np.uint8), rng.integers(0, 16, (2, 12, 3))
    # Also norms and biases, which would start as ones and zeros: these hide one in the wrong place.
    shapes = jax.eval_shape(lambda: encoder.init(config, jax.random.key(0)))
    params = jax.tree.map(lambda x: 0.3 * rng.standard_normal(x.shape, np.float32), shapes)
    direction = rng.standard_normal(config.width, np.float32)
    function = jax.value_and_grad(lambda params: (encoder.apply(config, params, *inputs).pooled @ direction).sum())
    expected = jax.jit(function)(params)
    with tracing_for(Machine("tpu")):
        got = jax.jit(function)(params)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=5e-5 * np.abs(b).max()), got, expected)
