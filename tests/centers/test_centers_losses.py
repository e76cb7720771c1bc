"""Each loss on a sample with unused slots, in chunks, beside the same written pair by pair in float64."""

import functools
from collections.abc import Callable, Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import own_functions
import pytest
from bank_problem import placement_on

from ove.centers.bank import init_bank
from ove.centers.gradient import LOSSES, loss_of
from ove.centers.losses import LossInputs, LossParts, own_parts, raw_parts, sigmoid_parts
from ove.centers.sample import RowSample
from ove.centers.softmax import margin_softmax_parts
from ove.config import CentersConfig

C, B, E = 7, 4, 3
IDS = [0, 2, 3, 5, 6, C, C + 1, C + 2]
"""Slots of the sample; those from C on are unused."""
DRAWN = [True, False, True, True, True, False, False, False]
NONE = len(IDS)
KNOWN = [[0, 2, 4], [1, NONE, NONE], [NONE, NONE, NONE], [0, 1, NONE]]
CHOSEN = [[0, 4], [1, NONE], [NONE, NONE], [0, 1]]
"""Labels, and the drawn ones among them, by slot."""
SIZES = jnp.float32(B), jnp.float32(5)
"""Samples, and drawn labels."""
SCALE, BIAS, FRACTION = 3.0, -0.7, 0.4
Values = tuple[np.ndarray, np.ndarray, np.ndarray]
"""Embeddings, rows of the slots, (scale, bias); also complex."""


def unit(x: np.ndarray) -> np.ndarray:
    """Of a vector of 0 nothing is left."""
    squares = (x * x).sum()
    return x / np.sqrt(squares) if squares else x


def pairs_of(config: CentersConfig) -> list[tuple[int, int, float]]:
    """(embedding, slot, weight): 0 for a positive pair, else that of a negative one."""
    weight = 1 / FRACTION if config.negative_weight == "1/r" else 1.0
    found = []
    for u in range(B):
        for slot, (row, is_drawn) in enumerate(zip(IDS, DRAWN, strict=True)):
            if slot in KNOWN[u]:
                found.append((u, slot, 0.0))
            elif row < C and (is_drawn or config.undrawn_positives == "negative"):
                found.append((u, slot, weight))
    return found


def logit(kind: str, at: Values, u: int, slot: int) -> np.ndarray:
    embeddings, rows, (scale, bias) = at
    return embeddings[u] @ rows[slot] if kind == "raw" else scale * (unit(embeddings[u]) @ unit(rows[slot])) + bias


def softplus_loss(kind: str, config: CentersConfig, at: Values) -> np.ndarray:
    """Of a user's own loss the squares of all rows are a part, as it sees them."""
    loss = sum(
        (weight or 1) * np.log(1 + np.exp(logit(kind, at, u, slot) * (1 if weight else -1)))
        for u, slot, weight in pairs_of(config)
    )
    return (loss + ((at[1] * at[1]).sum() if kind == "own" else 0)) / B


def softmax_loss(kind: str, config: CentersConfig, at: Values) -> np.ndarray:
    """One softmax for each chosen label."""
    labels = [(u, slot) for u in range(B) for slot in CHOSEN[u] if slot < NONE]
    total = 0
    for u, label in labels:
        cosines = [unit(at[0][u]) @ unit(row) for row, number in zip(at[1], IDS, strict=True) if number < C]
        passed = [0 if np.real(cosine) > config.softmax_filter else cosine for cosine in cosines]
        passed[label] = cosines[label] - config.softmax_margin
        total = total - config.softmax_scale * passed[label] + np.log(sum(np.exp(config.softmax_scale * c) for c in passed))
    return total / len(labels)


def own(embeddings, rows, is_positive, is_negative, scale, bias):
    def normalized(x):
        return x / jnp.sqrt(jnp.maximum((x * x).sum(-1, keepdims=True), 1e-12))

    logits = scale * normalized(embeddings) @ normalized(rows).T + bias
    signs = jnp.where(is_positive, -1, 1)
    return jnp.where(is_positive | is_negative, jax.nn.softplus(signs * logits), 0).sum() + jnp.square(rows).sum()


def gradients(loss: Callable[[Values], np.ndarray], at: Values) -> Values:
    """Exact to rounding: the imaginary part of the loss a tiny imaginary step away."""
    found = tuple(np.zeros(part.shape) for part in at)
    for number, part in enumerate(at):
        for place in np.ndindex(part.shape):
            moved = [other.astype(complex) for other in at]
            moved[number][place] += 1e-30j
            found[number][place] = loss((moved[0], moved[1], moved[2])).imag / 1e-30
    return found[0], found[1], found[2]


PARTS: dict[str, Callable[[LossInputs], LossParts]] = {
    "sigmoid": sigmoid_parts,
    "raw": raw_parts,
    "own": functools.partial(own_parts, own),
    "margin_softmax": margin_softmax_parts,
}


@pytest.mark.parametrize("kind", PARTS)
@pytest.mark.parametrize(
    ("chunk_rows", "negative_weight", "undrawn"), [(8, "1", "negative"), (4, "1/r", "ignore")], ids=["one chunk", "chunks"]
)
def test_every_part_of_a_loss_is_that_of_the_pairs_one_by_one(
    kind: str, chunk_rows: int, negative_weight: str, undrawn: str
) -> None:
    if kind == "own":
        negative_weight = "1"  # is left to the function
    config = CentersConfig(
        chunk_rows=chunk_rows,
        negative_weight=negative_weight,  # type: ignore[arg-type]
        undrawn_positives=undrawn,  # type: ignore[arg-type]
        softmax_scale=4.0,
        softmax_filter=0.5,
    )
    rng = np.random.default_rng(2)
    e, table = (rng.normal(size=(n, E)).astype(np.float32) for n in (B, C))
    used = np.array(IDS) < C
    rows = np.where(used[:, None], table[np.minimum(IDS, C - 1)], 0).astype(np.float64)
    at: Values = e.astype(np.float64), rows, np.array([SCALE, BIAS])
    loss = functools.partial(softmax_loss if kind == "margin_softmax" else softplus_loss, kind, config)
    assert used.sum() == 5 and len({weight for *_, weight in pairs_of(config)}) == 2

    placement = placement_on(1)
    bank = init_bank(jax.random.key(0), C, E, config, positives=1, negatives=1)
    bank = bank._replace(rows=jnp.asarray(table), scale=jnp.float32(SCALE), bias=jnp.float32(BIAS))
    sample = RowSample(jnp.array(IDS, jnp.int32), jnp.array(DRAWN), jnp.array(DRAWN), jnp.int32(0))

    def part(bank, e):
        slots = jnp.array(KNOWN, jnp.int32), jnp.array(CHOSEN, jnp.int32)
        return tuple(PARTS[kind](LossInputs(e, bank, sample, *slots, *SIZES, FRACTION, placement, config)))

    spec = jax.P()
    in_shard = jax.shard_map(part, mesh=placement.mesh, in_specs=spec, out_specs=spec, check_vma=False)
    found = LossParts(*jax.jit(in_shard)(bank, e))
    np.testing.assert_allclose(found.loss, loss(at), rtol=1e-6)
    by_embeddings, by_rows, by_logit = gradients(loss, at)
    np.testing.assert_allclose(found.embeddings, by_embeddings, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(np.asarray(found.rows)[used], by_rows[used], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found.logit, by_logit, rtol=1e-5, atol=1e-6)

    positive, negative = ([pair[:2] for pair in pairs_of(config) if bool(pair[2]) == kind_] for kind_ in (False, True))
    if kind == "margin_softmax":
        positive = [(u, slot) for u in range(B) for slot in CHOSEN[u] if slot < NONE]
        negative = [(u, slot) for u in range(B) for slot in range(5) if slot not in CHOSEN[u]]
    shown = {"own": (1.0, 0.0), "margin_softmax": (4.0, 0.0)}.get(kind, (SCALE, BIAS))
    for sums, pairs in ((found.positives, positive), (found.negatives, negative)):
        logits = [logit(kind, (at[0], at[1], np.array(shown)), *pair) for pair in pairs]
        np.testing.assert_allclose(sums, [sum(logits), len(pairs)], rtol=1e-5, atol=1e-5)


def operations(jaxpr: Any) -> Iterator[Any]:
    """All of a program, those of its parts too."""
    for equation in jaxpr.eqns:
        yield equation
        for part in jax.tree.leaves(list(equation.params.values()), is_leaf=lambda part: hasattr(part, "eqns")):
            if hasattr(getattr(part, "jaxpr", part), "eqns"):
                yield from operations(getattr(part, "jaxpr", part))


@pytest.mark.parametrize("name", LOSSES)
def test_what_a_loss_says_of_its_cost_is_what_its_program_does(name: str) -> None:
    config, placement = CentersConfig(loss=name), placement_on(2)
    bank = init_bank(jax.random.key(0), 2 * C, E, config, positives=1, negatives=1)
    sample = RowSample(jnp.array(IDS, jnp.int32), jnp.array(DRAWN), jnp.array(DRAWN), jnp.int32(0))
    slots = jnp.array(KNOWN, jnp.int32), jnp.array(CHOSEN, jnp.int32)
    loss, spec = loss_of(config), jax.P()

    def part(bank, e):
        return tuple(loss.parts(LossInputs(e, bank, sample, *slots, *SIZES, FRACTION, placement, config)))

    in_shard = jax.shard_map(part, mesh=placement.mesh, in_specs=spec, out_specs=spec, check_vma=False)
    program = list(operations(jax.make_jaxpr(in_shard)(bank, jnp.ones((B, E))).jaxpr))
    summed = sum(each.size for step in program if step.primitive.name.startswith("psum") for each in map(aval, step.invars))
    assert summed == B * (loss.sums[0] + loss.sums[1] * len(CHOSEN[0]))
    products = [step for step in program if step.primitive.name == "dot_general" and B in aval(step.invars[0]).shape]
    pairs = [step for step in products if len(IDS) in (*aval(step.invars[0]).shape, *aval(step.invars[1]).shape)]
    assert loss.flops == 2 * len(pairs)


@pytest.mark.parametrize("name", LOSSES)
def test_products_with_the_rows_are_in_the_precision_that_is_asked_for(name: str) -> None:
    # CPUs compute all of them in float32: what other machines make of it is measured by bench/precision.py.
    for precision in ("highest", "BF16_BF16_F32_X3"):
        config, placement = CentersConfig(loss=name, precision=precision), placement_on(1)
        bank = init_bank(jax.random.key(0), C, E, config, positives=1, negatives=1)
        sample = RowSample(jnp.array(IDS, jnp.int32), jnp.array(DRAWN), jnp.array(DRAWN), jnp.int32(0))
        slots = jnp.array(KNOWN, jnp.int32), jnp.array(CHOSEN, jnp.int32)

        def part(bank, e, at=(sample, *slots, *SIZES, FRACTION, placement, config)):
            return tuple(loss_of(at[-1]).parts(LossInputs(e, bank, *at)))

        in_shard = jax.shard_map(part, mesh=placement.mesh, in_specs=jax.P(), out_specs=jax.P(), check_vma=False)
        program = operations(jax.make_jaxpr(in_shard)(bank, jnp.ones((B, E))).jaxpr)
        products = [step for step in program if step.primitive.name == "dot_general" and aval(step.outvars[0]).ndim == 2]
        assert len(products) >= 3
        wanted = jax.lax.DotAlgorithmPreset[precision] if precision != "highest" else (jax.lax.Precision.HIGHEST,) * 2
        assert all(step.params["precision"] == wanted for step in products)


def aval(variable: Any) -> Any:
    return variable.aval


def test_ones_own_loss_costs_six_unless_it_says_otherwise(monkeypatch: pytest.MonkeyPatch) -> None:
    config = CentersConfig(loss="own_functions:sigmoid")
    assert loss_of(config).flops == 6
    monkeypatch.setattr(own_functions.sigmoid, "flops", 10, raising=False)
    assert loss_of(config).flops == 10
